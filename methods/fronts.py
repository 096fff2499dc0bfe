"""Fronts of error and cost: who is on them, how good they are, and whom to show of many."""

import bisect
import math
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter

import moocore
import numpy as np

from methods.method import Evaluation
from spaces.space import Architecture


def pareto_front(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations that no other beats in error and cost at once, most accurate first; one of equals is kept."""
    front: list[Evaluation] = []
    for candidate in sorted(evaluations, key=attrgetter("error", "cost", "key")):
        if not front or candidate.cost < front[-1].cost:
            front.append(candidate)
    return front


def relative_hypervolume(evaluations: Sequence[Evaluation], reference_cost: float) -> float:
    """Area, 0..1, that the evaluations dominate: error by cost / ``reference_cost``, up to the point (1, 1)."""
    good = [(e.error, e.cost / reference_cost) for e in evaluations if e.failure is None]
    return float(moocore.hypervolume(np.array(good), ref=[1.0, 1.0])) if good else 0.0


def representatives(evaluations: Sequence[Evaluation], count: int, reference_cost: float) -> list[Evaluation]:
    """At most ``count`` points of the Pareto front: the most accurate, then, one by one, what adds most hypervolume."""
    front = pareto_front(evaluations)
    points = [(min(e.error, 1.0), min(e.cost / reference_cost, 1.0)) for e in front]
    chosen = [0][: len(front)]

    def gain(at: int) -> float:
        """The rectangle that a point adds lies between its neighbours of those chosen: one costs more, one errs more."""
        place = bisect.bisect(chosen, at)
        errs = points[chosen[place]][0] if place < len(chosen) else 1.0
        return (errs - points[at][0]) * (points[chosen[place - 1]][1] - points[at][1])

    rest, order = list(range(1, len(front))), list(chosen)
    while rest and len(order) < count:
        best = max(rest, key=gain)
        rest.remove(best)
        bisect.insort(chosen, best)
        order.append(best)
    return [front[at] for at in order]


def best_first(points: np.ndarray) -> np.ndarray:
    """The order of points (n, objectives) by the rank of their front, then by crowding distance (Deb et al., NSGA-II, 2002)."""
    ranks, crowding = moocore.pareto_rank(points), np.zeros(len(points))
    for rank in np.unique(ranks):
        front = np.flatnonzero(ranks == rank)
        for values in points[front].T:
            order = np.argsort(values, kind="stable")
            span = values[order[-1]] - values[order[0]]
            if span > 0:
                crowding[front[order[1:-1]]] += (values[order[2:]] - values[order[:-2]]) / span
            crowding[front[order[[0, -1]]]] = np.inf
    return np.lexsort((-crowding, ranks))


def spread_over_cost(
    architectures: Sequence[Architecture],
    count: int,
    cost_of: Callable[[Architecture], float],
    highest: float = math.inf,
) -> list[Architecture]:
    """At most ``count``, cheapest first: those nearest to evenly spaced logarithms of cost, up to ``highest``."""
    free = sys.float_info.min  # what costs nothing has no logarithm
    left = [(math.log(max(cost_of(architecture), free)), architecture) for architecture in architectures]
    most = min(max(cost for cost, _ in left), math.log(highest))
    chosen = []
    for target in np.linspace(min(cost for cost, _ in left), most, count):
        if left:
            nearest = min(left, key=lambda pair: abs(pair[0] - target))
            left.remove(nearest)
            chosen.append(nearest[1])
    return chosen
