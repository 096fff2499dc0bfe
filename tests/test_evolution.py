"""Evolution: selection against known answers, the traps of its library, and what a search costs."""

import dataclasses
import hashlib
import json
import random

import moocore
import numpy as np
import pytest
import torch
from deap import base, tools

from evaluation.searching import candidates
from evaluation.searching.candidates import Job, inherit
from evaluation.searching.problem import SearchProblem
from methods.evoapproxnas import EvoApproxNas, EvoApproxNasConfig
from methods.fronts import spread_over_cost
from methods.method import Evaluation
from methods.nsga2 import WORST, Individual, Minimised, measure_crowding, objectives, survivors, tournament
from spaces.errors import InputError
from spaces.space import Space
from tests import tiny


def individual(error: float, energy: float = 1.0, params: int = 1, key: str = "") -> Individual:
    return Individual(None, Evaluation(key or f"{error} {energy} {params}", error, energy, params, 1))


# -- a problem with a known answer -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Point:
    """Stands for an architecture: a vector of numbers in [0, 1]."""

    values: tuple[float, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(self.values).encode()).hexdigest()

    def to_json(self) -> dict:
        return {"values": list(self.values)}


class Box(Space):
    """A space of which evolution needs ``sample`` and ``mutate`` alone."""

    name = "box"

    def __init__(self, size: int) -> None:
        self.size = size

    def sample(self, rng: np.random.Generator) -> Point:
        return Point(tuple(rng.random(self.size).tolist()))

    def mutate(self, point: Point, rng: np.random.Generator) -> Point:
        values = np.array(point.values)
        at = int(rng.integers(self.size))
        values[at] = np.clip(values[at] + rng.normal(0, 10 ** rng.uniform(-3, -0.3)), 0, 1)
        return Point(tuple(values.tolist()))

    def from_json(self, data: dict) -> Point:
        return Point(tuple(data["values"]))


class Toy:
    """ZDT1 or ZDT2 (Zitzler, Deb & Thiele, 2000) in the shape of a search problem."""

    reference_cost, reference_params, selection_epochs = 1.0, 10, 1

    def __init__(self, exponent: float, seed: int = 0, size: int = 4) -> None:
        self.space, self.rng, self.exponent = Box(size), np.random.default_rng(seed), exponent
        self.open_ended, self.evaluation_limit = False, None

    def evaluate(self, points, epochs=None, parents=None):  # noqa: ARG002
        out = []
        for point in points:
            first, *rest = point.values
            g = 1 + 9 * sum(rest) / len(rest)
            # Scaled so that the reference point (1, 1) lies beyond the front in both.
            out.append(Evaluation(point.key, first, 0.5 * g * (1 - (first / g) ** self.exponent), 1, 1))
        return out

    def retain(self, keys):
        pass

    def announce(self, points, epochs=None, parents=None):  # noqa: ARG002
        self.most_announced = max(len(points), getattr(self, "most_announced", 0))


@pytest.mark.parametrize(("exponent", "best"), [(0.5, 1 - 0.5 / 3), (2.0, 1 - 0.5 * 2 / 3)])
def test_the_known_fronts_of_zdt1_and_zdt2_are_found(exponent, best):
    """``best`` is the area above 0.5 (1 − x^exponent) in the unit square, by hand."""
    method = EvoApproxNas(
        Toy(exponent), EvoApproxNasConfig(population=60, offspring=60, generations=80, draws=1, margin=1.0)
    )
    while not method.finished:
        method.step()
    points = [objectives(i.evaluation)[:2] for i in method.population]
    assert moocore.hypervolume(np.array(points), ref=[1.0, 1.0]) >= 0.99 * best


def test_a_steady_state_finds_a_known_front_with_as_many_under_way_as_were_asked_for():
    toy = Toy(0.5)
    settings = {"population": 30, "offspring": 30, "generations": 40, "draws": 1, "margin": 1.0, "steady_state": 7}
    method, steps = EvoApproxNas(toy, EvoApproxNasConfig(**settings)), []
    while not method.finished:
        steps.append(method.step())
    assert (len(steps), steps[-1].total, len(method.seen)) == (1 + 30 * 40, 1 + 30 * 40, 30 + 30 * 40)
    assert (toy.most_announced, method.under_way) == (7, [])
    points = [objectives(i.evaluation)[:2] for i in method.population]
    assert moocore.hypervolume(np.array(points), ref=[1.0, 1.0]) >= 0.97 * (1 - 0.5 / 3)


