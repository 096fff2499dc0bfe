"""The subcommands of ``python -m evaluation.table`` and their flags. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from spaces.cli.flags import Unset

DEFAULT = "fashion14"


@dataclass(frozen=True)
class Info:
    """What a table holds, what it was made with, and how far its networks differ."""

    table: tyro.conf.Positional[str] = DEFAULT
    """Name of a table inside the package, or a .npz file."""
    doubtful: bool = False
    """Use a surrogate even where it predicts too badly to be accepted."""


@dataclass(frozen=True)
class Front:
    """The true front: the networks that no other beats in test error and cost at once."""

    table: tyro.conf.Positional[str] = DEFAULT
    """Name of a table inside the package, or a .npz file."""
    cost: str = "horowitz45"
    """Cost model."""
    doubtful: bool = False
    """Use a surrogate even where it predicts too badly to be accepted."""


@dataclass(frozen=True)
class Query:
    """What a table knows of one network: the error after every epoch, training by training."""

    architecture: tyro.conf.Positional[str]
    """A file of evaluation.run (finalist1.json, proposals.json, record.json), or the beginning of a network's key."""
    table: str = DEFAULT
    """Name of a table inside the package, or a .npz file."""
    cost: str = "horowitz45"
    """Cost model."""
    doubtful: bool = False
    """Use a surrogate even where it predicts too badly to be accepted."""


@dataclass(frozen=True)
class Build:
    """Train the networks of a plan, and write their table. The same command goes on after a stop."""

    plan: tyro.conf.Positional[Path]
    """TOML file; evaluation/benchmark/plan.py says what is in it."""
    out: Unset[Path | None] = None
    """The .npz file to write; by default it is called as the plan, in the current folder."""
    executor: Literal["serial", "processes", "ray"] = "serial"
    """Where networks are trained: here, in processes of this machine, or on a Ray cluster."""
    workers: int = 0
    """Workers of an executor; 0 takes one per core."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto (CUDA if there is one), cpu or cuda."""
    so_far: bool = False
    """Train nothing: write the surrogate that can be made of the trainings that a build has kept so far."""


@dataclass(frozen=True)
class Verify:
    """Train random entries again, and compare: on a machine like that of the table every digit is the same; exit code 1
    where an error differs by more than the trainings of that network do among each other."""

    table: tyro.conf.Positional[str] = DEFAULT
    """Name of a table inside the package, or a .npz file."""
    entries: int = 3
    """Entries to train again."""
    seed: int = 0
    """Of the draw."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """auto (CUDA if there is one), cpu or cuda."""


@dataclass(frozen=True)
class Ranks:
    """How the searches of a comparison fared: regret to the true front, ranks, and whether anything beats the controls."""

    comparison: tyro.conf.Positional[Path]
    """The .jsonl file of table compare."""


@dataclass(frozen=True)
class Transfer:
    """Whether what is good in the table is good on other images: trains some networks of the front there, and as many random
    ones, and tells how alike both rank them."""

    data: tyro.conf.Positional[str]
    """The other images: the name of a data set, or a folder or archive with train/<class>/* and test/<class>/*."""
    table: str = DEFAULT
    """Name of a table inside the package, or a .npz file."""
    networks: int = 20
    """Of the front, and as many random ones."""
    seeds: int = 1
    """Trainings of each."""
    image_size: int = 0
    """Resize image files to this many pixels a side; 0 keeps them."""
    data_dir: str = ""
    """Folder with the official files of a named data set."""
    train_limit: int = 0
    """Training images to keep, half of which validate (the table was made with 10,000); 0 keeps all."""
    to: Path = Path("transfer.jsonl")
    """Where trainings are kept."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """auto (CUDA if there is one), cpu or cuda."""


COMMANDS = {
    "info": Info,
    "front": Front,
    "query": Query,
    "build": Build,
    "verify": Verify,
    "transfer": Transfer,
    "ranks": Ranks,
}
