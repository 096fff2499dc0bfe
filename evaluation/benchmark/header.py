"""What tables of trained networks have in common: what they say of themselves, and what can be asked of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.benchmark.plan import TablePlan
from evaluation.settings.protocols import Protocol
from spaces.errors import InputError
from spaces.multipliers.multiplier import error_metrics
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space

SCHEMA = 1
FP32 = "fp32"
TRAINING = (  # settings of a protocol on which the training of a candidate depends
    "validation_share", "split_seed", "search_channels", "search_cells", "selection_epochs", "selection_lr", "batch",
    "momentum", "weight_decay", "clip", "crop_padding", "flip", "warmup", "gradient_precision",
)  # fmt: skip


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


class Kept(NamedTuple):
    """One of the trainings that a table was made of."""

    architecture: Architecture
    seed: int
    validation: np.ndarray  # (epochs,): wrong answers
    test: np.ndarray


class Table(ABC):
    """What can be asked of a table, whether its networks were trained or are predicted. Networks have numbers."""

    header: Header
    seeds: int  # trainings of each network

    @abstractmethod
    def __len__(self) -> int:
        """Networks."""

    @property
    def epochs(self) -> int:
        """Of a whole training."""
        return self.header.protocol.selection_epochs

    @property
    def shape(self) -> NetworkShape:
        """In which its networks were built: that of candidates."""
        return table_shape(self.header.protocol, self.header.classes, self.header.input_shape)

    @property
    @abstractmethod
    def noise(self) -> float:
        """By which one training's test error differs from another's of the same network: pooled standard deviation."""

    @abstractmethod
    def at(self, architecture: Architecture) -> int:
        """Its number. Raises InputError where the table does not have it."""

    @abstractmethod
    def architecture(self, number: int) -> Architecture:
        """The network of a number."""

    @abstractmethod
    def training(self, architecture: Architecture, number: int) -> tuple[np.ndarray, np.ndarray]:
        """One of its trainings: validation error, and seconds until then, after every epoch (epochs,)."""

    @abstractmethod
    def query(self, architecture: Architecture, epochs: int | None = None) -> "Entry":
        """The mean over all trainings after so many epochs, or after all. Raises InputError for what it does not have."""

    @abstractmethod
    def reference_test_error(self, architecture: Architecture, arithmetic: str) -> float:
        """Of the same topology in fp32, or on exact multipliers."""

    @abstractmethod
    def errors(self) -> np.ndarray:
        """(networks,): the mean test error of each after all epochs."""

    @abstractmethod
    def costs(self, cost: str) -> np.ndarray:
        """(networks,): what each costs under this cost model, in its unit."""

    @abstractmethod
    def kept(self, rng: np.random.Generator) -> Kept:
        """A random one of the trainings that it was made of."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the table. Raises OSError."""

    @property
    def reliability(self) -> str:
        """How far what it predicts is to be trusted; "" where all was trained."""
        return ""

    @property
    def doubt(self) -> str:
        """Why what it predicts should not be used, if so."""
        return ""

    def make_space(self) -> Space:
        return self.header.plan.make_space()

    def epoch(self, epochs: int | None) -> int:
        """Where the results after so many epochs are. Raises InputError where there are none."""
        if epochs is None:
            return self.epochs - 1
        if not 1 <= epochs <= self.epochs:
            raise InputError(f"the table knows 1 to {self.epochs} epochs, not {epochs}")
        return epochs - 1


def exact(architecture: Architecture, plan: TablePlan) -> Architecture:
    """The same topology on the plan's most accurate multiplier."""
    best = min(plan.library, key=lambda each: error_metrics(each).mre_pct)
    return architecture.with_multiplier(best.name, architecture.scope)


def table_shape(protocol: Protocol, outputs: int, input_shape: tuple[int, ...]) -> NetworkShape:
    """In which the networks of a table are built: that of candidates."""
    return NetworkShape(protocol.search_channels, protocol.search_cells, outputs, input_shape)


def embedded() -> dict[str, Any]:
    """The tables inside the package, by name."""
    folder = resources.files(__package__).joinpath("tables")
    return {each.name.removesuffix(".npz"): each for each in folder.iterdir() if each.name.endswith(".npz")}
