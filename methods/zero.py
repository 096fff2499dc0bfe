"""Zero: a control that trains nothing. What it proposes follows from a prior, stated here, and from costs, which are known.

The prior, without looking at any data:

* Of multipliers, the one of the lowest power is taken everywhere among those whose mean relative error is at most ``mre``
  (the most exact one, where none is): networks that are trained with such a multiplier get used to it.
* Of networks, those are worth most in which few places multiply, since on small data any network answers about equally well,
  and only costs differ: so of many random ones, the ``share`` with the fewest places that multiply is kept.
* Among these, a larger cost promises a smaller error: proposals are spread over the logarithm of cost, highest first.

A search that does not beat this has found nothing that was not known before.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from methods.fronts import spread_over_cost
from methods.method import Problem, StepReport
from spaces.errors import InputError
from spaces.multipliers.catalogue import power_ratio
from spaces.multipliers.multiplier import Multiplier, error_metrics
from spaces.space import Architecture


@dataclass(frozen=True)
class ZeroConfig:
    """Settings of the control without training; all are ours."""

    samples: int = 200
    """Random networks to draw; none is trained."""
    batch: int = 50
    """Networks per step."""
    mre: float = 30.0
    """Largest mean relative error of a multiplier, in percent."""
    share: float = 0.2
    """Of the networks drawn, how many are kept: those in which the fewest places multiply."""
    proposals: int = 6
    """Architectures to propose."""

    def __post_init__(self) -> None:
        if min(self.samples, self.batch, self.proposals) < 1:
            raise InputError("zero needs at least one sample, one sample per step and one proposal")
        if not 0 < self.share <= 1 or self.mre < 0:
            raise InputError("zero needs a share in (0, 1] and a largest mean relative error that is not negative")


class Zero:
    """See the module's docstring. Budgets mean nothing to it: it ends when it has drawn its networks."""

    Config = ZeroConfig
    native_space = "cells"
    presets: ClassVar[dict[str, ZeroConfig]] = {"published": ZeroConfig(), "fast": ZeroConfig(proposals=4)}

    def __init__(self, problem: Problem, config: ZeroConfig) -> None:
        self.problem, self.config, self.space = problem, config, problem.space
        self.multiplier = preferred(self.space.library, config.mre)
        self.drawn: list[Architecture] = []
        self.steps = 0

    def step(self) -> StepReport:
        """Draw a batch of networks. Errors are not known, and reported as 1."""
        for _ in range(min(self.config.batch, max(1, self.config.samples - len(self.drawn)))):
            network = self.space.sample(self.problem.rng)
            self.drawn.append(self.space.on_multiplier(network, self.multiplier.name))
        self.steps += 1
        cheap = self.kept()
        costs = [self.problem.cost_of(architecture) for architecture in cheap]
        places = float(np.mean([self.places(architecture) for architecture in cheap]))
        figures = {"drawn": len(self.drawn), "kept": len(cheap), "places_that_multiply": places}
        total = -(-self.config.samples // self.config.batch)
        return StepReport(self.steps, max(total, self.steps), 1.0, min(costs), figures)

    def kept(self) -> list[Architecture]:
        """Of the different networks drawn, the share in which the fewest places multiply; those drawn first, of equals."""
        different = list({architecture.key: architecture for architecture in self.drawn}.values())
        return sorted(different, key=self.places)[
            : max(self.config.proposals, round(self.config.share * len(different)))
        ]

    def places(self, architecture: Architecture) -> int:
        """In how many places an architecture multiplies."""
        return sum(bool(edge.multiplier) for edge in self.space.edges(architecture))

    def proposals(self) -> list[Architecture]:
        spread = spread_over_cost(self.kept(), self.config.proposals, self.problem.cost_of)
        return sorted(spread, key=self.problem.cost_of, reverse=True)

    @property
    def finished(self) -> bool:
        return len(self.drawn) >= self.config.samples

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "drawn": [architecture.to_json() for architecture in self.drawn]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.drawn = state["steps"], [self.space.from_json(data) for data in state["drawn"]]


def preferred(library: tuple[Multiplier, ...], mre: float) -> Multiplier:
    """The multiplier of the lowest power whose mean relative error is at most ``mre`` percent, else the most exact one."""
    error = {multiplier.name: error_metrics(multiplier).mre_pct for multiplier in library}
    tolerable = [multiplier for multiplier in library if error[multiplier.name] <= mre]
    return min(tolerable, key=power_ratio) if tolerable else min(library, key=lambda m: error[m.name])
