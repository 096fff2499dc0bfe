"""Executors: nothing is lost, nothing done twice, and a seed gives the same record whoever works on it."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.searching.evaluators import EVALUATORS
from evaluation.searching.executors import serial
from evaluation.searching.executors.executor import Outcome
from evaluation.searching.executors.pool import Died, Done, Pool, Ready
from evaluation.searching.executors.processes import ProcessWorkers
from evaluation.searching.forecast import HUNG, SHORTEST, Forecast
from spaces.errors import InputError
from tests import evaluators, jobs, tiny
from tests.running import finished_run, without_times

SQUARES = [("square", number) for number in range(6)]


@pytest.fixture
def pool():
    """A factory of pools of processes that do what ``jobs.act`` says."""
    pools = []

    def make(workers: int = 1, limit: float = math.inf, act=jobs.act) -> Pool:
        pools.append(Pool(ProcessWorkers(jobs.Recipe(act), workers), jobs.Limits(limit)))
        return pools[-1]

    yield make
    for each in pools:
        each.close()


def outcomes(pool: Pool, asked: list[tuple]) -> dict:
    for number, job in enumerate(asked):
        pool.submit(number, job)
    return dict(pool.next() for _ in asked)


def test_jobs_are_done_once_and_a_lost_one_is_tried_again(pool, tmp_path):
    """A worker that is killed, one that is killed whenever it comes to a job, and one that hangs."""
    asked = [*SQUARES[:3], ("kill once", tmp_path / "once"), ("kill",), ("hang",), *SQUARES[3:]]
    found = outcomes(pool(2, limit=3.0), asked)
    assert [found[n].result for n in (0, 1, 2, 6, 7, 8)] == [0, 1, 4, 9, 16, 25]
    assert found[3].result == "kill once" and len(found[3].losses) == 1
    assert "SIGKILL" in found[3].losses[0].reason
    assert found[4].result is None and len(found[4].losses) == 2
    assert found[5].result is None and [loss.seconds >= 3.0 for loss in found[5].losses] == [True, True]
    assert "had not ended after 3 s" in found[5].losses[0].reason


def test_what_was_not_begun_can_be_taken_back(pool):
    one = pool(1)
    for number in range(5):
        one.submit(number, ("pid", 0.2))
    first, _ = one.next()
    assert (first, one.withdraw()) == (0, [2, 3, 4])  # the second was begun before the first was told
    assert one.next()[0] == 1


def test_what_a_worker_raises_ends_the_work_with_its_words(pool):
    with pytest.raises(InputError, match="^no such thing$"):
        outcomes(pool(), [("raise", InputError("no such thing"))])
    with pytest.raises(RuntimeError, match=r"a worker failed \(KeyError: 'x'\)"):
        outcomes(pool(), [("raise", KeyError("x"))])


def test_workers_that_never_get_ready_end_the_work(pool):
    one = pool()
    started = one.workers.start

    def start(number):
        worker = started(number)
        worker.process.kill()
        return worker

    one.workers.start = start
    with pytest.raises(
        InputError, match="3 workers in a row ended before they were ready: its worker was ended by SIGKILL"
    ):
        outcomes(one, SQUARES[:1])


class FakeWorker:
    """Does nothing with a job, or ends at its next one, once its node is ``lost``; which shows in nothing else, as with Ray."""

    def __init__(self) -> None:
        self.said, self.lost, self.sent_to = Ready(), False, 0

    def send(self, job) -> None:
        self.said, self.sent_to = Done(job, 0.0), self.sent_to + 1

    def receive(self):
        if self.lost:
            raise Died("its node was lost")
        said, self.said = self.said, None
        return said

    def answers(self) -> bool:
        return not self.lost

    def kill(self) -> None:
        pass


class FakeWorkers:
    count = 3

    def __init__(self) -> None:
        self.started: list[FakeWorker] = []

    def start(self, number) -> FakeWorker:  # noqa: ARG002
        self.started.append(FakeWorker())
        return self.started[-1]

    def wait(self, workers, seconds):  # noqa: ARG002
        return [worker for worker in workers if worker.said is not None]

    def close(self) -> None:
        pass


def test_a_job_is_not_tried_again_by_workers_that_went_with_the_first_one():
    workers = FakeWorkers()
    one = Pool(workers, jobs.Limits(math.inf))
    assert sorted(outcome.result for outcome in outcomes(one, [1, 2, 3]).values()) == [1, 2, 3]
    assert [worker.sent_to for worker in workers.started] == [1, 1, 1]
    for worker in workers.started:
        worker.lost = True
    one.submit(9, 4)
    number, outcome = one.next()
    assert (number, outcome.result, [loss.reason for loss in outcome.losses]) == (9, 4, ["its node was lost"])
    assert sorted(worker.sent_to for worker in workers.started) == [1, 1, 1, 2]


def test_a_job_that_hangs_in_this_process_is_told(monkeypatch, capsys):
    monkeypatch.setattr(serial, "LOOK", 0.02)
    one = serial.Serial(lambda _: time.sleep(0.3), None, jobs.Limits(0.1), None)
    one.submit(1, "a job")
    assert one.next() == (1, Outcome(None))
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "many times what others took" in told and "--executor processes" in told


def test_a_job_may_take_many_times_what_others_took_for_their_work():
    costs = {"small": (0.0, 0, 10), "large": (0.0, 0, 1000)}
    job = dataclasses.make_dataclass("Job", ["architecture", "epochs", "kind"])
    whole, failed = (dataclasses.make_dataclass("Ended", ["failed"])(value) for value in (False, True))
    forecast = Forecast(costs.__getitem__)
    large = job("large", 100, "search")
    assert not forecast.exceeded(large, 1e9)  # nothing is known
    forecast.note(job("large", 2, "search"), failed, 0.1)  # at once: the others take longer
    assert not forecast.exceeded(large, 1e9)
    forecast.note(job("small", 2, "search"), whole, 1.0)
    forecast.note(job("small", 2, "search"), whole, 0.5)
    assert (forecast.exceeded(large, HUNG * 5000 - 1), forecast.exceeded(large, HUNG * 5000 + 1)) == (False, True)
    small = job("small", 1, "search")
    assert (forecast.exceeded(small, SHORTEST - 1), forecast.exceeded(small, SHORTEST + 1)) == (False, True)
    # What does not grow with a network's work: a small one may take as long as the large ones that were seen.
    forecast.note(job("large", 1, "selection"), whole, 600.0)
    judged = job("small", 1, "selection")
    limit = HUNG * 600.0
    assert (forecast.exceeded(judged, limit - 1), forecast.exceeded(judged, limit + 1)) == (False, True)
    assert not forecast.exceeded(job("large", 100, "final"), 1e9)
    assert not forecast.exceeded(job("unknown", 1, "search"), 1e9)


KILLED = """
import sys, time
from evaluation.searching.executors import serial
from evaluation.searching.executors.executor import Outcome
from evaluation.searching.executors.pool import Died, Done, Pool, Ready
from evaluation.searching.executors.processes import ProcessWorkers
from tests import jobs

