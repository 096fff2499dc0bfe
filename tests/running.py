"""Runs of the small problem: finished, killed and gone on with; and the command that runs a search, as a process."""

import contextlib
import io
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluation.run import main
from evaluation.runs import checkpoints
from evaluation.runs.folder import RunFolder
from evaluation.runs.progress import RunProgress
from evaluation.runs.record import Record
from evaluation.runs.stages import Run
from evaluation.settings.config import RunConfig
from spaces.cli.terminal import Terminal
from tests import tiny

CPU = torch.device("cpu")

# What makes a run of the command small.
SMALL_FLAGS = shlex.split(
    "--cells.nodes 1 --multipliers mul8s_1KV8 mul8s_1L2H --protocol.search-channels 2 --protocol.final-channels 2 "
    "--protocol.search-batch 180 --protocol.batch 180 --protocol.selection-epochs 1 --protocol.final-epochs 2 "
    "--protocol.finalists 2 --protocol.finalist-margin 1"
)
SMALL_RANDOM = ["--method", "random", "--random.samples", "3", "--random.batch", "1", *SMALL_FLAGS]

EVERY_CHECKPOINT = [
    pytest.param(False, id="one of each kind"),
    pytest.param(True, id="every one", marks=pytest.mark.slow),
]


def quiet() -> RunProgress:
    return RunProgress(Terminal(file=io.StringIO()), "test")


def new_run(parent: Path, config: RunConfig) -> tuple[Run, RunFolder]:
    folder = RunFolder.create(parent, config, tiny.library(config))
    return Run(config, tiny.dataset(), CPU, tiny.library(config)), folder


def finished_run(parent: Path, config: RunConfig) -> tuple[RunFolder, Record]:
    """The folder of a run and its record."""
    run, folder = new_run(parent, config)
    return folder, run.execute(folder, quiet())


def without_times(record: Record) -> Record:
    """What two runs of one seed have in common."""
    moments = tuple(replace(moment, device_seconds=0.0, judging_seconds=None) for moment in record.anytime)
    return replace(record, ledger={}, command="", search_training_seconds=None, anytime=moments)


class Killed(BaseException):
    """Stands for a kill: nothing in the program may catch it and tidy up."""


def counted_run(parent: Path, config: RunConfig) -> tuple[RunFolder, Record, list[tuple]]:
    """A finished run, its record, and what kind each of its checkpoints is of: weights, or a stage with a training or not."""
    save, kinds = checkpoints.save, []

    def count(path: Path, state: dict) -> None:
        progress = state.get("state", {})
        kinds.append((progress.get("stage"), bool(progress.get("training"))))
        save(path, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", count)
        folder, record = finished_run(parent, config)
    return folder, record, kinds


def moments_to_kill_at(kinds: list[tuple], every: bool) -> list[tuple[int, bool]]:
    """Numbers of checkpoints, from 1, with whether to kill before each is written or after it, by turns.

    The last one of each kind, or ``every`` one.
    """
    numbers = range(1, len(kinds) + 1) if every else {kind: number for number, kind in enumerate(kinds, 1)}.values()
    return [(number, index % 2 == 0) for index, number in enumerate(numbers)]


def stopped_run(parent: Path, config: RunConfig, saves: int, before: bool = False) -> RunFolder:
    """A run that was killed right after so many checkpoints, or right before the last of them was written."""
    run, folder = new_run(parent, config)
    save, calls = checkpoints.save, iter(range(1, 1000))

    def dying(path: Path, state: dict) -> None:
        last = next(calls) == saves
        if not (last and before):
            save(path, state)
        if last:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "save", dying)
        run.execute(folder, quiet())
    return folder


def resume(folder: RunFolder) -> Record:
    """The record of a stopped run that is gone on with, all of it read from its folder."""
    config = folder.config()
    return Run(config, tiny.dataset(), CPU, tiny.library(config)).execute(RunFolder(folder.path), quiet())


def run_here(*arguments: str) -> subprocess.CompletedProcess:
    """As ``run_cli``, without another process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        code = main(list(arguments))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


def run_cli(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "evaluation.run", *arguments], capture_output=True, text=True, check=False, **options
    )
