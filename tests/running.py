"""Runs of the small problem: finished, killed and gone on with; and the command that runs a search, as a process."""

import io
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

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
    moments = tuple(replace(moment, device_seconds=0.0) for moment in record.anytime)
    return replace(record, ledger={}, command="", search_training_seconds=None, anytime=moments)


class Killed(BaseException):
    """Stands for a kill: nothing in the program may catch it and tidy up."""


def stopped_run(parent: Path, config: RunConfig, saves: int) -> RunFolder:
    """A run that was killed right after so many checkpoints."""
    run, folder = new_run(parent, config)
    save, calls = checkpoints.save, iter(range(1, 1000))

    def dying(path: Path, state: dict) -> None:
        save(path, state)
        if next(calls) == saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "save", dying)
        run.execute(folder, quiet())
    return folder


def resume(folder: RunFolder) -> Record:
    """The record of a stopped run that is gone on with, all of it read from its folder."""
    config = folder.config()
    return Run(config, tiny.dataset(), CPU, tiny.library(config)).execute(RunFolder(folder.path), quiet())


def run_cli(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "evaluation.run", *arguments], capture_output=True, text=True, check=False, **options
    )
