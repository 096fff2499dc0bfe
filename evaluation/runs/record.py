"""The record of a finished run, ``record.json``: everything that a table needs, typed, and written and read here alone.

Where a field has its default, its value was not recorded, as in older records. Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from evaluation.runs.sound_records import require_bounded, require_whole
from evaluation.settings.config import SCHEMA
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.files.schema import typed

STAGES = ("search", "selection", "final", "test")
MEASURING = "snapshots"  # time spent on watching a search, which is none of its own
COMPLETE = "complete"
HEADLINES = (
    "horowitz45",
    "system45",
)  # cost models whose savings are told side by side: operations, and the whole system


@dataclass(frozen=True)
class ProtocolUsed:
    """How candidates were trained and judged; ``hash`` is that of ``settings``."""

    name: str
    hash: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """What the run computed on; ``count`` is the most devices that were used at once."""

    type: str
    name: str
    count: int = 1
    threads: int | None = None  # of a CPU
    driver: str | None = None  # of a GPU
    power_limit_watts: float | None = None


@dataclass(frozen=True)
class LedgerRow:
    """What one stage took."""

    device_seconds: float
    wall_seconds: float
    warm_up_seconds: float | None = None
    devices: int | None = None
    joules: float | None = None
    peak_memory_bytes: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    work: float | None = None  # trained, in MACs: see ``spaces.work``


@dataclass(frozen=True)
class Account:
    """What a method caused to be spent, its search and the judging of its proposals; see ``evaluation.runs.accounts``."""

    unit: Literal["s", "MAC", "candidates"]  # device-seconds, trained work, or networks trained
    spent: float
    granted: float | None = None  # None where the budget is of another kind, or where there is none


@dataclass(frozen=True)
class Moment:
    """The judged front at a moment of the search: points (validation error 0..1, cost in the unit of the run's cost)."""

    device_seconds: float
    hypervolume: float
    front: tuple[tuple[float, float], ...]
    mark: int | None = None
    evaluations: int | None = None
    judging_seconds: float | None = None  # of the proposals of this moment, which are on the method's account, too
    work: float | None = None  # trained by the search so far, in MACs
    judging_work: float | None = None

    @property
    def spent_seconds(self) -> float:
        """Device-seconds of the search so far, and of judging what it proposed."""
        return self.device_seconds + (self.judging_seconds or 0.0)


@dataclass(frozen=True)
class Failure:
    """What went wrong inside a run that went on."""

    stage: str
    reason: str
    key: str | None = None  # of the architecture
    device_seconds: float | None = None  # that it took


@dataclass(frozen=True)
class Accuracy:
    """Shares of images, 0..1. ``test`` is by the name of the arithmetic; None where it was not measured."""

    validation: float | None
    test: dict[str, float | None]


@dataclass(frozen=True)
class CostFigures:
    """What one inference costs by one cost model, by the name of the arithmetic.

    ``split`` says by part where the value goes; ``apart`` holds parts that the model tells, but does not count.
    """

    unit: str
    values: dict[str, float]
    split: dict[str, dict[str, float]] = field(default_factory=dict)
    apart: dict[str, dict[str, float]] = field(default_factory=dict)

    def saving(self, base: str, arithmetic: str = "approximate") -> float | None:
        """The share of the cost in arithmetic ``base`` that another one saves; None where one of them is not known."""
        before, after = self.values.get(base), self.values.get(arithmetic)
        return None if not before or after is None else 1 - after / before


@dataclass(frozen=True)
class Layer:
    """One layer of a finalist; ``costs`` are by arithmetic, in the unit of the cost that guided the search."""

    name: str
    multiplier: str | None  # None: products in fp32, or none at all
    costs: dict[str, float]
    kind: str = ""
    macs: int = 0


@dataclass(frozen=True)
class Judged:
    """A proposal as the harness judged it: the errors (validation, 0..1) of all its trainings, and what ``signals`` said of it
    beforehand, lower for better. ``searched_epochs`` is how long its weights had been trained when the search evaluated it,
    those of ancestors included; None where it did not."""

    key: str
    cost: float
    errors: tuple[float, ...]
    signals: dict[str, float] = field(default_factory=dict)
    searched_epochs: int | None = None


@dataclass(frozen=True)
class Finalist:
    """A network that was trained in full. ``costs`` are by the name of the cost model."""

    architecture: dict[str, Any]
    key: str
    params: int
    macs: int
    accuracy: Accuracy
    costs: dict[str, CostFigures]
    summary: str = ""
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished run. ``cost`` names the cost model that guided its search, ``reference_cost`` is that of its reference
    network in exact int8; ``tables`` are the keys of the multipliers' truth tables by name."""

    method: str
    method_config: dict[str, Any] | None = None
    space: str
    space_config: dict[str, Any] | None = None
    dataset: str
    dataset_origin: str | None = None
    dataset_fingerprint: str
    test_fingerprint: str = ""
    train_limit: int = 0  # 0: all images
    task: str = "image_classification"
    evaluator: str = "training"  # of the search's candidates
    seed: int
    split_seed: int | None = None  # of the split into training and validation part; before it was kept: the protocol's
    protocol: ProtocolUsed
    scope: str
    multiplier_choice: str | None = None
    cost: str
    multipliers: tuple[str, ...] | None = None
    tables: dict[str, str] | None = None
    engine: str | None = None
    deterministic: bool | None = None
    budget: str = ""  # "": none
    snapshots: int = 0
    versions: dict[str, str | None] | None = None
    command: str
    device: Device
    ledger: dict[str, LedgerRow]  # by stage
    account: Account | None = None
    search_training_seconds: float | None = None
    steps: int | None = None
    reference_cost: float
    hypervolume: float | None  # at the end of the search; None without one
    anytime: tuple[Moment, ...] = ()
    judged: tuple[Judged, ...] = ()
    rank_correlations: dict[str, float | None] | None = None  # of each signal with the mean judged error: Kendall's τ-b
    evaluations: int | None = None
    cache_hits: int | None = None
    finalists: tuple[Finalist, ...]
    distances: tuple[tuple[float, ...], ...] = ()  # from each finalist to each: see ``spaces.distance``
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of ``record.json``."""
        return {"schema": SCHEMA, "status": COMPLETE, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Record":
        """The inverse of ``to_json``. Raises InputError that says what is missing, of another type or impossible."""
        require_bounded(data)
        record = typed({name: value for name, value in data.items() if name not in ("schema", "status")}, cls)
        require_whole(record, STAGES)
        return record

    @property
    def unit(self) -> str:
        """Of the cost that guided the search, and of the fronts."""
        return self.finalists[0].costs[self.cost].unit

    @property
    def arithmetics(self) -> tuple[str, ...]:
        """Those that the finalists were tested in or have a cost in; the suite's own first."""
        return in_order(
            name
            for finalist in self.finalists
            for names in (finalist.accuracy.test, finalist.costs[self.cost].values)
            for name in names
        )

    @property
    def parts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The parts that the cost is split into, and those that stand apart and are in no total."""
        costs = [finalist.costs[self.cost] for finalist in self.finalists]
        split = (part for cost in costs for parts in cost.split.values() for part in parts)
        apart = (part for cost in costs for parts in cost.apart.values() for part in parts)
        return tuple(dict.fromkeys(split)), tuple(dict.fromkeys(apart))

    @property
    def limit_note(self) -> str:
        """What goes behind the data set's name where training images were left out."""
        return f" ({self.train_limit:,} training images)" if self.train_limit else ""


def in_order(arithmetics: Iterable[str]) -> tuple[str, ...]:
    """Names of arithmetics, each once: those of this suite first, the others as they come."""
    found = dict.fromkeys(arithmetics)
    return (*(name for name in ARITHMETICS if name in found), *(name for name in found if name not in ARITHMETICS))