@pytest.mark.parametrize("steady_state", [0, 3])
def test_any_space_with_sample_and_mutate_is_resumed_bit_for_bit(steady_state):
    settings = EvoApproxNasConfig(population=7, offspring=5, generations=9, draws=1, steady_state=steady_state)
    straight = EvoApproxNas(Toy(0.5), settings)
    for _ in range(10):
        straight.step()
    problem = Toy(0.5)
    first = EvoApproxNas(problem, settings)
    for _ in range(4):
        first.step()
    state, rng = json.loads(json.dumps(first.state_dict())), problem.rng.bit_generator.state
    problem = Toy(0.5)
    problem.rng.bit_generator.state = rng
    second = EvoApproxNas(problem, settings)
    second.load_state_dict(state)
    for _ in range(6):
        second.step()
    assert second.state_dict() == straight.state_dict()
    assert second.proposals() == straight.proposals()


# -- what DEAP gets wrong ----------------------------------------------------------------------------------------------


def test_in_deap_a_nan_dominates_and_here_it_is_the_worst():
    nan, good = Minimised((float("nan"), 1.0, 1.0)), Minimised((0.1, 1.0, 1.0))
    assert not good.dominates(nan)  # the trap: nothing is better than NaN
    for broken in (float("nan"), float("inf"), -float("inf")):
        poor = individual(broken)
        assert poor.fitness.values == WORST
        assert individual(0.99, 1e14, 10**9).fitness.dominates(poor.fitness)
    failed = dataclasses.replace(individual(0.0, 0.0, 0).evaluation, failure="out of memory")
    assert objectives(failed) == WORST


def test_in_deap_an_infinity_spoils_crowding_and_here_distances_are_numbers():
    fits = [Minimised((float(x), 3.0 - x, float("inf") if x == 1 else 1.0 + (x == 2))) for x in range(4)]
    crowd = [type("Bare", (), {"fitness": fit})() for fit in fits]
    tools.emo.assignCrowdingDist(crowd)
    assert any(np.isnan(i.fitness.crowding_dist) for i in crowd)  # the trap
    pool = [individual(0.1 * x, float("inf") if x == 3 else 10.0 - x) for x in range(6)]
    assert not any(np.isnan(i.fitness.crowding_dist) for i in survivors(pool, 6))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8, 11])
def test_a_tournament_returns_as_many_as_asked_for(count):
    population = survivors([individual(x / 16, 16.0 - x) for x in range(16)], 16)
    if count % 4:
        assert len(tools.selTournamentDCD(population, count)) != count  # the trap
    assert len(tournament(population, count, np.random.default_rng(0))) == count
    assert len(tournament(population[:1], count, np.random.default_rng(0))) == count


def test_nothing_draws_from_the_global_generators():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    method = EvoApproxNas(Toy(0.5), EvoApproxNasConfig(population=6, offspring=6, generations=3, draws=1))
    while not method.finished:
        method.step()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_a_resumed_search_does_not_repeat_a_generation():
    """DEAP's tutorial stores the generation before it is counted, so that its resumed run does it twice."""
    problem = Toy(0.5)
    method = EvoApproxNas(problem, EvoApproxNasConfig(population=4, offspring=4, generations=5, draws=1))
    for _ in range(3):
        method.step()
    again = EvoApproxNas(problem, method.config)
    again.load_state_dict(method.state_dict())
    assert again.step().step == 4


# -- selection ---------------------------------------------------------------------------------------------------------


def dominates(a: tuple, b: tuple) -> bool:
    return all(x <= y for x, y in zip(a, b)) and a != b


def test_survivors_come_front_by_front_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        pool = [individual(*(rng.integers(1, 6, 3) / 5).tolist(), key=str(n)) for n in range(14)]
        values = {i.key: objectives(i.evaluation) for i in pool}
        rank, left, level = {}, set(values), 0
        while left:
            front = {k for k in left if not any(dominates(values[o], values[k]) for o in left)}
            rank |= dict.fromkeys(front, level)
            left, level = left - front, level + 1
        for count in (1, 5, 9, 14):
            chosen = survivors(pool, count)
            assert len({i.key for i in chosen}) == count
            assert sorted(rank[i.key] for i in chosen) == sorted(rank.values())[:count]


