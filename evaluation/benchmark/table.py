"""A table of trained networks: learning curves of every network of a small space, and what they were made with.

    table = BenchTable.load("fashion14")
    table.query(architecture).test_error

A table is one .npz file of plain numbers, read without unpickling; its settings are JSON in one of the arrays.
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import resources
from pathlib import Path

import numpy as np

from evaluation.benchmark.header import FP32, Entry, Header, Kept, Table, embedded, exact
from evaluation.benchmark.surrogate import SurrogateTable
from evaluation.benchmark.table_files import Contents, read_contents, write_contents
from spaces.costs import COSTS
from spaces.errors import InputError, suggest
from spaces.space import Architecture

_ARRAYS = ("validation", "test", "seconds", "fp32_validation", "fp32_test", "fp32_seconds", "fp32_of")


class BenchTable(Table):
    """Arrays (networks, seeds, epochs): wrong answers, seconds; and the same of the fp32 network of every topology."""

    def __init__(self, header: Header, architectures: Sequence[Architecture], arrays: Mapping[str, np.ndarray]) -> None:
        self.header, self.architectures, self.arrays = header, list(architectures), dict(arrays)
        self.index = {architecture.key: at for at, architecture in enumerate(self.architectures)}
        self.seeds = header.plan.seeds
        self.validation = arrays["validation"] / header.validation_images  # errors
        self.test = arrays["test"] / header.test_images
        self.seconds = arrays["seconds"].astype(float)
        self.mean_test = self.test.mean(axis=1)
        self.mean_validation = self.validation.mean(axis=1)
        self.mean_seconds = self.seconds.mean(axis=1)

    @property
    def noise(self) -> float:
        """By which one training's test error differs from another's of the same network: pooled standard deviation.

        Not known (NaN) where each was trained once.
        """
        return float(np.sqrt(self.test[:, :, -1].var(axis=1, ddof=1).mean())) if self.seeds > 1 else float("nan")

    def __len__(self) -> int:
        return len(self.architectures)

    def at(self, architecture: Architecture) -> int:
        """Its number. Raises InputError where the table does not have it."""
        try:
            return self.index[architecture.key]
        except KeyError:
            raise InputError(
                f"the table has no network {architecture.key[:8]}; it has those of space '{self.header.plan.space}' with "
                f"{self.header.plan.space_config or 'its default settings'} on {', '.join(self.header.plan.multipliers)}"
            ) from None

    def architecture(self, number: int) -> Architecture:
        return self.architectures[number]

    def training(self, architecture: Architecture, number: int) -> tuple[np.ndarray, np.ndarray]:
        at = self.at(architecture)
        return self.validation[at, number], self.seconds[at, number]

    def query(self, architecture: Architecture, epochs: int | None = None) -> Entry:
        """The mean over all trainings after so many epochs, or after all. Raises InputError for what it does not have."""
        at, epoch = self.at(architecture), self.epoch(epochs)
        return Entry(
            float(self.mean_validation[at, epoch]),
            float(self.mean_test[at, epoch]),
            float(self.mean_seconds[at, epoch]),
        )

    def reference_test_error(self, architecture: Architecture, arithmetic: str) -> float:
        """Of the same topology in fp32, or on exact multipliers: the mean over its trainings."""
        at = self.at(architecture)
        if arithmetic == FP32:
            errors = self.arrays["fp32_test"][self.arrays["fp32_of"][at], :, -1] / self.header.test_images
            return float(errors.mean())
        return float(self.mean_test[self.at(exact(architecture, self.header.plan)), -1])

    def errors(self) -> np.ndarray:
        return self.mean_test[:, -1]

    def costs(self, cost: str) -> np.ndarray:
        space, model, shape = self.make_space(), COSTS[cost], self.shape
        return np.array([model.network(space.costs(each, shape), "approximate").total for each in self.architectures])

    def kept(self, rng: np.random.Generator) -> Kept:
        at, number = int(rng.integers(len(self))), int(rng.integers(self.seeds))
        curves = (self.arrays[name][at, number] for name in ("validation", "test"))
        return Kept(self.architectures[at], number, *curves)

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the table. Raises OSError."""
        write_contents(path, Contents(self.header, self.architectures, {name: self.arrays[name] for name in _ARRAYS}))

    @classmethod
    def load(cls, name: str, doubtful: bool = False) -> Table:
        """The table of this name inside the package, or in this file, which may be that of a surrogate.

        Raises InputError for anything else, and for a surrogate that is not good enough, unless ``doubtful`` ones will do.
        """
        table = _loaded(name)
        if table.doubt and not doubtful:
            raise InputError(f"{name}: {table.doubt}")
        return table

    @classmethod
    def read(cls, path: Path) -> "BenchTable":
        """Raises InputError for anything but a whole table of this schema."""
        contents = read_contents(path, _require_shapes)
        return cls(contents.header, contents.architectures, contents.arrays)


def _require_shapes(contents: Contents) -> None:
    header, networks, arrays = contents.header, len(contents.architectures), contents.arrays
    if header.plan.surrogate:
        raise InputError("it is a surrogate")
    epochs = header.protocol.selection_epochs
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(_ARRAYS[:3], (networks, header.plan.seeds, epochs))
    topologies = len(arrays["fp32_test"])
    wanted |= dict.fromkeys(_ARRAYS[3:6], (topologies, header.plan.seeds, epochs)) | {"fp32_of": (networks,)}
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise InputError(f"its array {name} is {arrays[name].shape}, not {shape}")
    if networks and not 0 <= arrays["fp32_of"].min() <= arrays["fp32_of"].max() < topologies:
        raise InputError("it names a topology that it does not have")
    if not all(np.isfinite(array).all() and (array >= 0).all() for array in arrays.values()):
        raise InputError("it holds numbers that cannot be")


@functools.lru_cache(maxsize=8)
def _loaded(name: str) -> Table:
    inside = embedded()
    if name.endswith(".jsonl"):
        raise InputError(f"{name} holds searches or trainings and is no table (.npz); table ranks shows searches")
    if name not in inside and not Path(name).exists():
        raise suggest(name, inside, "table (neither built in nor a file)")
    with resources.as_file(inside[name]) if name in inside else nullcontext(Path(name)) as path:
        surrogate = read_contents(path, lambda _: None).header.plan.surrogate
        return SurrogateTable.read(path) if surrogate else BenchTable.read(path)
