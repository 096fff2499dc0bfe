"""What is best in a table, and how far proposals are from it: fronts of mean test error and cost, known exactly."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from evaluation.benchmark.header import Table
from spaces.costs import COSTS
from spaces.space import Architecture


@dataclass(frozen=True, eq=False)
class Landscape:
    """The networks of a table by true error and cost under one cost model, and their front.

    Areas are those of ``methods.fronts.relative_hypervolume``: error by cost as a share of the reference network's in exact
    int8, up to (1, 1), both fixed before any search.
    """

    errors: np.ndarray  # (networks,), mean test error over trainings
    costs: np.ndarray  # (networks,), in the model's unit
    reference: Architecture
    reference_cost: float
    front: tuple[int, ...]  # most accurate first
    hypervolume: float  # of the front

    @classmethod
    def of(cls, table: Table, cost: str) -> "Landscape":
        """Raises InputError for an unknown cost model."""
        return _landscape(table, cost)

    def area(self, networks: Sequence[int]) -> float:
        """Hypervolume, 0..1, of these networks by their true errors."""
        if not networks:
            return 0.0
        chosen = list(networks)
        points = np.stack([self.errors[chosen], self.costs[chosen] / self.reference_cost], axis=1)
        return float(moocore.hypervolume(points, ref=[1.0, 1.0]))

    def regret(self, networks: Sequence[int]) -> float:
        """What they miss of the front's hypervolume: 0 where they hold the whole front."""
        return self.hypervolume - self.area(networks)


@functools.lru_cache(maxsize=16)
def _landscape(table: Table, cost: str) -> Landscape:
    space, costs, errors = table.make_space(), table.costs(cost), table.errors()
    reference = space.reference()
    reference_cost = COSTS[cost].network(space.costs(reference, table.shape), "int8").total
    front: list[int] = []
    for at in np.lexsort((costs, errors)).tolist():
        if not front or costs[at] < costs[front[-1]]:
            front.append(at)
    points = np.stack([errors[front], costs[front] / reference_cost], axis=1)
    hypervolume = float(moocore.hypervolume(points, ref=[1.0, 1.0]))
    return Landscape(errors, costs, reference, reference_cost, tuple(front), hypervolume)
