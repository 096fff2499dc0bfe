"""Random search: draw architectures without repetition, train each briefly, propose from the Pareto front.

The baseline that every comparison of architecture search needs (Li & Talwalkar, UAI 2019).
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

from methods.archive import ArchiveSearch
from methods.method import Problem
from spaces.errors import InputError
from spaces.space import Architecture


@dataclass(frozen=True)
class RandomConfig:
    """Settings of random search."""

    samples: int = 100
    """Architectures to draw and train; a budget takes its place."""
    batch: int = 4
    """Architectures per step, between two checkpoints."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if min(self.samples, self.batch, self.proposals) < 1:
            raise InputError("random search needs at least one sample, one sample per step and one proposal")


class RandomSearch(ArchiveSearch):
    """See the module's docstring."""

    Config = RandomConfig
    native_space = "cells"
    presets: ClassVar[dict[str, RandomConfig]] = {
        "published": RandomConfig(),
        "quick": RandomConfig(samples=4, batch=1),
        "fast": RandomConfig(samples=8, batch=1, proposals=4),
    }

    def __init__(self, problem: Problem, config: RandomConfig) -> None:
        super().__init__(problem, config.samples, config.proposals, config.batch, first=sys.maxsize)

    def candidates(self, count: int) -> list[Architecture]:
        return self.random(count)