def test_what_errs_far_more_than_the_best_survives_only_where_places_are_left():
    good = [individual(0.1, 9.0), individual(0.3, 5.0)]
    useless = [individual(0.9, 0.1), individual(0.5, 1.0), individual(0.7, 0.5)]
    assert {i.key for i in survivors([*useless, *good], 2, 0.2)} == {i.key for i in good}
    assert [i.key for i in survivors([*useless, *good], 4, 0.2)][2:] == [useless[1].key, useless[2].key]
    assert useless[0].key in {i.key for i in survivors([*useless, *good], 3, 1.0)}


def test_the_first_population_is_spread_over_cost():
    energies = {Point((x / 10,)): energy for x, energy in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 1000.0])}
    spread = spread_over_cost(list(energies), 3, energies.get, highest=16.0)
    assert [energies[point] for point in spread] == [1.0, 4.0, 16.0]
    few = [point for point in energies if energies[point] > 5]
    assert len(spread_over_cost(few, 9, energies.get, highest=16.0)) == 3
    toy = Toy(0.5)
    toy.cost_of, toy.reference_cost = lambda point: 1 + point.values[0], 1.5
    method = EvoApproxNas(toy, EvoApproxNasConfig(population=3, draws=20))
    found = [toy.cost_of(architecture) for architecture in method._first()]
    assert found == sorted(found) and abs(found[-1] - 1.5) < 0.1 and found[0] < 1.1


def test_crowding_distances_by_hand_and_of_the_survivors_alone():
    line = [individual(0.0, 1.0), individual(0.25, 0.5), individual(0.5, 0.25), individual(1.0, 0.0)]
    measure_crowding(line)
    # Per objective (next − previous) / (3 objectives · range); parameters are all equal and count nothing.
    assert [i.fitness.crowding_dist for i in line[1:3]] == pytest.approx([(0.5 + 0.75) / 3, (0.75 + 0.5) / 3])
    assert line[0].fitness.crowding_dist == line[3].fitness.crowding_dist == float("inf")
    chosen = survivors(line, 3)
    kept = [i.fitness.crowding_dist for i in chosen]
    measure_crowding(chosen)
    assert [i.fitness.crowding_dist for i in chosen] == kept


def test_tournaments_prefer_the_dominating_then_the_less_crowded():
    strong, weak = individual(0.1), individual(0.2)
    for i in (strong, weak):
        i.fitness.crowding_dist = 0.0
    rng = np.random.default_rng(0)
    assert set(map(id, tournament([strong, weak], 20, rng))) == {id(strong)}
    lonely, crowded = individual(0.1, 2.0), individual(0.2, 1.0)
    lonely.fitness.crowding_dist, crowded.fitness.crowding_dist = 2.0, 1.0
    assert set(map(id, tournament([lonely, crowded], 20, rng))) == {id(lonely)}


def test_fitness_is_no_class_made_at_run_time():
    assert Minimised.__module__ == "methods.nsga2"
    assert issubclass(Minimised, base.Fitness) and Minimised.weights == (-1.0, -1.0, -1.0)


# -- cheap evaluation --------------------------------------------------------------------------------------------------


@pytest.fixture
def problem() -> SearchProblem:
    return tiny.problem("evoapproxnas", space="grid", space_config={"rows": 2, "columns": 4, "levels_back": 4})


def pair(problem: SearchProblem, seed: int = 0):
    """A parent and a child that share at least one block."""
    rng = np.random.default_rng(seed)
    while True:
        parent = problem.space.sample(rng)
        child = problem.space.mutate(parent, rng)
        if len(problem.space.inherited(child, parent, problem.shape)) > 1:
            return parent, child


def test_silent_mutations_cost_nothing_and_are_counted_apart(problem):
    rng = np.random.default_rng(0)
    architecture = problem.space.sample(rng)
    silent = architecture
    while silent == architecture:
        silent = problem.space.drift(architecture, rng)
    first, second = problem.evaluate([architecture])[0], problem.evaluate([silent])[0]
    assert first is second
    assert (len(problem.searched.trials), problem.searched.hits) == (1, 1)


