"""Runs that are disturbed: a process that imports everything once and then forks a run for every disturbance.

    python -m tests.killing < jobs.json > outcomes.json

A job: ``arguments`` of ``evaluation.run``, ``signal`` (a name, or "" for none), and when it comes: in the middle of the
``write``-th write to a file, counted from 1, or after a ``share`` of the first job's time. An outcome: ``code`` (negative: the
signal that ended it), ``error`` (its stderr) and ``seconds``.
"""

import io
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from evaluation import datasets, run
from spaces.cli import commands
from spaces.files import saving
from tests import tiny

PAUSE = 0.2  # seconds between STOP and CONT
RESET = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


class Disturbed:
    """A file in the middle of whose n-th write, over all files, a signal comes."""

    left = 0
    number = 0

    def __init__(self, *arguments: Any) -> None:
        self._file = open(*arguments)  # noqa: SIM115, PTH123

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        self._file.write(content[:half])
        Disturbed.left -= 1
        if Disturbed.left == 0:
            self._file.flush()
            os.kill(os.getpid(), Disturbed.number)
        self._file.write(content[half:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Disturbed":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def disturbed(job: dict[str, Any], whole: float = 0.0) -> dict[str, Any]:
    """Fork a run, disturb it, wait for its end. ``whole``: seconds that an undisturbed one takes."""
    number = getattr(signal, job["signal"]) if job["signal"] else 0
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as error:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(job, number, writing, error.fileno())
        os.close(writing)
        os.read(reading, 1)  # it has begun, or ended
        os.close(reading)
        if number and not job.get("write"):
            time.sleep(job["share"] * whole)
            os.kill(child, number)
        _, status = os.waitpid(child, os.WUNTRACED)  # the end, or a pause
        if os.WIFSTOPPED(status):
            time.sleep(PAUSE)
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
        error.seek(0)
        text = error.read().decode(errors="replace")
    return {"code": os.waitstatus_to_exitcode(status), "error": text, "seconds": time.monotonic() - began}


def _run(job: dict[str, Any], number: int, begun: int, error: int) -> NoReturn:
    code = 70
    try:
        for stop, handler in RESET.items():
            signal.signal(stop, handler)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(error, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        parse = run.parse

        def parse_and_tell(arguments: list[str]) -> Any:
            os.write(begun, b"1")
            return parse(arguments)

        run.parse = parse_and_tell
        if job.get("write"):
            Disturbed.left, Disturbed.number, saving._open = job["write"], number, Disturbed
        commands.leave(run.main(job["arguments"]))
    except SystemExit as leaving:
        code = leaving.code
    finally:
        sys.stderr.flush()
        os._exit(code)


def warm_up() -> None:
    """What every run would import and make anew, but no backward pass: torch's threads of those do not survive a fork."""
    torch.use_deterministic_algorithms(False)
    datasets.load("digits")
    space = tiny.problem().space
    space.draw(space.reference()).savefig(io.BytesIO(), format="svg")


def main() -> None:
    """Every job of the standard input, one after the other."""
    warm_up()
    outcomes = []
    for job in json.load(sys.stdin):
        outcome = disturbed(job, outcomes[0]["seconds"] if outcomes else 0.0)
        folders = sorted(Path(job["out"]).iterdir()) if job.get("out") and Path(job["out"]).exists() else []
        if job.get("resume") and folders:
            finished = (folders[0] / "record.json").exists()
            again = disturbed({"arguments": ["--resume", *map(str, folders)], "signal": ""})
            outcome |= {"again": again, "finished": finished}
        outcomes.append(outcome | {"folders": list(map(str, folders))})
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
