"""Fronts of error and cost: who is on them, how good they are, and whom to show of many."""

import math
import sys
from collections.abc import Callable, Sequence

import moocore
import numpy as np

from methods.method import Evaluation
from spaces.space import Architecture


def pareto_front(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations that no other beats in error and cost at once, most accurate first; one of equals is kept."""
    front: list[Evaluation] = []
    for candidate in sorted(evaluations, key=lambda e: (e.error, e.cost, e.key)):
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
    chosen, rest = front[:1], front[1:]
    while rest and len(chosen) < count:
        best = max(rest, key=lambda e: relative_hypervolume([*chosen, e], reference_cost))
        rest.remove(best)
        chosen.append(best)
    return chosen


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
