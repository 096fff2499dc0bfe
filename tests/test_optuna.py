"""Optuna's samplers as a method: what they suggest, what they are told, and what a study that was made again knows."""

import sys

import numpy as np
import pytest

from methods.method import Evaluation
from methods.optuna_search import SAMPLERS, OptunaConfig, OptunaSearch
from spaces.errors import InputError
from tests import tiny
from tests.method_contract import same, through_a_file

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'approxnas-bench[optuna]'")


def search(sampler: str, space: str = "bench", **settings) -> OptunaSearch:
    """For networks whose error and cost are shown by a table: the share of edges that skip, and of others."""
    problem = tiny.problem("optuna", space=space)

    def computing(architecture):
        return float(np.mean(["conv" in edge.operation for edge in problem.space.edges(architecture)]))

    problem.cost_of = lambda architecture: 1 + computing(architecture)
    problem.evaluate = lambda drawn: [Evaluation(a.key, 1 - computing(a), problem.cost_of(a), 1, 1) for a in drawn]
    return OptunaSearch(
        problem, OptunaConfig(sampler=sampler, **{"samples": 8, "starts": 3, "population": 4} | settings)
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_is_made_again_suggests_what_the_first_would_have(sampler):
    straight = search(sampler)
    while not straight.finished:
        straight.step()
    first = search(sampler)
    for _ in range(5):
        first.step()
    saved = through_a_file({"method": first.state_dict(), "rng": str(first.problem.rng.bit_generator.state)})
    second = search(sampler)
    second.load_state_dict(saved["method"])
    second.problem.rng.bit_generator.state = first.problem.rng.bit_generator.state
    while not second.finished:
        second.step()
    assert [*second.architectures] == [*straight.architectures] and len(straight.architectures) == 8
    assert same(second.state_dict(), straight.state_dict())


def test_a_sampler_is_told_error_and_cost_and_of_what_is_known_at_once():
    method = search("nsga2", samples=40)
    while not method.finished:
        method.step()
    trials = method.study.get_trials()
    assert len(trials) > len(method.evaluations)  # some were suggested twice
    for trial, key in zip(trials, method.keys):
        evaluation = method.evaluations[key]
        assert trial.values == [evaluation.error, evaluation.cost] and trial.state.is_finished()
        assert method.problem.space.decided({**method.settled, **trial.params}).key == key
    assert max(trial.system_attrs.get("NSGAIISampler:generation", 0) for trial in trials) > 5


def test_failures_are_told_as_errors_of_one_at_a_cost_that_can_be():
    method = search("tpe")
    method.problem.evaluate = lambda drawn: [Evaluation(a.key, 1.0, 1e15, 0, 0, "broken") for a in drawn]
    method.step()
    (trial,) = method.study.get_trials()
    (architecture,) = method.architectures.values()
    assert trial.values == [1.0, method.problem.cost_of(architecture)]


def test_a_model_finds_more_than_chance():
    """With one objective in fact: the cost is always the same."""
    found = {}
    for sampler in ("tpe", "random"):
        method = search(sampler, space="cells", samples=40, starts=10)
        method.problem.cost_of = lambda _: 1.0
        while not method.finished:
            method.step()
        found[sampler] = np.mean([evaluation.error for evaluation in method.evaluations.values()][-20:])
    assert found["tpe"] < 0.8 * found["random"]


def test_a_space_without_decisions_and_unknown_samplers_are_refused():
    problem = tiny.problem("optuna")
    problem.space.decisions = dict
    with pytest.raises(InputError, match=r"lists its decisions \(cells or grid or bench\), not 'cells'"):
        OptunaSearch(problem, OptunaConfig())
    with pytest.raises(InputError, match="unknown sampler of Optuna 'tpee'; did you mean tpe"):
        OptunaConfig(sampler="tpee")


def test_without_optuna_or_its_sampler_a_line_says_what_to_do(monkeypatch):
    monkeypatch.delattr(optuna.samplers, "GPSampler")
    with pytest.raises(InputError, match=r"has no GPSampler: pip install --upgrade optuna, or take another"):
        search("gp")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'approxnas-bench\[optuna\]'"):
        search("tpe")
