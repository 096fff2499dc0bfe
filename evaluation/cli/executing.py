"""Carries runs out, one after the other: new ones, those that were stopped, and a part in those of another process.

Imports torch: a command imports this when there is something to run.
"""

import functools
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from evaluation import datasets
from evaluation.cli import comparison, summary
from evaluation.cli.several import Several
from evaluation.datasets import Dataset
from evaluation.runs.folder import CONFIG, RECORD, STATE, RunFolder, read_record
from evaluation.runs.progress import RunProgress
from evaluation.runs.record import Record
from evaluation.runs.stages import Run
from evaluation.searching.final_epochs import from_plain
from evaluation.settings.config import RunConfig
from evaluation.training import distributed
from evaluation.training.device import choose_device, set_determinism, use_threads
from spaces import stopping
from spaces.arithmetic import emulate, gradient_precision
from spaces.cli.commands import BAD_INPUT, say
from spaces.cli.terminal import Terminal
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier

ELSEWHERE: Mapping[str, Any] = MappingProxyType({})  # no other place than the settings say


def start(plan: list[RunConfig], library: tuple[Multiplier, ...], out: Path, planned: list[Path]) -> int:
    """Check the whole plan, make its run folders, and run them. Returns the exit code."""
    prepare(plan, library, out, planned)
    return go_on(list(planned), planned, fresh=True)


def prepare(plan: list[RunConfig], library: tuple[Multiplier, ...], out: Path, planned: list[Path]) -> None:
    """Check the whole plan, and make its run folders, which ``planned`` then holds. Raises InputError, and leaves none then."""
    set_determinism(plan[0].deterministic)
    device = choose_device(plan[0].device)
    plan = [_settled(config, device) for config in plan]
    dataset = _dataset(plan[0].dataset, plan[0].image_size, plan[0].data_dir, plan[0].train_limit)
    for config in {config.method: config for config in plan}.values():
        Run(config, dataset, device, library).check()
    try:
        for config in plan:
            with stopping.postponed():  # a folder that is there is one that a stop names
                planned.append(RunFolder.create(out, config, library).path)
    except InputError:
        for path in planned:
            shutil.rmtree(path)
        raise


def _settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The settings with all that depends on the device decided, so that a run resumed elsewhere goes on in the same way."""
    precision = gradient_precision.settled(config.protocol.gradient_precision, device)
    return replace(config, protocol=replace(config.protocol, gradient_precision=precision))


def fill(path: Path, config: RunConfig, library: tuple[Multiplier, ...]) -> None:
    """Make a folder that is there the folder of a run."""
    RunFolder(path).fill(_settled(config, choose_device(config.device)), library)


def go_on(paths: Sequence[Path], planned: list[Path], fresh: bool = False, place: Mapping[str, Any] = ELSEWHERE) -> int:
    """Run what is left to do in every folder, one after the other, and compare them. Returns the exit code.

    One that fails does not stop the others. ``fresh`` folders that fail before their first step are removed. ``place``:
    settings that say where to compute, other than those of the runs.
    """
    planned[:] = {path.resolve(): path for path in paths}.values()  # each once
    for path in planned:
        if not (path / CONFIG).exists():
            raise InputError(f"'{path}' is not a run folder: it has no {CONFIG}")
    finished, failed, console = [], False, Terminal()
    several = Several(console, len(planned)) if len(planned) > 1 else None
    for path in list(planned):
        try:
            finished.append(execute(path, console, place, several))
        except InputError as error:
            if fresh and not (path / STATE).exists():
                shutil.rmtree(path)
                planned.remove(path)
            if len(paths) == 1:
                raise
            say(f"error: {path}: {error}")
            failed = True
    if len(finished) > 1:
        comparison.show(console, finished)
    return BAD_INPUT if failed else 0


def execute(
    path: Path,
    console: Terminal,
    place: Mapping[str, Any] = ELSEWHERE,
    several: Several | None = None,
    watch: type[RunProgress] = RunProgress,
) -> Record:
    """Run what is left to do in a run folder, show and return its record; of ``several`` runs, only a line of it."""
    title, finished = several.begin(path) if several else str(path), path / RECORD
    if was_finished := finished.exists():  # to show it takes neither its data nor a folder that can be written
        record = read_record(finished)
        console.print(title, style="bold", highlight=False)
    else:
        folder = RunFolder(path)
        run = _open(folder, place)
        with watch(console, title) as progress:
            record = run.execute(folder, progress)
    if several:
        several.end(record, was_finished)
    else:
        summary.show(console, record, str(path))
    return record


def take_part() -> None:
    """Train in step with the first of torchrun's processes, which does all else, until it is done."""
    run: Run | None = None
    while message := distributed.receive():
        if "folder" in message:
            run = None  # the memory of the last one first
            run = _open(RunFolder(Path(message["folder"])), {"device": message["device"]})
            continue
        assert run is not None, "the run is announced before its first job"
        precision = gradient_precision.used(run.config.protocol.gradient_precision, run.device)
        with suppress(FloatingPointError), precision:  # a loss that is not finite is the first process's affair
            run.problem.work.final.train(from_plain(message, run.problem.conditions))


def _open(folder: RunFolder, place: Mapping[str, Any]) -> Run:
    """The run of a folder, ready to go on; ``place`` says where, where that is elsewhere than in its settings."""
    config = replace(folder.config(), **place)
    set_determinism(config.deterministic)
    dataset = _dataset(config.dataset, config.image_size, config.data_dir, config.train_limit)
    use_threads(config.threads, dataset.train.images.shape[2])
    emulate.use_engine(config.engine)
    chosen = choose_device(config.device, f"go on with --resume {shlex.quote(str(folder.path))} --device cpu")
    return Run(config, dataset, chosen, folder.library(config))


@functools.lru_cache(maxsize=1)
def _dataset(name: str, image_size: int, data_dir: str, train_limit: int) -> Dataset:
    """The data set, decoded once for all runs on it."""
    return datasets.load(name, image_size, data_dir, train_limit)
