"""The settings of a run: those of the command line. Nothing here imports torch."""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evaluation.settings.baselines import require_baselines
from evaluation.settings.protocols import LARGEST, Protocol
from spaces.cli.flags import Unset
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.registry import SPACES

SCHEMA = 3  # of settings, checkpoints and records

# Device time that each method gets when several are compared without --budget. Ours for those named; ApproxDARTS
# needs just under ten GPU-hours for a search under the published setting.
COMPARISON_BUDGETS = {"quick": "90s", "fast": "10m", "gpu": "10m"}
COMPARISON_BUDGET = "10h"
COMPARISON_SNAPSHOTS = 3


DEVICES = ("auto", "cpu", "cuda")


class Spent(NamedTuple):
    """What a search has used up so far."""

    seconds: float  # of devices
    steps: int
    evaluations: int  # candidates
    work: float  # trained, in MACs


@dataclass(frozen=True)
class Budget:
    """When the search stage stops: after so many device-seconds, steps, trained candidates or MACs of trained work."""

    seconds: float | None = None
    steps: int | None = None
    evaluations: int | None = None
    work: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """``60s``, ``5m``, ``2h``, ``10steps``, ``200evals`` or ``2e13macs``; the empty text sets no limit.

        Raises InputError otherwise.
        """
        if not text:
            return cls()
        match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*(s|m|h|steps?|evals?|macs)", text.strip().lower())
        counted = match and match[2] not in (*_SECONDS, "macs")
        if not match or float(match[1]) <= 0 or (counted and not match[1].isdigit()):
            raise InputError(f"budget '{text}' is not understood; write 60s, 5m, 2h, 10steps, 200evals or 2e13macs")
        if match[2] == "macs":
            return cls(work=float(match[1]))
        if counted:
            return cls(**{"steps" if match[2].startswith("step") else "evaluations": int(match[1])})
        return cls(seconds=float(match[1]) * _SECONDS[match[2]])

    def share(self, spent: Spent, reserved_seconds: float = 0.0, reserved_work: float = 0.0) -> float:
        """How much of it is used up, from 0, where a part is reserved; at 1 all of it. 0 where nothing is limited."""
        limits = (self.seconds, self.steps, self.evaluations, self.work)
        reserved = (reserved_seconds, 0, 0, reserved_work)
        shares = (
            done / (limit - kept) if limit > kept else 1.0
            for done, limit, kept in zip(spent, limits, reserved)
            if limit is not None
        )
        return max(shares, default=0.0)


_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class RunOptions:
    """Flags of every program that makes runs."""

    dataset: str = "digits"
    """digits, digits-fold1 to 5 or fashion14 (built in), cifar10, cifar100, fashion-mnist or svhn (downloaded once), or the
    path of image files: a folder or archive (.tar, .tar.gz, .tar.xz, .zip) with train/<class>/* and test/<class>/*."""
    data_dir: Unset[str] = ""
    """Folder that holds the official files of a data set, packed or extracted; without it they are downloaded."""
    train_limit: int = 0
    """Keep so many training images, each class with its share, for trials on small machines; 0 keeps all."""
    task: str = "image_classification"
    """What the networks are trained to do: loss, measure of error and augmentation."""
    protocol: str = "quick"
    """Named protocol: how candidates are trained and judged."""
    cost: str = "horowitz45"
    """Cost model that guides a search and that the final tables show; records hold all that can be computed."""
    seed: int = 0
    """Random seed; of several runs the first."""
    baselines: tuple[str, ...] = ("all",)
    """Arithmetics in which every finalist is trained, too, such as fp32 int8: all, none, or first, which is all for the first
    finalist alone. Without them a saving has no accuracy drop beside it."""
    device: str = "auto"
    """auto (CUDA if there is one), cpu or cuda."""
    engine: Literal["auto", "int8", "float32", "gather", "triton", "triton-gather", "reference"] = "auto"
    """How products are computed: the fastest exact way for each layer, or one for all. Results do not depend on it, but for
    rounding in supernets that mix multipliers: there, float32, gather and triton have their effect, others mean auto."""
    deterministic: bool = False
    """Bit-identical results on the same device, times aside, at the price of speed on CUDA; a budget of device time rules it
    out."""
    threads: int = 0
    """CPU threads; 0 takes one for images below 16×16 pixels, whose operations are too small to share, else all."""
    image_size: int = 0
    """Resize image files to this many pixels a side; 0 keeps them, and then all must be of one size."""
    executor: str = "serial"
    """Where candidates and finalists are trained: serial (one after the other, here), processes (side by side on this
    machine) or ray (on a Ray cluster). Results do not depend on it."""
    workers: int = 0
    """Workers of an executor; 0 takes one per core or GPU of this machine, or as many as the Ray cluster has room for."""
    ray_address: Unset[str] = ""
    """Ray cluster to work on, as host:port, ray://host:port or auto; without it, one is started here, and stopped."""
    ray_num_cpus: float = 1.0
    """CPU cores that Ray sets aside for each worker, such as 2 or 0.5."""
    ray_num_gpus: float = 0.0
    """GPUs that Ray sets aside for each worker: 0.5 lets two share one; on CUDA 0 means 1."""
    out: Path = Path("runs")
    """Where run folders go."""
    config: Unset[str] = ""
    """TOML file of settings: its keys are these flags without dashes, with a table for a protocol, a method or a space.
    Flags that come after it take precedence."""
    print_config: bool = False
    """Print all settings as such a file, and run nothing."""
    resume: Unset[tuple[Path, ...]] = ()
    """Run folders to go on with; their own settings apply; of other flags only those may be given that say where:
    --device, --executor, --workers and --ray-…."""