def test_a_child_starts_from_the_weights_of_unchanged_nodes(problem):
    parent, child = pair(problem)
    problem.evaluate([parent], parents=[None])
    weights = {name: value.clone() for name, value in problem.searched.trained[parent.key].weights.items()}
    network = problem.space.build(child, problem.shape)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    modules = problem.space.inherited(child, parent, problem.shape)
    inherit(network, weights, modules)
    changed = 0
    for name, value in network.state_dict().items():
        own = next((m for m in modules if name.startswith(m + ".")), None)
        theirs = weights.get(modules[own] + name[len(own) :]) if own else None
        if theirs is not None and torch.equal(value, theirs):
            changed += not torch.equal(value, fresh[name])
        else:
            assert torch.equal(value, fresh[name])
    assert changed


def test_a_node_of_another_width_keeps_its_own_values():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {
        "0.weight": torch.ones(3, 5),
        "0.bias": torch.ones(3),
        "1.weight": torch.ones(2, 3),
        "1.bias": torch.ones(2),
    }
    inherit(network, weights, {"0": "0", "1": "1", "2": "9"})
    assert torch.equal(network[0].weight, before["0.weight"])
    assert torch.equal(network[0].bias, before["0.bias"])
    assert torch.equal(network[1].weight, torch.ones(2, 3))


def test_inheritance_helps_and_can_be_turned_off(problem):
    """A child that differs in one circuit only starts where its parent stands: with no training left, equally good."""
    parent, _ = pair(problem)
    good = problem.evaluate([parent], epochs=6, parents=[None])[0]
    job = Job(parent, "search", problem.config.seed, 6, problem.searched.trained[parent.key])
    from_parent = candidates.trained_network(job, problem.conditions)
    kept = problem.searched.trained[parent.key].weights
    assert all(torch.equal(value, kept[name]) for name, value in from_parent.state_dict().items())
    alone = tiny.problem("evoapproxnas", space="grid", space_config={"rows": 2, "columns": 4, "levels_back": 4})
    assert alone.evaluate([parent], epochs=6)[0] == good
    assert not alone.searched.trained


def test_weights_are_forgotten_but_for_those_retained(problem):
    parent, child = pair(problem)
    problem.evaluate([parent, child], parents=[None, parent])
    problem.retain([child.key, "unknown"])
    assert list(problem.searched.trained) == [child.key]


@pytest.mark.parametrize("space", ["grid", "cells"])
def test_the_problem_survives_a_stop_with_its_weights(space):
    one = tiny.problem("evoapproxnas", space=space)
    rng = np.random.default_rng(0)
    parent = one.space.sample(rng)
    child = one.space.mutate(parent, rng)
    one.evaluate([parent], parents=[None])
    state = one.state_dict()
    two = tiny.problem("evoapproxnas", space=space)
    two.load_state_dict(state)
    assert one.evaluate([child], parents=[parent]) == two.evaluate([child], parents=[parent])
    orphan = tiny.problem("evoapproxnas", space=space)
    assert orphan.evaluate([child], parents=[parent])[0].key == child.key


def test_successive_halving_never_mixes_fidelities():
    asked = []
    toy = Toy(0.5)
    plain = toy.evaluate

    def evaluate(points, epochs=None, parents=None):  # noqa: ARG001
        asked.append((len(points), epochs))
        return [dataclasses.replace(e, epochs=epochs) for e in plain(points)]

    toy.evaluate = evaluate
    method = EvoApproxNas(toy, EvoApproxNasConfig(population=4, offspring=4, generations=3, epochs=8, rungs=3, draws=1))
    while not method.finished:
        method.step()
    assert asked[0] == (4, 8)
    assert asked[1:4] == [(16, 2), (8, 4), (4, 8)]
    assert {i.evaluation.epochs for i in (*method.population, *method.archive)} == {8}


def test_a_rung_goes_on_where_the_one_before_stopped(problem, monkeypatch):
    parent, _ = pair(problem)
    problem.evaluate([parent], epochs=2, parents=[None])
    trained = []
    plain = candidates.trained_network

    def watched(job, conditions):
        trained.append((job.epochs, job.parent.epochs))
        return plain(job, conditions)

    monkeypatch.setattr(candidates, "trained_network", watched)
    problem.evaluate([parent], epochs=4, parents=[parent])
    assert trained == [(4, 2)]
    assert {e.epochs for e in problem.searched.full_fidelity()} == {4}
    assert len(problem.searched.trials) == 2


