"""Stops at bad moments, and going on elsewhere: as real processes where a signal is involved."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from evaluation.run import main
from evaluation.runs import checkpoints
from evaluation.runs.folder import RunFolder, read_record
from evaluation.runs.stages import Run
from evaluation.runs.state import STATE
from evaluation.searching.seeds import derived_seed
from spaces import stopping
from spaces.errors import InputError
from spaces.files import saving
from tests import tiny
from tests.method_contract import ONE_OF_EACH_KIND, global_generators
from tests.running import SMALL_RANDOM, finished_run, quiet, resume, stopped_run, without_times

CPU = torch.device("cpu")
HUNG = 240  # seconds
CLI = [sys.executable, "-m", "evaluation.run"]


def start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and what it said on stderr."""
    try:
        _, error = process.communicate(timeout=HUNG)
    finally:
        process.kill()
    return process.returncode, error


# -- SIGTERM -----------------------------------------------------------------------------------------------------------


def test_sigterm_ends_a_comparison_with_one_line_and_it_can_go_on(tmp_path):
    flags = [*SMALL_RANDOM, "--seeds", "2", "--baselines", "none"]
    assert main([*flags, "--out", str(tmp_path / "a")]) == 0
    process = start(*CLI, *flags, "--out", str(tmp_path / "b"))
    try:
        deadline = time.monotonic() + HUNG
        while not list((tmp_path / "b").glob("*s0-1/history.jsonl")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # an impatient one
    finally:
        code, error = finish(process)
    folders = sorted((tmp_path / "b").iterdir())
    assert code == 143
    expected = f"stopped; go on with: python -m evaluation.run --resume {folders[0]} {folders[1]}"
    assert error.splitlines() == [expected]
    filelock.FileLock(folders[0] / ".lock", timeout=0).acquire()
    assert main(["--resume", *map(str, folders)]) == 0
    for folder, whole in zip(folders, sorted((tmp_path / "a").iterdir())):
        results = [without_times(read_record(path / "record.json")) for path in (folder, whole)]
        assert results[0] == results[1]


IN_THE_MIDDLE = """
import os, signal, sys
from evaluation import run
from spaces.files import saving
writes = iter(range(1, 1000))

class Signalling:
    def __init__(self, *arguments):
        self.file = open(*arguments)
    def write(self, content):
        self.file.write(content[: len(content) // 2])
        if next(writes) == {number}:
            os.kill(os.getpid(), signal.{signal})
        return self.file.write(content[len(content) // 2 :])
    def __getattr__(self, name):
        return getattr(self.file, name)
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.close()

saving._open = Signalling
run.leave(run.main(sys.argv[1:]))
"""
# Writes of a run of random search with three candidates: settings, three steps with a line and a checkpoint each, the
# search's end, proposals, selection and so on.
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def stopped_in_write(folder: Path, number: int, name: str, flags: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a run that gets the signal in the middle of its n-th write."""
    script = folder / "script.py"
    script.write_text(IN_THE_MIDDLE.format(number=number, signal=name))
    return finish(start(sys.executable, str(script), *flags))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 3),
        ("SIGINT", 7),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("SIGHUP", 14), ("SIGTERM", 17))),
    ],
)
def test_a_stop_while_a_file_is_written_waits_for_its_end(tmp_path, name, number):
    flags = [*SMALL_RANDOM, "--baselines", "none", "--out", str(tmp_path / "runs")]
    code, error = stopped_in_write(tmp_path, number, name, flags)
    (folder,) = (tmp_path / "runs").iterdir()
    expected = f"stopped; go on with: python -m evaluation.run --resume {folder}\n"
    assert (code, error) == (CODES[name], expected)
    assert not list(folder.rglob("*.tmp"))
    assert main(["--resume", str(folder)]) == main(flags) == 0
    results = [without_times(read_record(path)) for path in (tmp_path / "runs").glob("*/record.json")]
    assert len(results) == 2 and results[0] == results[1]
    assert not results[0].failures


def test_a_save_that_fails_is_no_failed_training(tmp_path, monkeypatch):
    config = tiny.run_config("random", space_config={"nodes": 1}, baselines="none")
    folder = RunFolder.create(tmp_path, config, tiny.library(config))
    save = torch.save

    def failing(state: dict, file: object) -> None:
        if state.get("state", {}).get("training"):
            raise RuntimeError("no memory for the file")
        save(state, file)

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(InputError, match="cannot be made .*no memory for the file"):
        Run(config, tiny.dataset(), CPU, tiny.library(config)).execute(folder, quiet())
    monkeypatch.undo()
    assert resume(folder).failures == ()


SWALLOWED_STOP = """
import os, signal, sys, time
from pathlib import Path
from spaces.cli import commands
from spaces.files import saving

def work():
    saving.save_text(Path(sys.argv[1]), "before")
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException as error:
        print("taken for a failure", file=sys.stderr)
    saving.save_text(Path(sys.argv[1]), "a failure")
    return 0

commands.leave(commands.guarded(work))
"""


def test_a_stop_that_something_swallowed_is_never_recorded_as_a_failure(tmp_path):
    file = tmp_path / "file"
    code, error = finish(start(sys.executable, "-c", SWALLOWED_STOP, str(file)))
    assert (code, error) == (143, "taken for a failure\nstopped\n")
    assert file.read_text() == "before"


UNDER_NOHUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from spaces.cli import commands
commands.leave(commands.guarded(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0))
"""


def test_a_run_under_nohup_outlives_its_terminal():
    assert finish(start(sys.executable, "-c", UNDER_NOHUP)) == (0, "")


TERMINAL_GONE = """
import os, signal, sys
from spaces.cli import commands

def work():
    sys.stdout = open("/dev/full", "w", buffering=1)  # what is printed fails, as on a terminal that is gone
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        print("tidying up")

code = commands.guarded(work)
sys.stdout = sys.__stdout__
commands.leave(code)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_stop_counts_whatever_goes_wrong_after_it():
    assert finish(start(sys.executable, "-c", TERMINAL_GONE)) == (129, "stopped\n")


@pytest.mark.parametrize("name", CODES)
def test_every_command_ends_with_a_line_and_a_code_of_its_own(name):
    script = f"""
import os, signal, sys, time
from reports import build
build.build = lambda *_: os.kill(os.getpid(), signal.{name}) or time.sleep(60)
build.leave(build.main(["somewhere"]))
"""
    assert finish(start(sys.executable, "-c", script)) == (CODES[name], "stopped\n")


BLOCKED = """
import os, signal, sys, threading, time, numba
from spaces import stopping
stopping.GRACE = 0.5

@numba.njit(nogil=True)
def spin(n):  # native code that no Python signal handler interrupts
    total = 0.0
    for i in range(n):
        total += (i * 0.5) % 3.0
    return total

spin(10)
try:
    with stopping.on_stop(lambda: "farewell"):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        print(spin(10**13))
except BaseException as error:
    print("not reached", file=sys.stderr)
"""

SWALLOWED = """
import os, signal, sys, time
from spaces import stopping
stopping.GRACE = 0.5

class Careless:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

with stopping.on_stop(lambda: "farewell"):
    sys.unraisablehook = lambda _: None
    Careless()
    time.sleep(60)
"""


@pytest.mark.parametrize("script", [BLOCKED, SWALLOWED])
def test_sigterm_ends_what_no_exception_can(script):
    assert finish(start(sys.executable, "-c", script)) == (143, "farewell\n")


TWICE = """
import os, signal, sys, time
from spaces import stopping
try:
    with stopping.on_stop(lambda: "farewell"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:  # tidying up
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
except stopping.Stopped:
    os.kill(os.getpid(), signal.SIGTERM)
    print("tidied up", file=sys.stderr)
    sys.exit(143)
"""


REPLACED = """
import os, signal, time
from spaces.cli.commands import guarded, leave

def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None  # as Ray does in its waits

leave(guarded(work, lambda: "farewell"))
"""


def test_a_sigterm_keeps_its_code_where_a_library_makes_it_a_ctrl_c():
    assert finish(start(sys.executable, "-c", REPLACED)) == (143, "farewell\n")


def test_a_second_sigterm_changes_nothing():
    assert finish(start(sys.executable, "-c", TWICE)) == (143, "tidied up\n")


def test_handlers_are_as_before_afterwards():
    every = [signal.getsignal(number) for number in stopping.STOPS]
    before = signal.getsignal(signal.SIGTERM)
    with stopping.on_stop(str):
        assert not set(every) & {signal.getsignal(number) for number in stopping.STOPS}
    assert every == [signal.getsignal(number) for number in stopping.STOPS]
    assert signal.set_wakeup_fd(-1) == -1

    def elsewhere() -> None:
        with stopping.on_stop(str):
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


def as_if_from_cuda(folder: RunFolder) -> dict:
    """The checkpoint as a GPU would have left it: generators of CUDA have 16 bytes of state."""
    kept = checkpoints.load(folder.path / STATE, CPU)
    kept["device"] = "cuda"
    kept["problem"]["generator"] = torch.arange(16, dtype=torch.uint8)
    for under_way in kept["state"]["training"].values():
        under_way["training"]["generator"] = torch.arange(16, dtype=torch.uint8)
    checkpoints.save(folder.path / STATE, kept)
    return kept


@pytest.mark.parametrize(("stage", "saves"), [("search", 1), ("final", 9)])
def test_a_run_goes_on_on_another_type_of_device_and_says_so(tmp_path, stage, saves):
    protocol = dataclasses.replace(tiny.PROTOCOL, finalists=1, final_epochs=3)
    config = tiny.run_config("approxdarts", protocol=protocol, space_config={"nodes": 1}, baselines="none")
    results = []
    for _ in range(2):
        folder = stopped_run(tmp_path, config, saves)
        kept = as_if_from_cuda(folder)
        assert kept["state"]["stage"] == stage and bool(kept["state"]["training"]) == (stage == "final")
        results.append(resume(folder))
    step = kept["state"]["lines"]
    assert results[0].notes == (f"resumed on cpu after cuda at step {step}: other random numbers from there on",)
    assert without_times(results[0]) == without_times(results[1])
    assert results[0].device.type == "cpu" and results[0].finalists[0].accuracy.test["approximate"]
    assert finished_run(tmp_path, config)[1].notes == ()


def test_random_numbers_after_a_move_depend_on_seed_and_step(tmp_path):
    seen = []
    for saves in (1, 2, 2):
        folder = stopped_run(tmp_path, tiny.run_config("approxdarts", space_config={"nodes": 1}, seed=3), saves)
        as_if_from_cuda(folder)
        config = folder.config()
        run = Run(config, tiny.dataset(), CPU, tiny.library(config))
        from evaluation.runs import state

        state.load(folder, config, run.dataset, run.problem, CPU)
        seen.append(torch.rand(3, generator=run.problem.generator).tolist())
        expected = torch.Generator().manual_seed(derived_seed(3, "moved", saves))
        assert seen[-1] == torch.rand(3, generator=expected).tolist()
    assert seen[0] != seen[1] == seen[2]


def test_an_older_checkpoint_that_does_not_say_its_device_moves_too(tmp_path):
    folder = stopped_run(tmp_path, tiny.run_config("approxdarts", space_config={"nodes": 1}, baselines="none"), 1)
    kept = as_if_from_cuda(folder)
    checkpoints.save(folder.path / STATE, {name: value for name, value in kept.items() if name != "device"})
    assert "resumed on cpu after another type of device at step 1" in resume(folder).notes[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_run_that_asks_for_cuda_goes_on_on_a_cpu_when_told_to(tmp_path, capsys):
    flags = [*SMALL_RANDOM, "--baselines", "none", "--out", str(tmp_path)]
    assert main(flags) == 0
    (folder,) = tmp_path.iterdir()
    (folder / "record.json").unlink()
    settings = json.loads((folder / "config.json").read_text())
    saving.save_json(folder / "config.json", {**settings, "device": "cuda"})
    kept = checkpoints.load(folder / STATE, CPU)
    kept["config"]["device"] = "cuda"
    checkpoints.save(folder / STATE, kept)
    assert main(["--resume", str(folder)]) == 2
    refused = capsys.readouterr().err
    assert len(refused.splitlines()) == 1 and f"go on with --resume {folder} --device cpu" in refused
    assert main(["--resume", str(folder), "--device", "cpu"]) == 0
    assert json.loads((folder / "config.json").read_text())["device"] == "cuda"  # as asked
    assert read_record(folder / "record.json").device.type == "cpu"


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_nothing_is_drawn_from_global_generators(name, tmp_path):
    """A checkpoint does not hold them, and need not."""
    config = tiny.run_config(name, space_config={"nodes": 1}, baselines="none")
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = global_generators()
        results.append(finished_run(tmp_path, config)[1])
        assert global_generators() == before
    assert without_times(results[0]) == without_times(results[1])
