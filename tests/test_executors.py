"""Executors: nothing is lost, nothing done twice, and a seed gives the same record whoever works on it."""

import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.search.evaluators import EVALUATORS
from evaluation.search.executors.pool import Pool
from evaluation.search.executors.processes import ProcessWorkers
from evaluation.search.forecast import HUNG, SHORTEST, Forecast
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


def test_a_job_may_take_many_times_what_others_took_for_their_work():
    costs = {"small": (0.0, 0, 10), "large": (0.0, 0, 1000)}
    job = dataclasses.make_dataclass("Job", ["architecture", "epochs", "kind"])
    forecast = Forecast(costs.__getitem__)
    large = job("large", 100, "search")
    assert not forecast.exceeded(large, 1e9)  # nothing is known
    forecast.note(job("small", 2, "search"), 1.0)
    forecast.note(job("small", 2, "search"), 0.5)
    assert (forecast.exceeded(large, HUNG * 5000 - 1), forecast.exceeded(large, HUNG * 5000 + 1)) == (False, True)
    small = job("small", 1, "search")
    assert (forecast.exceeded(small, SHORTEST - 1), forecast.exceeded(small, SHORTEST + 1)) == (False, True)
    assert not forecast.exceeded(job("large", 100, "final"), 1e9)
    assert not forecast.exceeded(job("unknown", 1, "search"), 1e9)


KILLED = """
import sys, time
from evaluation.search.executors.pool import Pool
from evaluation.search.executors.processes import ProcessWorkers
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


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("method", ["random", pytest.param("evoapproxnas", marks=pytest.mark.slow)])
def test_a_seed_gives_the_same_record_under_every_executor(method, tmp_path, monkeypatch):
    """Also where a worker is killed: what that cost stands in the record, and nothing else differs."""
    kills = tmp_path / "kills"
    kills.mkdir()
    monkeypatch.setenv("TEST_KILLS", str(kills))
    with EVALUATORS.temporarily("kills_once", evaluators.KillsOnce):
        config = tiny.run_config(method, baselines="int8", space_config={"nodes": 1})
        _, serial = finished_run(tmp_path, config)
        _, parallel = finished_run(
            tmp_path, dataclasses.replace(config, executor="processes", workers=2, evaluator="kills_once")
        )
    lost = [failure for failure in parallel.failures if failure.reason.endswith("done again")]
    assert lost and all(failure.device_seconds > 0 for failure in lost) and set(lost) == set(parallel.failures)
    parallel = dataclasses.replace(parallel, failures=serial.failures, evaluator=serial.evaluator)
    assert without_times(parallel) == without_times(serial)