@dataclass(frozen=True)
class Options(RunOptions):
    """Flags of a search, whatever the method."""

    method: tuple[str, ...] = ("approxdarts",)
    """Search methods to run, one after the other."""
    preset: Unset[str] = ""
    """Settings of the methods by name: published, or a protocol's (quick, fast, gpu, bench); by default those of the run's."""
    multipliers: Unset[tuple[str, ...]] = ()
    """Circuits to search, by name, table file or folder of tables; one fixes it, none means all built-in signed ones."""
    space: str = "auto"
    """Search space by name; auto takes cells where several methods are compared, else the method's native one."""
    scope: Literal["all", "separable"] = "all"
    """What circuits govern: all convolutions and the classifier, or those of sep_conv and dil_conv (as published)."""
    multiplier_choice: Literal["edge", "cell", "network"] = "edge"
    """How finely circuits are chosen; an edge of a cell is a node of a grid."""
    seeds: int = 1
    """Number of runs per method, with consecutive seeds."""
    budget: Unset[str] = ""
    """Search until at most this much is spent: device time (60s, 5m, 2h), trained work (2e13macs: MACs × images × epochs × 3,
    which no other load on the machine can change), steps (10steps) or trained candidates (200evals). Of time and work, what
    it takes to judge the proposals is kept back. A method that is done by its own settings ends earlier. Where several
    methods are compared without it, all get the protocol's; alone, a method stops by its own settings."""
    evaluator: str = "training"
    """How candidates are evaluated; other packages can add a way, such as a table of results."""
    table: str = "fashion14"
    """Table that --evaluator table takes space, data, protocol and multipliers from, where other flags do not say:
    fashion14 (complete) or fashion14_large (most of its networks are predicted)."""
    snapshots: int = -1
    """Moments in the search at which proposals are judged like final ones, for the curve over time (booked apart from the
    search); -1 takes 3 where several methods are compared and none otherwise."""


class Asked(NamedTuple):
    """What the command line of a search asks for."""

    options: Options
    protocol: Protocol
    methods: dict[str, Any]  # name → its Config
    space: str
    space_config: Any  # the space's Config


@dataclass(frozen=True)
class Place:
    """Where a run's jobs are worked on: settings on which no result depends. See ``RunOptions``."""

    executor: str = "serial"
    workers: int = 0
    ray_address: str = ""
    ray_num_cpus: float = 1.0
    ray_num_gpus: float = 0.0


PLACE = tuple(setting.name for setting in fields(Place))

RANGES = {
    "seeds": (1, 10_000), "seed": (0, 2**63), "image_size": (0, LARGEST), "threads": (0, 1024),
    "snapshots": (-1, 1000), "train_limit": (0, 2**31), "workers": (0, 100_000),
    "ray_num_cpus": (0, 10_000), "ray_num_gpus": (0, 10_000),
}  # fmt: skip


def require_ranges(settings: object, prefix: str = "--") -> None:
    """Raises InputError for a number among the settings or options that is out of its range."""
    for name, (lowest, highest) in RANGES.items():
        if hasattr(settings, name) and not lowest <= getattr(settings, name) <= highest:
            shown = f"--{name.replace('_', '-')}" if prefix else name
            raise InputError(f"{shown} must be between {lowest} and {highest}")


def require_schema(schema: int, path: Path) -> None:
    """Raises InputError for a file in another form than this program writes."""
    if schema > SCHEMA:
        raise InputError(f"{path}: schema {schema} is newer than this program knows ({SCHEMA}); update it")
    if schema < SCHEMA:
        raise InputError(f"{path}: schema {schema} is older than this program's ({SCHEMA}); start a new run")


@dataclass(frozen=True)
class RunConfig:
    """One run, completely described: the content of ``config.json``."""

    method: str
    method_config: dict
    seed: int
    protocol: Protocol
    dataset: str
    multipliers: tuple[str, ...]
    space: str
    space_config: dict
    scope: str
    multiplier_choice: str
    cost: str
    budget: str
    baselines: tuple[str, ...]
    device: str
    threads: int
    image_size: int
    command: str
    engine: str = "auto"
    tables: dict[str, str] = field(default_factory=dict)  # key of every circuit's truth table
    snapshots: int = 0
    data_dir: str = ""
    train_limit: int = 0
    task: str = "image_classification"
    evaluator: str = "training"
    executor: str = "serial"
    workers: int = 0
    ray_address: str = ""
    ray_num_cpus: float = 1.0
    ray_num_gpus: float = 0.0
    architecture: dict | None = None  # to be trained without a search
    deterministic: bool = False
    schema: int = field(default=SCHEMA)

    def __post_init__(self) -> None:
        # In the form that a file gives back, so that a resumed run describes itself in the same words.
        for name in ("method_config", "space_config"):
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))
        require_baselines(self.baselines)
        if self.deterministic and Budget.parse(self.budget).seconds is not None:
            raise InputError(
                "--deterministic needs a --budget in steps, evals or macs: device time is never the same twice"
            )

    @property
    def place(self) -> Place:
        return Place(**{name: getattr(self, name) for name in PLACE})

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: object, path: Path) -> "RunConfig":
        """The inverse of ``to_json``; raises InputError naming ``path`` for anything else."""
        if isinstance(data, dict) and type(data.get("schema")) is int:
            require_schema(data["schema"], path)
        try:
            settings = typed(data, cls)
            require_ranges(settings, "")
            typed(settings.space_config, SPACES[settings.space].Config, "space_config")
            COSTS[settings.cost]
        except InputError as error:
            raise InputError(
                f"{path}: not the settings of a run ({error}); restore the file or start a new run"
            ) from None
        return settings
