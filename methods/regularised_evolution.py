"""Regularised evolution: a population of which the oldest dies, whatever it was worth.

Real, Aggarwal, Huang, Le, AAAI 2019 (arXiv 1802.01548), algorithm 1:

    P ← random architectures
    repeat: of S random ones of P, the best is the parent; its mutant is trained and joins P, and the oldest leaves P

The paper's best is the most accurate. Here there are two objectives, and the best is the first by the rank of its front, then
by crowding distance (NSGA-II, Deb et al., 2002), among those that were drawn. A network is trained once: where mutants are
all known, a random one takes their place.
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.archive import ArchiveSearch
from methods.method import Problem
from methods.nsga2 import Individual, survivors
from spaces.errors import InputError
from spaces.space import Architecture


@dataclass(frozen=True)
class RegularisedEvolutionConfig:
    """Settings of regularised evolution; the defaults are the published ones, but for how many networks are trained."""

    samples: int = 1000
    """Networks to train in all; a budget takes its place."""
    population: int = 100
    """P: the networks that live; the first of them are random."""
    tournament: int = 25
    """S: how many of them a parent is the best of."""
    batch: int = 1
    """Children per step, of one population; more than one keep more workers busy."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front of all that were trained, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if min(self.samples, self.population, self.batch, self.proposals) < 1:
            raise InputError("regularised evolution needs at least one sample, individual, child per step and proposal")
        if not 1 <= self.tournament <= self.population:
            raise InputError(
                f"regularised evolution needs a tournament of 1 to {self.population}, not {self.tournament}"
            )


class RegularisedEvolution(ArchiveSearch):
    """See the module's docstring. The population is the youngest of the archive, which keeps everybody."""

    Config = RegularisedEvolutionConfig
    native_space = "cells"
    presets: ClassVar[dict[str, RegularisedEvolutionConfig]] = {
        "published": RegularisedEvolutionConfig(samples=20_000),
        # Ours: a quarter of the population takes part in a tournament, as published.
        "quick": RegularisedEvolutionConfig(samples=12, population=6, tournament=2),
        "fast": RegularisedEvolutionConfig(samples=8, population=4, tournament=2, proposals=4),
    }

    def __init__(self, problem: Problem, config: RegularisedEvolutionConfig) -> None:
        super().__init__(problem, config.samples, config.proposals, config.batch, first=config.population)
        self.population, self.tournament = config.population, config.tournament

    def candidates(self, count: int) -> list[Architecture]:
        children = self.new(lambda: self.problem.space.mutate(self.parent(), self.problem.rng), count)
        return children or self.random(count)

    def parent(self) -> Architecture:
        """The winner of a tournament among the living."""
        living = list(self.evaluations)[-self.population :]
        drawn = self.problem.rng.choice(len(living), size=min(self.tournament, len(living)), replace=False)
        pool = [Individual(self.architectures[living[at]], self.evaluations[living[at]]) for at in sorted(drawn)]
        return survivors(pool, 1)[0].architecture
