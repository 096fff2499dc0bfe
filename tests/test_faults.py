"""Faults at random moments, under every executor: workers, drivers and whole nodes that are killed.

What is resumed ends as the undisturbed run did; what a fault cost stands in the record, once.
"""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.runs.folder import RECORD, read_history, read_record
from tests.running import SMALL_FLAGS, without_times

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

KILLS = 20  # of each executor
NODES = 3  # that are lost
RUN = [
    *("--method", "random", "--random.samples", "16", "--random.proposals", "3", "--baselines", "int8", "--seed", "3"),
    *("--space", "cells", *SMALL_FLAGS, "--protocol.selection-epochs", "3", "--protocol.final-epochs", "4"),
]
DONE_AGAIN = "done again"
RAYS_OWN = (
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
)  # see that their cluster is gone, and call it for a minute more


def descendants(pid: int) -> list[int]:
    """All processes below one, with what they run."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, _, rest = path.read_text().partition(" ")
            children.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(number))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def workers_of(driver: int, sign: str) -> list[int]:
    """Processes below the driver whose command line has this in it."""
    return [pid for pid in descendants(driver) if sign in command_of(pid)]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "evaluation.run", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        yield process


def finished_here(out: Path, *arguments: str) -> Path:
    with started(*RUN, *arguments, "--out", str(out)) as process:
        assert process.wait() == 0, process.stderr.read()
    (folder,) = out.iterdir()
    return folder


def check(folder: Path, whole: Path) -> int:
    """Nothing is lost and nothing falsified. How many attempts were lost and done again."""
    record, expected = read_record(folder / RECORD), read_record(whole / RECORD)
    again = [failure for failure in record.failures if failure.reason.endswith(DONE_AGAIN)]
    assert all(failure.device_seconds >= 0 for failure in again)
    others = tuple(failure for failure in record.failures if failure not in again)
    assert without_times(dataclasses.replace(record, failures=others)) == without_times(expected)
    lines = [read_history(path / "history.jsonl") for path in (folder, whole)]
    timeless = [[{k: v for k, v in line.items() if k != "device_seconds"} for line in history] for history in lines]
    assert timeless[0] == timeless[1]
    for history in lines:
        spent = [line["device_seconds"] for line in history]
        assert spent == sorted(spent)
    return len(again)


def disturbed(out: Path, flags: list[str], sign: str, seed: int) -> tuple[Path, dict[str, int]]:
    """A run of which the driver or a worker is killed at random moments, or the driver is told to stop; it is gone on with
    until it has ended.
    """
    rng, kills, arguments = random.Random(seed), {"driver": 0, "worker": 0}, [*RUN, *flags, "--out", str(out)]
    while True:
        with started(*arguments) as process:
            while process.poll() is None and sum(kills.values()) < KILLS and at_work(process, out, sign):
                # Later ones come later: where all takes long, it gets further than to its workers' start.
                time.sleep(rng.uniform(0, 4 * 1.05 ** sum(kills.values())))
                workers = workers_of(process.pid, sign) if sign else []
                if workers and rng.random() < 0.7:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(workers), signal.SIGKILL)
                        kills["worker"] += 1
                elif process.poll() is None:
                    below = descendants(process.pid)
                    process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
                    kills["driver"] += 1
                    assert not left_over(below), "a process outlives the driver"
            error = process.communicate()[1]
        if process.returncode == 0:
            (folder,) = out.iterdir()
            return folder, kills
        stopped = process.returncode == 128 + signal.SIGTERM and error.startswith("stopped") and error.count("\n") == 1
        unlucky = process.returncode == 2 and "3 workers in a row ended before they were ready" in error
        # By SIGTERM itself it ends before anything is begun, and after all is said.
        assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM) or stopped or unlucky, error
        if folders := [folder for folder in out.glob("*") if (folder / "config.json").exists()]:
            arguments = ["--resume", str(folders[0])]


def at_work(process: subprocess.Popen, out: Path, sign: str) -> bool:
    """Wait until a process has workers, or saves something; False where it ends first."""
    since = time.time()
    while process.poll() is None:
        saved = [path.stat().st_mtime for path in out.glob("*/history.jsonl")]
        if any(moment > since for moment in saved) or (sign and workers_of(process.pid, sign)):
            return True
        time.sleep(0.1)
    return False


def left_over(pids: list[int]) -> list[str]:
    """What those that still run after a while were started as."""
    pids, deadline = [pid for pid in pids if command_of(pid) not in RAYS_OWN], time.monotonic() + 20
    while (left := [pid for pid in pids if running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [command_of(pid) for pid in left]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("flags", "sign"),
    [
        pytest.param([], "", id="serial"),
        pytest.param(["--executor", "processes", "--workers", "2"], "spawn_main", id="processes"),
        pytest.param(["--executor", "ray", "--workers", "2", "--ray-num-cpus", "0.5"], "ray::Actor", id="ray"),
    ],
)
def test_a_run_whose_processes_are_killed_ends_as_an_undisturbed_one(flags, sign, tmp_path):
    whole = finished_here(tmp_path / "whole")
    folder, kills = disturbed(tmp_path / "disturbed", flags, sign, seed=len(flags))
    again = check(folder, whole)
    print(f"\n{' '.join(flags) or 'serial'}: killed {kills}; {again} attempts done again")
    assert kills["driver"] >= 1 and again <= kills["worker"]


def test_a_run_on_two_raylets_survives_the_loss_of_a_node(tmp_path, monkeypatch):
    """The second node is killed, with whatever works there, and another one comes, several times."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    whole = finished_here(tmp_path / "whole")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # as this cluster is started, whatever token the user has
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node, rng, losses = cluster.add_node(num_cpus=1), random.Random(1), 0
        flags = [
            "--executor",
            "ray",
            "--ray-address",
            cluster.address,
            "--workers",
            "2",
            "--out",
            str(tmp_path / "lost"),
        ]
        with started(*RUN, *flags) as process:
            while at_work(process, tmp_path / "lost", ""):
                time.sleep(rng.uniform(0, 6))
                if losses < NODES:
                    cluster.remove_node(node, allow_graceful=False)
                    node, losses = cluster.add_node(num_cpus=1), losses + 1
            assert process.returncode == 0, process.stderr.read()
    finally:
        cluster.shutdown()
    (folder,) = (tmp_path / "lost").iterdir()
    print(f"\nlost {losses} nodes; {check(folder, whole)} attempts done again")
    assert losses >= 1
