"""Methods that only evaluate candidates: against what their papers say they do next, where evaluating costs nothing."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from deap import tools

from methods.asha import Asha, AshaConfig, budgets
from methods.fronts import best_first
from methods.local_search import LocalSearch, LocalSearchConfig
from methods.method import Evaluation
from methods.nsga2 import Individual, first_front, objectives
from methods.predictor import Predictor, PredictorConfig
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


# -- ASHA --------------------------------------------------------------------------------------------------------------


def test_asha_promotes_one_in_eta_of_the_best_and_each_once():
    """Against the rule, by brute force: at equal costs, the best are those of the lowest errors."""
    rng = np.random.default_rng(3)
    errors = rng.random((400, 9))
    problem, asked = numbers(400), []

    def evaluate(drawn, epochs, parents):
        assert parents == drawn
        asked.extend((a.number, epochs) for a in drawn)
        return [Evaluation(a.key, float(errors[a.number, epochs]), 1.0, 1, 1, epochs=epochs) for a in drawn]

    problem.evaluate = evaluate
    method = Asha(problem, AshaConfig(samples=40, eta=2, resource=8))
    assert method.epochs == [1, 2, 4, 8]
    while not method.finished:
        before = [{n for n, e in asked if e == epochs} for epochs in method.epochs]
        due = []  # of the highest rung that has any: who is promotable, by the rule
        for k in (2, 1, 0):
            ranked = sorted(before[k], key=lambda n: errors[n, method.epochs[k]])
            due += [(n, method.epochs[k + 1]) for n in ranked[: len(ranked) // 2] if n not in before[k + 1]]
        report = method.step()
        assert asked[-1] == due[0] if due else asked[-1][1] == 1
    assert report.step == report.total == len(asked)
    counts = [sum(e == epochs for _, e in asked) for epochs in method.epochs]
    assert counts[0] == 40 and all(low // 2 <= high for low, high in itertools.pairwise(counts))
    assert all((a.number, 8) in asked for a in method.proposals())


def test_what_fails_is_not_promoted():
    problem = numbers(400)
    problem.evaluate = lambda drawn, epochs, _: [
        Evaluation(a.key, 1.0, 1.0, 1, 1, "broken" if a.number % 2 else None, epochs) for a in drawn
    ]
    method = run(Asha(problem, AshaConfig(samples=30, eta=3, resource=3)))
    assert method.rungs[1] and all(int(key) % 2 == 0 for key in method.rungs[1])


def test_asha_goes_on_from_where_a_training_stands():
    problem = tiny.problem("asha")
    method = run(Asha(problem, AshaConfig(samples=4, eta=2, resource=2)))
    upper, lower = method.rungs[1], method.rungs[0]
    assert set(upper) < set(lower) and {e.epochs for e in upper.values()} == {2}
    assert set(problem.searched.trained) <= set(lower)  # the others' weights are forgotten


@pytest.mark.parametrize(("given", "epochs"), [((81, 3, 16), [1, 3, 9, 27, 81]), ((10, 4, 2), [2, 10])])
def test_rungs(given, epochs):
    assert budgets(*given) == epochs


def test_too_few_epochs_for_two_rungs_are_refused():
    with pytest.raises(InputError, match="at least 4 epochs in the higher one, not 3; set --asha.resource"):
        budgets(3, 4, 16)


# -- predictor ---------------------------------------------------------------------------------------------------------


def encoded_numbers(size: int, **given):
    problem = numbers(size, **given)
    problem.space.encode = lambda architecture: np.array([architecture.number], dtype=np.float32)
    problem.cost_of = half
    problem.reference_cost = 1.0
    return problem


def test_a_predictor_learns_what_it_is_shown():
    problem = encoded_numbers(400, error=lambda n: n / 400, reach=50)
    method = Predictor(problem, PredictorConfig(samples=32, starts=20, batch=4, models=3))
    run(method)
    errors = method.draw_errors([problem.space.of(n) for n in (10, 390)])
    assert errors[0] < 0.3 < 0.7 < errors[1]
    opening, guided = problem.asked[:20], problem.asked[20:]
    assert np.mean(guided) < 0.5 * np.mean(opening)


def test_what_is_chosen_adds_most_hypervolume_one_after_the_other():
    rng = np.random.default_rng(5)
    errors, costs = rng.random(30), rng.random(30)
    problem = encoded_numbers(30)
    problem.cost_of = lambda architecture: float(costs[architecture.number])
    method = Predictor(problem, PredictorConfig())
    method.keep(problem.space.of(0), Evaluation("0", errors[0], costs[0], 1, 1))
    pool = [problem.space.of(n) for n in range(1, 30)]
    chosen = [a.number for a in method.promising(pool, errors[1:], 4)]

    def area(points):  # by brute force, on a grid
        x, y = np.meshgrid(np.linspace(0, 1, 400), np.linspace(0, 1, 400))
        return np.any([(x >= errors[n]) & (y >= costs[n]) for n in points], axis=0).mean()

    front = [0]
    for number in chosen:
        gains = {n: area([*front, n]) for n in range(1, 30) if n not in front}
        assert gains[number] >= max(gains.values()) - 0.01
        front.append(number)


def test_few_architectures_of_a_space_are_encoded_alike():
    for name in ("cells", "grid"):
        space = tiny.problem(space=name).space
        drawn = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
        found = {a.key: space.encode(a) for a in drawn}
        assert len({v.shape for v in found.values()}) == 1
        assert len({v.tobytes() for v in found.values()}) >= len(found) - 1
        counted = found[drawn[0].key][: len(space.operation_names)]
        names = [edge.operation for edge in space.edges(drawn[0])]
        assert counted.tolist() == [names.count(operation) for operation in space.operation_names]


# -- fronts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_the_order_by_front_and_crowding_is_deaps(count):
    points = np.random.default_rng(count).random((count, 3))
    errors = [Evaluation(str(at), error, cost, int(1e6 * params), 1) for at, (error, cost, params) in enumerate(points)]
    pool = [Individual(SimpleNamespace(key=each.key), each) for each in errors]
    expected = []
    for front in tools.sortNondominated(pool, count):
        tools.emo.assignCrowdingDist(front)
        expected += sorted(-individual.fitness.crowding_dist for individual in front)
    crowding = {individual.key: -individual.fitness.crowding_dist for individual in pool}
    rank = {each.key: at for at, front in enumerate(tools.sortNondominated(pool, count)) for each in front}
    order = [str(at) for at in best_first(np.array([objectives(each) for each in errors]))]
    assert sorted(order) == sorted(rank) and [crowding[key] for key in order] == pytest.approx(expected)
    assert [rank[key] for key in order] == sorted(rank.values())
