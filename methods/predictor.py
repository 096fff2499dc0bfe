"""A predictor guides the search: models of the error, learnt from what was trained, choose what to train next.

BANANAS (White, Neiswanger, Savani, AAAI 2021, arXiv 1910.11858), with its steps:

    A ← random architectures
    repeat: fit an ensemble of models: encoding → error, on A
            C ← mutants of the best of A
            draw an error for every c of C from N(mean, deviation) of the ensemble (independent Thompson sampling)
            train the batch of C that those draws promise most of

The paper has one objective and neural networks on a path encoding. Here the encoding is the space's, the models are boosted
trees, each on a bootstrap sample, and the cost, which is known without training, counts as it is: a batch is what, one after
the other, adds most hypervolume to the front by the errors that were drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from methods.archive import ArchiveSearch
from methods.fronts import pareto_front, relative_hypervolume
from methods.method import Evaluation, Problem
from spaces.errors import InputError
from spaces.space import Architecture

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor


ATTEMPTS = 5  # mutants drawn for each of the pool that is new


@dataclass(frozen=True)
class PredictorConfig:
    """Settings of the search by a predictor; the defaults are the published ones where there are any."""

    samples: int = 150
    """Networks to train in all; a budget takes its place."""
    starts: int = 10
    """How many of them are random, before there are models."""
    batch: int = 10
    """Networks to train between two fits."""
    pool: int = 100
    """Mutants among which the models choose."""
    models: int = 5
    """Models in the ensemble."""
    trees: int = 50
    """Trees in each model."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if (
            min(self.samples, self.batch, self.pool, self.trees, self.proposals) < 1
            or min(self.starts, self.models) < 2
        ):
            raise InputError(
                "predictor needs at least two starts and models, and one sample, network per fit, mutant, tree and proposal"
            )


class Predictor(ArchiveSearch):
    """See the module's docstring."""

    Config = PredictorConfig
    native_space = "cells"
    presets: ClassVar[dict[str, PredictorConfig]] = {
        "published": PredictorConfig(),
        "quick": PredictorConfig(samples=12, starts=6, batch=2, pool=50),
        "fast": PredictorConfig(samples=8, starts=4, batch=1, pool=50, proposals=4),
    }

    def __init__(self, problem: Problem, config: PredictorConfig) -> None:
        super().__init__(problem, config.samples, config.proposals, config.batch, first=config.starts)
        self.config = config

    def candidates(self, count: int) -> list[Architecture]:
        front = [self.architectures[evaluation.key] for evaluation in self.front()]
        rng, space, size = self.problem.rng, self.problem.space, self.config.pool
        pool = (
            self.new(lambda: space.mutate(front[int(rng.integers(len(front)))], rng), size, ATTEMPTS) if front else []
        )
        if not pool:
            return self.random(count)
        return self.promising(pool, self.draw_errors(pool), count)

    def draw_errors(self, pool: Sequence[Architecture]) -> np.ndarray:
        """An error for each, 0..1, from a normal distribution with the mean and deviation of the models."""
        encoded = np.stack([self.problem.space.encode(architecture) for architecture in pool])
        predicted = np.stack([model.predict(encoded) for model in self.fitted()])
        drawn = self.problem.rng.normal(predicted.mean(axis=0), predicted.std(axis=0))
        return drawn.clip(0.0, 1.0)

    def fitted(self) -> "list[GradientBoostingRegressor]":
        """Models of the error of what was trained and did not fail, each on a bootstrap sample."""
        from sklearn.ensemble import GradientBoostingRegressor  # takes a second to import

        known = [evaluation for evaluation in self.evaluations.values() if evaluation.failure is None]
        encoded = np.stack([self.problem.space.encode(self.architectures[evaluation.key]) for evaluation in known])
        errors, rng = np.array([evaluation.error for evaluation in known]), self.problem.rng
        models = []
        for _ in range(self.config.models):
            drawn = rng.integers(len(known), size=len(known))
            seed, features = int(rng.integers(2**31)), "sqrt"  # of which each split takes the best
            model = GradientBoostingRegressor(n_estimators=self.config.trees, max_features=features, random_state=seed)
            models.append(model.fit(encoded[drawn], errors[drawn]))
        return models

    def promising(self, pool: Sequence[Architecture], errors: np.ndarray, count: int) -> list[Architecture]:
        """The ``count`` that, one after the other, add most hypervolume to the front; of equals, those of the lowest errors."""
        front, reference = self.front(), self.problem.reference_cost
        rest = [Evaluation(a.key, float(error), self.problem.cost_of(a), 0, 0) for a, error in zip(pool, errors)]
        chosen: list[Evaluation] = []
        for _ in range(min(count, len(rest))):
            best = max(rest, key=lambda e: (relative_hypervolume([*front, e], reference), -e.error))
            rest.remove(best)
            chosen.append(best)
            front = pareto_front([*front, best])
        by_key = {architecture.key: architecture for architecture in pool}
        return [by_key[evaluation.key] for evaluation in chosen]
