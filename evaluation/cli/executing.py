"""Carries runs out, one after the other: new ones, those that were stopped, and a part in those of another process.

Imports torch: a command imports this when there is something to run.
"""

import functools
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from evaluation import datasets
from evaluation.cli import comparison, summary
from evaluation.cli.device import choose_device, set_determinism, use_threads
from evaluation.datasets import Dataset
from evaluation.runs import finals
from evaluation.runs.folder import CONFIG, RECORD, STATE, RunFolder, read_record
from evaluation.runs.progress import RunProgress
from evaluation.runs.record import Record
from evaluation.runs.stages import Run
from evaluation.settings.config import RunConfig
from evaluation.training import distributed
from spaces import stopping
from spaces.arithmetic import emulate, gradient_precision
from spaces.cli.commands import BAD_INPUT, say
from spaces.cli.terminal import Terminal
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier


def start(plan: list[RunConfig], library: tuple[Multiplier, ...], out: Path, planned: list[Path]) -> int:
    """Check the whole plan, make its run folders, and run them."""
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
    return go_on(list(planned), planned, fresh=True)


def _settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The settings with all that depends on the device decided, so that a run resumed elsewhere goes on in the same way."""
    precision = gradient_precision.settled(config.protocol.gradient_precision, device)
    return replace(config, protocol=replace(config.protocol, gradient_precision=precision))


def go_on(paths: Sequence[Path], planned: list[Path], fresh: bool = False, device: str = "") -> int:
    """Run what is left to do in every folder, one after the other, and compare them. Returns the exit code.

    One that fails does not stop the others. ``fresh`` folders that fail before their first step are removed. ``device``
    is another one than their settings ask for.
    """
    planned[:] = {path.resolve(): path for path in paths}.values()  # each once
    for path in planned:
        if not (path / CONFIG).exists():
            raise InputError(f"'{path}' is not a run folder: it has no {CONFIG}")
    finished, failed = [], False
    for path in list(planned):
        try:
            finished.append(_execute(path, device))
        except InputError as error:
            if fresh and not (path / STATE).exists():
                shutil.rmtree(path)
                planned.remove(path)
            if len(paths) == 1:
                raise
            say(f"error: {path}: {error}")
            failed = True
    if len(finished) > 1:
        comparison.show(Terminal(), finished)
    return BAD_INPUT if failed else 0


def _execute(path: Path, device: str) -> Record:
    """Run what is left to do in a run folder, show and return its record."""
    console, finished = Terminal(), path / RECORD
    if finished.exists():  # to show it takes neither its data nor a folder that can be written
        record = read_record(finished)
        console.print(str(path), style="bold", highlight=False)
    else:
        place = RunFolder(path)
        run = _open(place, device)
        with RunProgress(console, str(path)) as progress:
            record = run.execute(place, progress)
    summary.show(console, record, str(path))
    return record


def take_part() -> None:
    """Train in step with the first of torchrun's processes, which does all else, until it is done."""
    place, run = "", None
    while job := distributed.receive():
        if run is None or job["folder"] != place:
            place, run = job["folder"], None  # the memory of the last one first
            run = _open(RunFolder(Path(place)), job["device"])
        finals.take_part(run, job)


def _open(place: RunFolder, device: str) -> Run:
    """The run of a folder, on the ``device`` or on that of its settings, ready to go on."""
    config = place.config()
    set_determinism(config.deterministic)
    dataset = _dataset(config.dataset, config.image_size, config.data_dir, config.train_limit)
    use_threads(config.threads, dataset.train.images.shape[2])
    emulate.use_engine(config.engine)
    chosen = choose_device(device or config.device, f"go on with --resume {shlex.quote(str(place.path))} --device cpu")
    return Run(config, dataset, chosen, place.library(config))


@functools.lru_cache(maxsize=1)
def _dataset(name: str, image_size: int, data_dir: str, train_limit: int) -> Dataset:
    """The data set, decoded once for all runs on it."""
    return datasets.load(name, image_size, data_dir, train_limit)
