"""One step of every method on a tiny problem: finite, the same twice, and without waiting for the GPU inside."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.datasets import Dataset, ImageSet
from evaluation.device_check.checks import TRAINING, Check, Outcome
from evaluation.device_check.threads import threads
from evaluation.searching.problem import SearchProblem
from evaluation.searching.seeds import build_seeded
from evaluation.settings.config import Options, RunConfig
from evaluation.settings.protocols import Protocol
from evaluation.training.data import DeviceImages
from evaluation.training.loop import Schedule, Training
from methods import METHODS, installed
from spaces.arithmetic.engines.waits import waits
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.registry import SPACES
from spaces.shape import NetworkShape

MULTIPLIERS = ("mul8s_1KV8", "mul8s_1KX2", "mul8s_1L2H")
SIDE, CLASSES, BATCH = 10, ("top", "bottom"), 16
TINY = Protocol(
    name="check", search_channels=4, search_cells=3, search_batch=BATCH, selection_epochs=2, selection_lr=0.05, finalists=1,
    final_channels=4, final_cells=3, final_epochs=1, final_lr=0.05, batch=BATCH, crop_padding=1, cutout=2,
)  # fmt: skip
# What makes a step short, for whichever settings of this name a method has.
SHORT = {
    "epochs": 1, "warmup": 0, "proposals": 1, "population": 2, "offspring": 1, "generations": 1, "samples": 1, "batch": 1,
    "partial": 1, "tuning": 0, "weight_epochs": 1, "choice_epochs": 1,
}  # fmt: skip
RELAXATIONS = ("softmax", "gumbel")
(DEFAULT,) = Options().method


def checks(device: torch.device) -> Iterator[Check]:
    """A step of every method, of the default one in both relaxations, and an epoch of final training."""
    for name in installed():
        for relaxation in RELAXATIONS if name == DEFAULT else ("",):
            row = f"{name}, {relaxation}" if relaxation else name
            yield Check(
                TRAINING, row, functools.partial(twice, row, functools.partial(_step, name, relaxation), device)
            )
    yield Check(TRAINING, "final training", functools.partial(twice, "final training", _final_training, device))


def twice(row: str, work: Callable[[torch.device, bool], Any], device: torch.device) -> Outcome:
    """Run ``work(device, strict)`` two times under deterministic algorithms and compare all that comes of it.

    Strict is the second time, when all kernels are compiled and chosen: then no step may wait for the GPU.
    """
    with deterministic(), threads(1), waits("default", device):
        first, second = (flat(work(device, strict)) for strict in (False, True))
    for name, value in first.items():
        if not _finite(value):
            return Outcome(f"training, {row}: {name} is not finite")
        if not _equal(value, second.get(name)):
            return Outcome(f"training, {row}: {name} differs between two equal runs under --deterministic")
    unheld = "; no wait for the GPU inside" if device.type == "cuda" else ""
    return Outcome(note=f"finite, twice equal{unheld}", values={"values_compared": len(first)})


@contextmanager
def deterministic() -> Iterator[None]:
    """What --deterministic asks of torch, and back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled, tuned = torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark = False, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark = filled, tuned


class Watched(DeviceImages):
    """Images whose batches are trained on in a stretch where, if ``strict``, any wait for the GPU is an error.

    From the second batch on, to the end of each epoch, which may read what it comes to. Not for validation images: who
    takes a few of them leaves an epoch unfinished, which would go on forbidding.
    """

    strict: bool

    @classmethod
    def of(cls, images: DeviceImages, strict: bool) -> "Watched":
        watched = cls.__new__(cls)  # the same images, not a copy of them
        vars(watched).update(vars(images), strict=strict)
        return watched

    def shuffled(self, *arguments: Any, **keywords: Any) -> Iterator[tuple[Tensor, Tensor]]:
        batches = super().shuffled(*arguments, **keywords)
        yield next(batches)
        with waits("error" if self.strict else "default", self.device):
            yield from batches


def problem(method: str, config: Any, device: torch.device, strict: bool) -> SearchProblem:
    """A problem of 128 images that is searched in seconds."""
    space = METHODS[method].native_space
    settings = RunConfig(
        method=method, method_config=dataclasses.asdict(config), seed=0, protocol=TINY, dataset="bright halves",
        multipliers=MULTIPLIERS, scope="all", multiplier_choice="edge", cost="horowitz45", budget="",
        baselines=("none",), device=device.type, threads=0, image_size=0, command="", space=space,
        space_config=dataclasses.asdict(SPACES[space].small),
    )  # fmt: skip
    made = SearchProblem(settings, dataset(), device, catalogue.library(MULTIPLIERS))
    made.data.training = Watched.of(made.data.training, strict)
    return made


def dataset() -> Dataset:
    """Images that are bright in one half or the other."""
    rng, labels = np.random.default_rng(0), np.arange(8 * BATCH) % len(CLASSES)
    images = rng.integers(0, 100, (len(labels), 3, SIDE, SIDE))
    half = SIDE // len(CLASSES)
    for image, label in zip(images, labels):
        image[:, half * label : half * (label + 1)] += 120
    train = ImageSet(images.astype(np.uint8), labels.astype(np.int64))
    return Dataset("bright halves", "made by the check", CLASSES, train, lambda: train)


def short_config(name: str, relaxation: str) -> Any:
    """A method's quick settings, shortened."""
    cls = METHODS[name]
    config = cls.presets.get("quick", cls.Config())
    fields = {field.name for field in dataclasses.fields(config)}
    wanted: dict[str, Any] = {key: value for key, value in SHORT.items() if key in fields}
    wanted |= {"relaxation": relaxation} if relaxation else {}
    try:
        return dataclasses.replace(config, **wanted)
    except InputError:  # settings of the same name that mean something else
        return config


def _step(name: str, relaxation: str, device: torch.device, strict: bool) -> dict[str, Any]:
    config = short_config(name, relaxation)
    posed = problem(name, config, device, strict)
    method = METHODS[name](posed, config)
    report = method.step()
    failed = [e.failure for e in posed.searched.evaluations if e.failure]
    if failed:
        raise RuntimeError(f"a candidate failed: {failed[0]}")
    return {"report": dataclasses.asdict(report), "state": method.state_dict()}


def _final_training(device: torch.device, strict: bool) -> dict[str, Any]:
    """With cutout, drop-path and the auxiliary head."""
    posed = problem("random", METHODS["random"].Config(), device, strict)
    shape = NetworkShape(TINY.final_channels, TINY.final_cells, len(CLASSES), (3, SIDE, SIDE), auxiliary=True)
    architecture = posed.space.sample(np.random.default_rng(0))
    network = build_seeded(lambda: posed.space.build(architecture, shape), 0)
    generator = torch.Generator(device).manual_seed(0)
    training = Training(network, posed.data.training, Schedule.final(TINY), generator)
    return {"loss": training.run_epoch(), "network": network.state_dict()}


# -- comparing what comes of a step ------------------------------------------------------------------------------------


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries and sequences as one dictionary of leaves."""
    parts: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    else:
        return {name: value.detach().cpu() if isinstance(value, Tensor) else value}
    return {leaf: held for key, part in parts for leaf, held in flat(part, f"{name}.{key}".lstrip(".")).items()}


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    return not isinstance(value, float) or math.isfinite(value)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.shape == second.shape and bool(torch.equal(first, second))
    return bool(np.array_equal(first, second)) if isinstance(first, np.ndarray) else first == second
