"""The plan of a table: a TOML file that says which networks are trained, how, and how often.

    dataset = "fashion14"
    protocol = "bench"
    space = "bench"
    multipliers = ["mul8s_1KV8", "mul8s_1L1G", "bam8s_4_4_0"]
    seeds = 3                       # trainings of each network, each under a split of the images of its own

    [space_config]                  # the space's settings, where they are not its defaults
    nodes = 3

That of a space too large to be trained whole also has

    sample = 500                    # networks to train, drawn so that all kinds of them are there
    surrogate = true                # the trainings are there to predict all others from
    repeated = 50                   # of the sample: those that are trained under all seeds; the others are trained once

Nothing here imports torch.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.benchmark.strata import spread
from evaluation.cli.config_files import read_toml
from evaluation.settings.protocols import Protocol, named_protocol
from spaces.errors import InputError, suggest
from spaces.files.schema import typed
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.registry import SPACES
from spaces.space import Architecture, Space

MOST_SEEDS = 100
SAMPLE_SEED = 20240


@dataclass(frozen=True)
class TablePlan:
    """What a table holds. Its settings decide every number in it but the seconds."""

    dataset: str
    protocol: str
    space: str
    multipliers: tuple[str, ...]
    seeds: int = 3
    sample: int = 0  # networks that are drawn from a space that is too large; 0 takes all
    surrogate: bool = False  # the trainings are there to predict all others from
    repeated: int = 0  # of a surrogate's sample: how many are trained under all seeds; the others are trained once
    space_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"a table has 1 to {MOST_SEEDS} trainings of each network, not {self.seeds}")
        if self.sample < 0:
            raise InputError(f"a table cannot hold {self.sample} networks")
        if self.surrogate and not 2 <= self.repeated <= self.sample:
            raise InputError(
                "a surrogate needs a sample, and of it at least 2 networks that are repeated, to know the noise"
            )
        if self.surrogate and self.space != "bench":
            raise InputError(f"only networks of the bench space can be predicted, not those of '{self.space}'")
        if self.surrogate and self.seeds < 2:
            raise InputError("a surrogate needs at least 2 seeds, to know the noise")
        if self.repeated and not self.surrogate:
            raise InputError("repeated is a setting of plans with surrogate = true")
        named_protocol(self.protocol)
        catalogue.library(self.multipliers)
        self.make_space()

    @classmethod
    def read(cls, path: Path) -> "TablePlan":
        """Raises InputError for an unknown key, with the nearest one, and for what no table could be made of."""
        data = read_toml(path)
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise suggest(name, known, f"key of a table's plan ({path})")
        try:
            return typed(data, cls)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @property
    def key(self) -> str:
        """SHA-256 of the plan, of the protocol's values and of the truth tables."""
        tables = [multiplier.key for multiplier in self.library]
        settings = asdict(self)
        if not self.surrogate:
            del (
                settings["surrogate"],
                settings["repeated"],
            )  # keys of complete tables are those from before there were others
        content = [settings, named_protocol(self.protocol).hash, tables]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def library(self) -> tuple[Multiplier, ...]:
        return catalogue.library(self.multipliers)

    @property
    def settings(self) -> Protocol:
        """The values of its protocol."""
        return named_protocol(self.protocol)

    def make_space(self) -> Space:
        """The space with its settings."""
        cls = SPACES[self.space]
        return cls(self.library, typed(self.space_config, cls.Config, "space_config"))

    def networks(self) -> list[Architecture]:
        """All of its networks, each once, or those that are drawn; the first of these are as various as all."""
        space = self.make_space()
        if self.sample:
            return spread(space, self.sample, np.random.default_rng(SAMPLE_SEED))
        networks = space.every()
        if networks is None:
            raise InputError(f"the networks of '{self.space}' are too many to list; say how many to draw: sample = 500")
        return list(networks)

    def seeds_of(self, number: int) -> Sequence[int]:
        """Under which the network of this number is trained; those that are trained once take the seeds by turns."""
        if not self.surrogate:
            return range(self.seeds)
        before, now = (at * self.repeated // self.sample for at in (number, number + 1))
        return range(self.seeds) if now > before else [number % self.seeds]
