"""ASHA: many networks for few epochs, the better part of them for more, without waiting for a rung to fill.

Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar, MLSys 2020 (arXiv 1810.05934), algorithm 2. Rung k trains for
R / η^(last rung − k) epochs in all. Whenever a worker is free:

    from the last rung but one to the lowest: if one of its best 1/η is not promoted yet, train it on for the next rung
    if there is none: train a new random network for the lowest rung

"Best" is, of two objectives, the order of NSGA-II (Deb et al., 2002): front by front, then by crowding distance.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from methods.archive import ArchiveSearch
from methods.fronts import best_first, pareto_front
from methods.method import Evaluation, Problem, StepReport
from methods.nsga2 import objectives
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.space import Architecture


@dataclass(frozen=True)
class AshaConfig:
    """Settings of ASHA."""

    samples: int = 500
    """Networks to begin with in all; a budget takes its place."""
    eta: int = 4
    """η: one in so many is promoted, and then trains for so many times as long."""
    resource: int = 0
    """R: epochs in the last rung; 0 takes those of the selection protocol."""
    rungs: int = 16
    """Rungs at most; there are as many as leave at least one epoch for the lowest."""
    batch: int = 1
    """Trainings per step; more than one keep more workers busy."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front of the highest rung, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if min(self.samples, self.batch, self.proposals) < 1:
            raise InputError("asha needs at least one sample, one training per step and one proposal")
        if min(self.eta, self.rungs) < 2 or self.resource < 0:
            raise InputError("asha needs an eta of at least 2, at least 2 rungs, and a resource that is not negative")


class Asha(ArchiveSearch):
    """See the module's docstring. The archive holds the last evaluation of every network; ``rungs`` holds all, by rung."""

    Config = AshaConfig
    native_space = "cells"
    presets: ClassVar[dict[str, AshaConfig]] = {
        "published": AshaConfig(),
        "quick": AshaConfig(samples=16, eta=2),
        "fast": AshaConfig(samples=12, eta=2, rungs=2, proposals=4),
    }

    def __init__(self, problem: Problem, config: AshaConfig) -> None:
        super().__init__(problem, config.samples, config.proposals, config.batch)
        self.eta = config.eta
        self.epochs = budgets(config.resource or problem.selection_epochs, config.eta, config.rungs)
        self.rungs: list[dict[str, Evaluation]] = [{} for _ in self.epochs]
        self.ordered: list[tuple[int, list[str]]] = [(0, []) for _ in self.epochs]  # of how many, and their order

    def candidates(self, count: int) -> list[Architecture]:
        """Those that are promotable, best rung first, then new ones."""
        promoted = [self.architectures[key] for _, key in zip(range(count), self.promotable())]
        new = min(count - len(promoted), self.samples - len(self.rungs[0]))
        return promoted + (self.random(new) if new else [])

    def promotable(self) -> Iterator[str]:
        for k in range(len(self.rungs) - 2, -1, -1):
            yield from (key for key in self.best(k, len(self.rungs[k]) // self.eta) if key not in self.rungs[k + 1])

    def best(self, k: int, count: int) -> list[str]:
        """Of those in rung k that did not fail, the first by front and crowding distance."""
        if len(self.rungs[k]) != self.ordered[k][0]:
            pool = [evaluation for evaluation in self.rungs[k].values() if evaluation.failure is None]
            order: Iterable[int] = best_first(np.array([objectives(evaluation) for evaluation in pool])) if pool else []
            self.ordered[k] = len(self.rungs[k]), [pool[at].key for at in order]
        return self.ordered[k][1][:count]

    def step(self) -> StepReport:
        """Train a batch, each network for its next rung, from where it stands."""
        self.draw()
        drawn = [(architecture, self.rung_of(architecture)) for architecture in self.drawn.pop(0)]
        for architecture, k in drawn:
            self.problem.announce([architecture], self.epochs[k], [architecture])
        for architecture, k in drawn:
            for evaluation in self.problem.evaluate(
                [architecture], self.epochs[k], [architecture]
            ):  # none: time is over
                self.keep(architecture, evaluation)
                self.rungs[k][architecture.key] = evaluation
        self.problem.retain([key for k in range(len(self.rungs) - 1) for key in self.waiting(k)])
        self.steps += 1
        return self.report()

    def rung_of(self, architecture: Architecture) -> int:
        """The lowest in which it was not trained."""
        return next(k for k, rung in enumerate(self.rungs) if architecture.key not in rung)

    def waiting(self, k: int) -> list[str]:
        """Those whose weights are kept: next in turn in rung k, as many as are promoted. Others would begin anew."""
        count = len(self.rungs[k]) // self.eta
        return [key for key in self.best(k, 2 * count + 1) if key not in self.rungs[k + 1]]

    def front(self) -> list[Evaluation]:
        """The Pareto front of the highest rung in which anything did not fail."""
        for rung in reversed(self.rungs):
            if good := [evaluation for evaluation in rung.values() if evaluation.failure is None]:
                return pareto_front(good)
        return []

    @property
    def left(self) -> int:
        return self.batch  # promotions know no end

    @property
    def total(self) -> int:
        trainings = sum(self.samples // self.eta**k for k in range(len(self.rungs)))
        return self.steps if self.finished else max(self.steps + 1, -(-trainings // self.batch))

    @property
    def finished(self) -> bool:
        full = len(self.rungs[0]) >= self.samples or self.exhausted
        return full and not self.drawn and next(self.promotable(), None) is None

    def state_dict(self) -> dict[str, Any]:
        rungs = [[vars(evaluation) for evaluation in rung.values()] for rung in self.rungs]
        return super().state_dict() | {"rungs": rungs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rungs = [{data["key"]: typed(data, Evaluation) for data in rung} for rung in state["rungs"]]


def budgets(epochs: int, eta: int, rungs: int) -> list[int]:
    """The epochs in every rung, lowest first. Raises InputError where there are not enough for two."""
    if epochs < eta:
        raise InputError(
            f"asha's two rungs need at least {eta} epochs in the higher one, not {epochs}; set --asha.resource, or a lower "
            "--asha.eta"
        )
    return [epochs // eta**k for k in range(rungs) if epochs >= eta**k][::-1]
