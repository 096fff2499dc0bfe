"""Random search: draw architectures without repetition, train each briefly, propose from the Pareto front.

The baseline that every comparison of architecture search needs (Li & Talwalkar, UAI 2019).
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

from methods.method import Evaluation, Problem, StepReport, pareto_front, representatives
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.space import Architecture

_DRAWS_PER_NEW = 200  # repeated draws before the space counts as exhausted


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


class RandomSearch:
    """See the module's docstring."""

    Config = RandomConfig
    native_space = "cells"
    presets: ClassVar[dict[str, RandomConfig]] = {
        "quick": RandomConfig(samples=4, batch=1),
        "fast": RandomConfig(samples=8, batch=1, proposals=4),
    }

    def __init__(self, problem: Problem, config: RandomConfig) -> None:
        self.problem, self.config = problem, config
        self.architectures: dict[str, Architecture] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self.exhausted = False
        self.steps = 0

    def step(self) -> StepReport:
        """Draw and evaluate one batch of new architectures."""
        drawn = self._draw(min(self.config.batch, self._samples - len(self.architectures)))
        for architecture, evaluation in zip(drawn, self.problem.evaluate(drawn)):
            self.architectures[architecture.key] = architecture
            self.evaluations[architecture.key] = evaluation
        self.steps += 1
        front = pareto_front(self._good() or list(self.evaluations.values()))
        best, failures = front[0], len(self.evaluations) - len(self._good())
        return StepReport(
            step=self.steps,
            total=-(-self._samples // self.config.batch),
            validation_error=best.error,
            cost=best.cost,
            diagnostics={"evaluated": len(self.evaluations), "failed": failures, "front": len(front)},
        )

    @property
    def finished(self) -> bool:
        return self.exhausted or len(self.architectures) >= self._samples

    def proposals(self) -> list[Architecture]:
        chosen = representatives(self._good(), self.config.proposals, self.problem.reference_cost)
        return [self.architectures[evaluation.key] for evaluation in chosen]

    @property
    def _samples(self) -> int:
        """How many to draw in all."""
        if self.problem.evaluation_limit:
            return self.problem.evaluation_limit
        return sys.maxsize if self.problem.open_ended else self.config.samples

    def _draw(self, count: int) -> list[Architecture]:
        drawn: dict[str, Architecture] = {}
        for _ in range(_DRAWS_PER_NEW * count):
            if len(drawn) == count:
                break
            architecture = self.problem.space.sample(self.problem.rng)
            if architecture.key not in self.architectures:
                drawn.setdefault(architecture.key, architecture)
        self.exhausted = len(drawn) < count
        return list(drawn.values())

    def _good(self) -> list[Evaluation]:
        return [evaluation for evaluation in self.evaluations.values() if evaluation.failure is None]

    def state_dict(self) -> dict:
        return {
            "steps": self.steps,
            "exhausted": self.exhausted,
            "architectures": [architecture.to_json() for architecture in self.architectures.values()],
            "evaluations": [vars(evaluation) for evaluation in self.evaluations.values()],
        }

    def load_state_dict(self, state: dict) -> None:
        drawn = [self.problem.space.from_json(data) for data in state["architectures"]]
        self.architectures = {architecture.key: architecture for architecture in drawn}
        self.evaluations = {data["key"]: typed(data, Evaluation) for data in state["evaluations"]}
        self.exhausted, self.steps = state["exhausted"], state["steps"]
