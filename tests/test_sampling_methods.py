"""Methods that only evaluate candidates: against what their papers say they do next, where evaluating costs nothing."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from methods.local_search import LocalSearch, LocalSearchConfig
from methods.method import Evaluation
from methods.nsga2 import Individual, first_front
from methods.regularised_evolution import RegularisedEvolution, RegularisedEvolutionConfig
from methods.zero import Zero, ZeroConfig, preferred
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests import tiny


class Numbers:
    """A space of numbers below ``size``, in a ring: neighbours are up to ``reach`` apart."""

    def __init__(self, size: int, reach: int) -> None:
        self.size, self.reach, self.mutated = size, reach, []
        self.sample = lambda rng: self.of(int(rng.integers(size)))

    def of(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(key=str(number), number=number)

    def mutate(self, architecture, rng):
        self.mutated.append(architecture.number)
        step = int(rng.integers(1, self.reach + 1)) * (1 if rng.random() < 0.5 else -1)
        return self.of((architecture.number + step) % self.size)


def half(_: int) -> float:
    return 0.5


def numbers(size: int, error=half, cost=half, reach: int = 5):
    """A problem whose candidates cost nothing; ``asked`` are those that were evaluated."""
    problem = tiny.problem()
    problem.space, problem.asked = Numbers(size, reach), []

    def evaluate(drawn, epochs=None, parents=None):  # noqa: ARG001
        problem.asked += [a.number for a in drawn]
        return [Evaluation(a.key, error(a.number), cost(a.number), 1, 1) for a in drawn]

    problem.evaluate = evaluate
    return problem


def run(method):
    while not method.finished:
        method.step()
    return method


# -- local search ------------------------------------------------------------------------------------------------------


def test_local_search_climbs_to_the_nearest_optimum_and_starts_anew():
    """On a ring with minima of error at 30 and 70, and equal costs, only the best so far has neighbours tried."""
    error = lambda n: min(abs(n - 30), abs(n - 70)) / 100 + (0.001 if n > 50 else 0)  # noqa: E731
    problem = numbers(100, error, reach=1)
    method = run(LocalSearch(problem, LocalSearchConfig(samples=60, starts=1)))
    best = [min(map(error, problem.asked[:count])) for count in range(1, 61)]
    climbs = [number for number in problem.space.mutated if error(number) == 0 or error(number) == 0.001]
    assert best[-1] == 0.0 or best[-1] == 0.001
    assert climbs and len(set(problem.asked)) == 60  # at an optimum whose neighbours are known, others are drawn
    assert method.proposals()[0].number in (30, 70)


def test_local_search_moves_along_the_front_only():
    rng = np.random.default_rng(1)
    errors, costs = rng.random(200), 1 + rng.random(200)
    problem = numbers(200, lambda n: float(errors[n]), lambda n: float(costs[n]))
    method = LocalSearch(problem, LocalSearchConfig(samples=80, starts=10, neighbours=1))
    while not method.finished:
        known, before = list(problem.asked), len(problem.space.mutated)
        method.step()
        for parent in problem.space.mutated[before:]:
            assert not any(errors[n] < errors[parent] and costs[n] < costs[parent] for n in known)
    assert len(problem.asked) == 80
    assert all(count <= 1 for count in method.tried.values())


# -- regularised evolution ---------------------------------------------------------------------------------------------


def test_evolution_draws_parents_from_the_youngest_and_takes_the_best_of_all_of_them():
    rng = np.random.default_rng(2)
    errors, costs = rng.random(500), 1 + rng.random(500)
    problem = numbers(500, lambda n: float(errors[n]), lambda n: float(costs[n]))
    config = RegularisedEvolutionConfig(samples=60, population=10, tournament=10)
    method = RegularisedEvolution(problem, config)
    while not method.finished:
        living, before = problem.asked[-10:], len(problem.space.mutated)
        method.step()
        for parent in problem.space.mutated[before:]:  # a tournament of all: of the first front
            pool = [Individual(problem.space.of(n), Evaluation(str(n), errors[n], costs[n], 1, 1)) for n in living]
            assert str(parent) in {individual.key for individual in first_front(pool)}
    assert len(problem.asked) == 60 and problem.space.mutated
    assert len(set(problem.space.mutated)) > 5


def test_the_first_population_is_announced_ahead_and_children_are_not():
    problem = numbers(500)
    told = []
    problem.announce = lambda drawn: told.append(len(drawn))
    problem.queue = SimpleNamespace(parallel=2)  # so that eight are worth announcing
    run(RegularisedEvolution(problem, RegularisedEvolutionConfig(samples=16, population=12, tournament=3)))
    assert told == [9, 9, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1]
    alone = numbers(500)
    run(RegularisedEvolution(alone, RegularisedEvolutionConfig(samples=16, population=12, tournament=3)))
    assert alone.asked == problem.asked  # however many workers there are


def test_a_tournament_larger_than_the_population_is_refused():
    with pytest.raises(InputError, match="tournament of 1 to 5, not 6"):
        RegularisedEvolutionConfig(population=5, tournament=6)


# -- zero --------------------------------------------------------------------------------------------------------------


def test_zero_prefers_the_cheapest_of_the_multipliers_that_err_little():
    library = catalogue.library(catalogue.names())
    assert preferred(library, 5.0).name == "mul8s_1L2H"  # 4.4 %, by the published figures
    assert preferred(library, 0.0).name == "mul8s_1KV8"
    assert preferred(library, 1e3).name == "mul8s_1KR3"
    assert preferred(catalogue.library(["mul8s_1KR3", "mul8s_1L1G"]), 5.0).name == "mul8s_1L1G"


def test_zero_trains_nothing_and_proposes_what_multiplies_in_few_places():
    problem = tiny.problem("zero")
    problem.evaluate = problem.train_batches = problem.validation_batches = None
    method = run(Zero(problem, ZeroConfig(samples=40, batch=20, proposals=4)))
    drawn = sorted(method.places(a) for a in {a.key: a for a in method.drawn}.values())
    proposals = method.proposals()
    assert all(a.multipliers == ("mul8s_1L2H",) for a in proposals)
    assert max(map(method.places, proposals)) <= drawn[round(0.2 * len(drawn))] < drawn[-1]
    costs = [problem.cost_of(a) for a in proposals]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


@pytest.mark.parametrize("space", ["cells", "grid"])
def test_zero_works_on_every_space(space):
    problem = tiny.problem("zero", space=space)
    assert run(Zero(problem, ZeroConfig(samples=20, batch=10, proposals=3))).proposals()
    with pytest.raises(InputError, match="share"):
        dataclasses.replace(ZeroConfig(), share=0.0)
