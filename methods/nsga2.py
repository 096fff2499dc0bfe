"""NSGA-II (Deb et al., IEEE TEC 6(2), 2002) by DEAP, behind what keeps its traps away.

DEAP lets a NaN dominate everything, makes crowding distances NaN by an infinity, and its tournament draws from Python's global
generator and returns another number of winners than asked for. Nothing but this file imports it.
"""

from collections.abc import Iterator, Sequence

import moocore
import numpy as np
from deap import base, tools

from methods.method import Evaluation
from spaces.space import Architecture

WORST = (1.0, 1e15, 1e15)  # objectives of what failed: finite, and worse than any network's


class Minimised(base.Fitness):
    """Validation error, cost and parameters; all are minimised."""

    weights = (-1.0, -1.0, -1.0)


class Individual:
    """A genotype and how its network did."""

    def __init__(self, architecture: Architecture, evaluation: Evaluation) -> None:
        self.architecture, self.evaluation = architecture, evaluation
        self.fitness = Minimised(objectives(evaluation))

    @property
    def key(self) -> str:
        return self.evaluation.key

    def __deepcopy__(self, memo: dict[int, object]) -> "Individual":
        """What the archive keeps: both parts are frozen and can be shared."""
        return Individual(self.architecture, self.evaluation)


def objectives(evaluation: Evaluation) -> tuple[float, float, float]:
    """(error, cost, parameters), always finite.

    DEAP lets a NaN dominate everything, and an infinity turns crowding distances into NaN; so whatever failed, or is not
    finite for any other reason, is worse than every network in all three.
    """
    values = (evaluation.error, evaluation.cost, float(evaluation.params))
    return values if evaluation.failure is None and np.isfinite(values).all() else WORST


def survivors(pool: list[Individual], count: int, margin: float = 1.0) -> list[Individual]:
    """The ``count`` best by the rank of their front, then by crowding distance.

    Those whose error exceeds the lowest by more than ``margin`` come after all others, in the order of their errors.
    """
    errors = {id(individual): individual.fitness.values[0] for individual in pool}
    limit = min(errors.values()) + margin
    chosen: list[Individual] = tools.selNSGA2(
        [individual for individual in pool if errors[id(individual)] <= limit], count
    )
    beyond = [individual for individual in pool if errors[id(individual)] > limit]
    chosen += sorted(beyond, key=lambda individual: errors[id(individual)])[: count - len(chosen)]
    measure_crowding(chosen)
    return chosen


def measure_crowding(population: list[Individual]) -> None:
    """Set the crowding distances among these individuals, front by front: a function of the population alone."""
    for front in tools.sortNondominated(population, len(population)):
        tools.emo.assignCrowdingDist(front)


def tournament(population: list[Individual], count: int, rng: np.random.Generator) -> list[Individual]:
    """Winners of ``count`` tournaments of two: who dominates, else who is less crowded, else the first drawn.

    DEAP's own selTournamentDCD returns another number than asked for unless it is a multiple of four, and draws from
    Python's global generator.
    """
    winners = []
    for _ in range(count):
        pair = [population[int(at)] for at in rng.permutation(len(population))[:2]]
        first, second = pair[0].fitness, pair[-1].fitness
        lost = second.dominates(first) or (not first.dominates(second) and second.crowding_dist > first.crowding_dist)
        winners.append(pair[-1] if lost else pair[0])
    return winners


def first_front(population: list[Individual]) -> list[Individual]:
    """Those that no other dominates."""
    fronts: list[list[Individual]] = tools.sortNondominated(population, len(population), True)
    return fronts[0]


class ParetoArchive:
    """All individuals that no other ever dominated, one for each network."""

    def __init__(self, individuals: Sequence[Individual] = ()) -> None:
        """``individuals``: of another archive, in its order."""
        self._front = tools.ParetoFront(similar=lambda a, b: a.key == b.key)
        self._front.update(list(reversed(individuals)))  # what is new goes before its equals

    def update(self, individuals: list[Individual]) -> None:
        """Take in those that did not fail."""
        self._front.update([individual for individual in individuals if individual.evaluation.failure is None])

    def __iter__(self) -> Iterator[Individual]:
        return iter(self._front)

    def __len__(self) -> int:
        return len(self._front)

    def hypervolume(self, cost: float, params: int) -> float:
        """In all three objectives, 0..1, relative to (error 1, ``cost``, ``params``)."""
        if not len(self):
            return 0.0
        points = np.array([objectives(individual.evaluation) for individual in self]) / np.array([1.0, cost, params])
        return float(moocore.hypervolume(points, ref=[1.0, 1.0, 1.0]))