if __name__ == "__main__":
    pool = Pool(ProcessWorkers(jobs.Recipe(jobs.act), 2), jobs.Limits(1e9))
    for number in range(2):
        pool.submit(number, ("pid", 0.1))
    print(*(pool.next()[1].result for _ in range(2)), flush=True)
    for number in range(2):
        pool.submit(number, ("hang",))
    pool.next()
"""


def test_no_worker_outlives_a_driver_that_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}  # where the tests are not installed
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env) as driver:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 2
        driver.kill()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


STOPPED = """
import os, signal, sys, threading, time
from evaluation.searching.executors.pool import Pool
from evaluation.searching.executors.processes import ProcessWorkers
from spaces.cli.commands import guarded, leave
from tests import jobs

def work():
    pool = Pool(ProcessWorkers(jobs.Recipe(jobs.act), 2), jobs.Limits(1e9))
    for number in range(2):
        pool.submit(number, ("hang",))
    pids = [worker.process.pid for worker in pool.places.values()]
    print(*pids, flush=True)
    try:
        pool.next()
    finally:
        pool.close()

if __name__ == "__main__":
    leave(guarded(work, lambda: "farewell"))
"""


@pytest.mark.parametrize(("name", "wait"), [("SIGINT", 0.0), ("SIGTERM", 0.0), ("SIGTERM", 1.0)])
def test_a_stop_ends_all_workers_at_any_moment_with_one_line(name, wait, tmp_path):
    """It goes to all processes, as that of a terminal or a batch system; workers may be starting, or working."""
    script, number = tmp_path / "stopped.py", getattr(signal, name)
    script.write_text(STOPPED)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen([sys.executable, str(script)], start_new_session=True, **options) as driver:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        time.sleep(wait)
        os.killpg(driver.pid, number)
        error = driver.communicate()[1]
    assert (driver.returncode, error, len(pids)) == (128 + number, "farewell\n", 2)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("random", {}),
        pytest.param("evoapproxnas", {}, marks=pytest.mark.slow),
        pytest.param("evoapproxnas", {"steady_state": 3}, marks=pytest.mark.slow),
    ],
)
def test_a_seed_gives_the_same_record_under_every_executor(method, changes, tmp_path, monkeypatch):
    """Also where a worker is killed: what that cost stands in the record, and nothing else differs."""
    kills = tmp_path / "kills"
    kills.mkdir()
    monkeypatch.setenv("TEST_KILLS", str(kills))
    with EVALUATORS.temporarily("kills_once", evaluators.KillsOnce):
        settings = tiny.method_config(method) | changes
        config = tiny.run_config(method, method_config=settings, baselines="int8", space_config={"nodes": 1})
        _, serial = finished_run(tmp_path, config)
        _, parallel = finished_run(
            tmp_path, dataclasses.replace(config, executor="processes", workers=2, evaluator="kills_once")
        )
    lost = [failure for failure in parallel.failures if failure.reason.endswith("done again")]
    assert lost and all(failure.device_seconds > 0 for failure in lost) and set(lost) == set(parallel.failures)
    parallel = dataclasses.replace(parallel, failures=serial.failures, evaluator=serial.evaluator)
    assert without_times(parallel) == without_times(serial)
