"""Local search: from random starts, to neighbours that are better, until no neighbour is.

White, Nolen, Savani, Exploring the Loss Landscape in NAS, UAI 2021 (arXiv 2005.02960), algorithm 1, here with two objectives,
which is Pareto local search (Paquete, Chiarandini, Stützle, 2004):

    A ← random architectures
    repeat: of the Pareto front of A, take one at random whose neighbourhood is not looked through
            evaluate a neighbour that is new; where it is beaten by nothing in A, it is on the front, and next

A space offers mutants rather than a list of neighbours, so a neighbourhood counts as looked through after so many of them.
Where all on the front are, the search goes on from another random one.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from methods.archive import ArchiveSearch
from methods.method import Evaluation, Problem
from spaces.errors import InputError
from spaces.space import Architecture


@dataclass(frozen=True)
class LocalSearchConfig:
    """Settings of local search."""

    samples: int = 100
    """Networks to train in all; a budget takes its place."""
    starts: int = 10
    """How many of them are random, before the first climb."""
    neighbours: int = 20
    """Neighbours to train of a network that nothing beats, before it counts as a local optimum."""
    batch: int = 1
    """Networks per step, neighbours of one network; more than one keep more workers busy."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if min(self.samples, self.starts, self.neighbours, self.batch, self.proposals) < 1:
            raise InputError("local search needs at least one sample, start, neighbour, network per step and proposal")


class LocalSearch(ArchiveSearch):
    """See the module's docstring."""

    Config = LocalSearchConfig
    native_space = "cells"
    presets: ClassVar[dict[str, LocalSearchConfig]] = {
        "published": LocalSearchConfig(samples=500),
        "quick": LocalSearchConfig(samples=12, starts=4),
        "fast": LocalSearchConfig(samples=8, starts=3, proposals=4),
    }

    def __init__(self, problem: Problem, config: LocalSearchConfig) -> None:
        super().__init__(problem, config.samples, config.proposals, config.batch, first=config.starts)
        self.neighbours = config.neighbours
        self.tried: dict[str, int] = {}  # neighbours of each network that were trained; of an optimum, all

    def candidates(self, count: int) -> list[Architecture]:
        while (current := self.current()) is not None:
            found = self.neighbours_of(self.architectures[current.key], count)
            self.tried[current.key] = self.tried.get(current.key, 0) + len(found) if found else self.neighbours
            if found:
                return found
        return self.random(count)

    def neighbours_of(self, parent: Architecture, count: int) -> list[Architecture]:
        return self.new(lambda: self.problem.space.mutate(parent, self.problem.rng), count)

    def current(self) -> Evaluation | None:
        """One of those that nothing beats and whose neighbours were not all tried."""
        left = [evaluation for evaluation in self.front() if self.tried.get(evaluation.key, 0) < self.neighbours]
        return left[int(self.problem.rng.integers(len(left)))] if left else None

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"tried": self.tried}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.tried = dict(state["tried"])
