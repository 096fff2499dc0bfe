"""A table of trained networks: learning curves of every network of a small space, and what they were made with.

    table = BenchTable.load("fashion14")
    table.query(architecture).test_error

A table is one .npz file of plain numbers, read without unpickling; its settings are JSON in one of the arrays.
"""

import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.benchmark.plan import TablePlan
from evaluation.settings.protocols import Protocol
from spaces.errors import InputError, suggest
from spaces.files.arrays import read_arrays
from spaces.files.json_files import parse_json
from spaces.files.reading import parsing
from spaces.files.saving import save_bytes
from spaces.files.schema import typed
from spaces.multipliers.multiplier import error_metrics
from spaces.registry import architecture_from_json
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space

SCHEMA = 1
FP32 = "fp32"
TRAINING = (  # settings of a protocol on which the training of a candidate depends
    "validation_share", "split_seed", "search_channels", "search_cells", "selection_epochs", "selection_lr", "batch",
    "momentum", "weight_decay", "clip", "crop_padding", "flip", "warmup", "gradient_precision",
)  # fmt: skip
_ARRAYS = ("validation", "test", "seconds", "fp32_validation", "fp32_test", "fp32_seconds", "fp32_of")


@dataclass(frozen=True)
class Header:
    """What a table says of itself."""

    plan: TablePlan
    protocol: Protocol  # its values at that time
    plan_key: str
    tables: dict[str, str]  # key of every multiplier's truth table
    dataset_origin: str
    train_fingerprint: str
    test_fingerprint: str
    validation_images: int
    test_images: int
    train_images: int  # that a network sees in an epoch
    input_shape: tuple[int, ...]
    classes: int
    device: str
    versions: dict[str, str]
    command: str
    failures: dict[str, str]  # "key/arithmetic/seed" → reason
    schema: int = SCHEMA

    def trains_as(self, protocol: Protocol) -> bool:
        """Whether a protocol trains candidates in the same way, however often it judges and whatever it does with finalists."""
        return all(getattr(protocol, name) == getattr(self.protocol, name) for name in TRAINING)


@dataclass(frozen=True)
class Entry:
    """What a table knows of one network after so many epochs: means over its trainings, errors as shares, 0 to 1."""

    validation_error: float
    test_error: float
    seconds: float  # of one training


class BenchTable:
    """Arrays (networks, seeds, epochs): wrong answers, seconds; and the same of the fp32 network of every topology."""

    def __init__(self, header: Header, architectures: Sequence[Architecture], arrays: Mapping[str, np.ndarray]) -> None:
        self.header, self.architectures, self.arrays = header, list(architectures), dict(arrays)
        self.index = {architecture.key: at for at, architecture in enumerate(self.architectures)}
        self.validation = arrays["validation"] / header.validation_images  # errors
        self.test = arrays["test"] / header.test_images
        self.seconds = arrays["seconds"].astype(float)
        self.mean_test = self.test.mean(axis=1)
        self.mean_validation = self.validation.mean(axis=1)
        self.mean_seconds = self.seconds.mean(axis=1)

    @property
    def seeds(self) -> int:
        """Trainings of each network."""
        return self.validation.shape[1]

    @property
    def epochs(self) -> int:
        """Of a whole training."""
        return self.validation.shape[2]

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

    def query(self, architecture: Architecture, epochs: int | None = None) -> Entry:
        """The mean over all trainings after so many epochs, or after all. Raises InputError for what it does not have."""
        at, epoch = self.at(architecture), self.epoch(epochs)
        return Entry(
            float(self.mean_validation[at, epoch]),
            float(self.mean_test[at, epoch]),
            float(self.mean_seconds[at, epoch]),
        )

    def epoch(self, epochs: int | None) -> int:
        """Where the results after so many epochs are."""
        if epochs is None:
            return self.epochs - 1
        if not 1 <= epochs <= self.epochs:
            raise InputError(f"the table knows 1 to {self.epochs} epochs, not {epochs}")
        return epochs - 1

    def reference_test_error(self, architecture: Architecture, arithmetic: str) -> float:
        """Of the same topology in fp32, or on exact multipliers: the mean over its trainings."""
        at = self.at(architecture)
        if arithmetic == FP32:
            errors = self.arrays["fp32_test"][self.arrays["fp32_of"][at], :, -1] / self.header.test_images
            return float(errors.mean())
        return float(self.mean_test[self.at(exact(architecture, self.header.plan)), -1])

    @property
    def shape(self) -> NetworkShape:
        """In which its networks were built: that of candidates."""
        return table_shape(self.header.protocol, self.header.classes, self.header.input_shape)

    def make_space(self) -> Space:
        return self.header.plan.make_space()

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the table. Raises OSError."""
        text = json.dumps({**asdict(self.header), "architectures": [a.to_json() for a in self.architectures]})
        written = io.BytesIO()
        arrays: dict[str, Any] = {name: self.arrays[name] for name in _ARRAYS}
        np.savez_compressed(written, header=np.frombuffer(text.encode(), np.uint8), **arrays)
        save_bytes(path, written.getbuffer())

    @classmethod
    def load(cls, name: str) -> "BenchTable":
        """The table of this name inside the package, or in this file. Raises InputError for anything else."""
        return _loaded(name)

    @classmethod
    def read(cls, path: Path) -> "BenchTable":
        """Raises InputError for anything but a whole table of this schema."""
        arrays = read_arrays(path)
        with parsing(path, "is no table of trained networks"):
            data = parse_json(arrays.pop("header").tobytes(), path)
            architectures = [architecture_from_json(each) for each in data.pop("architectures")]
            if data.get("schema") != SCHEMA:
                raise InputError(f"its schema is {data.get('schema')}, not {SCHEMA}")
            header = typed(data, Header)
            _require_shapes(arrays, len(architectures), header)
        return cls(header, architectures, arrays)


def exact(architecture: Architecture, plan: TablePlan) -> Architecture:
    """The same topology on the plan's most accurate multiplier."""
    best = min(plan.library, key=lambda each: error_metrics(each).mre_pct)
    return architecture.with_multiplier(best.name, architecture.scope)


def table_shape(protocol: Protocol, outputs: int, input_shape: tuple[int, ...]) -> NetworkShape:
    """In which the networks of a table are built: that of candidates."""
    return NetworkShape(protocol.search_channels, protocol.search_cells, outputs, input_shape)


def _require_shapes(arrays: Mapping[str, np.ndarray], networks: int, header: Header) -> None:
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


def embedded() -> dict[str, Any]:
    """The tables inside the package, by name."""
    folder = resources.files(__package__).joinpath("tables")
    return {each.name.removesuffix(".npz"): each for each in folder.iterdir() if each.name.endswith(".npz")}


@functools.lru_cache(maxsize=8)
def _loaded(name: str) -> BenchTable:
    inside = embedded()
    if name in inside:
        with resources.as_file(inside[name]) as path:
            return BenchTable.read(path)
    if not Path(name).exists():
        raise suggest(name, inside, "table (neither built in nor a file)")
    return BenchTable.read(Path(name))