def test_judging_knows_nothing_of_the_search(problem):
    parent, _ = pair(problem)
    searched = problem.evaluate([parent], parents=[None])[0]
    judged = problem.judge([parent])[0]
    again = tiny.problem("evoapproxnas", space="grid", space_config={"rows": 2, "columns": 4, "levels_back": 4})
    assert again.judge([parent]) == [judged]
    assert (judged.cost, judged.params) == (searched.cost, searched.params)
    assert problem.judge([parent]) == [judged]


# -- when things go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("no memory"), "out of memory"),
        (RuntimeError("CUDA out of memory"), "out of memory"),
        (TypeError("odd"), "odd"),
        (FloatingPointError("nan"), "nan"),
    ],
)
def test_a_candidate_that_fails_is_recorded_and_the_search_goes_on(problem, monkeypatch, error, reason):
    plain = candidates.trained_network
    calls = iter(range(1000))

    def unreliable(*arguments):
        if next(calls) % 3 == 1:
            raise error
        return plain(*arguments)

    monkeypatch.setattr(candidates, "trained_network", unreliable)
    method = EvoApproxNas(problem, EvoApproxNasConfig(**tiny.SMALL["evoapproxnas"]))
    failed = 0
    while not method.finished:
        failed += method.step().diagnostics["failed"]
    assert failed > 0
    broken = [e for e in problem.searched.evaluations if e.failure]
    assert len(broken) == failed and all(reason in e.failure for e in broken)
    assert all(problem.searched.trials[e.key, e.epochs].seconds > 0 for e in broken)
    proposed = {architecture.key for architecture in method.proposals()}
    assert proposed and not proposed & {e.key for e in broken}


def test_when_everything_fails_nothing_is_proposed(problem, monkeypatch):
    def broken(*_):
        raise FloatingPointError("no")

    monkeypatch.setattr(candidates, "trained_network", broken)
    method = EvoApproxNas(problem, EvoApproxNasConfig(**tiny.SMALL["evoapproxnas"]))
    report = method.step()
    assert method.proposals() == [] and np.isfinite(report.cost)


def test_a_small_space_is_exhausted_rather_than_searched_forever():
    """One node and one circuit: 18 functions of one source, the sum and the concatenation of two images."""
    grid = {"space": "grid", "space_config": {"rows": 1, "columns": 1, "levels_back": 1}}
    small = tiny.problem("evoapproxnas", **grid, multipliers=("mul8s_1KV8",), budget="1h")
    small.evaluate = lambda drawn, *_: [Evaluation(a.key, 0.5, 1.0, 1, 1) for a in drawn]
    method = EvoApproxNas(small, EvoApproxNasConfig(population=4, offspring=4))
    while not method.finished:
        assert method.step().step < 100
    assert len(method.seen) == 20


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"population": 1}, "at least 2"),
        ({"offspring": 0}, "one child"),
        ({"epochs": -1}, "-1 epochs"),
        ({"rungs": 40}, "fewer rungs"),
        ({"draws": 0}, "one draw"),
        ({"margin": 1.5}, "between 0 and 1"),
        ({"steady_state": -1}, "cannot have -1 children"),
        ({"steady_state": 2, "rungs": 2}, "use one rung"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, expected):
    with pytest.raises(InputError, match=expected):
        EvoApproxNasConfig(**settings)


def test_more_rungs_than_epochs_and_budgets_below_a_generation_are_refused(problem):
    with pytest.raises(InputError, match="rungs need at least 4 epochs"):
        EvoApproxNas(problem, EvoApproxNasConfig(epochs=3, rungs=3))
    small = tiny.problem("evoapproxnas", budget="5evals")
    with pytest.raises(InputError, match="below the first population"):
        EvoApproxNas(small, EvoApproxNasConfig(population=6))


def test_a_population_never_holds_one_network_twice(problem):
    method = EvoApproxNas(problem, EvoApproxNasConfig(population=6, offspring=6, generations=4, epochs=1))
    while not method.finished:
        method.step()
        keys = [i.key for i in method.population]
        assert len(set(keys)) == len(keys)
        assert set(problem.searched.trained) <= set(keys)
        assert all(i.architecture.key == i.key for i in method.population)
