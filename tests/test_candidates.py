"""The evaluation of candidates: results that do not depend on order, place or interruption, and what they cost."""

import dataclasses
import hashlib
from collections import deque

import numpy as np
import pytest

from evaluation.runs.record import Judged
from evaluation.runs.recording import unequal_epochs
from evaluation.searching import candidates
from evaluation.searching.candidates import Job, Result
from evaluation.searching.evaluators import EVALUATORS
from evaluation.searching.executors import EXECUTORS
from evaluation.searching.executors.serial import Serial
from methods.evoapproxnas import EvoApproxNas, EvoApproxNasConfig
from methods.method import Evaluation
from spaces.errors import InputError
from tests import tiny
from tests.method_contract import through_a_file
from tests.running import finished_run, resume, stopped_run, without_times

SECONDS = 10.0  # of every job, as the table says


class Table:
    """An evaluator that answers from a dictionary, and notes what it was asked."""

    asked: list[str]

    def __init__(self, conditions) -> None:
        self.conditions, self.rows = conditions, {}

    def evaluate(self, job: Job) -> Result:
        Table.asked.append(job.architecture.key)
        key = job.architecture.key
        error = self.rows.setdefault(key, int(hashlib.sha256(key.encode()).hexdigest()[:4], 16) / 2**16)
        evaluation = Evaluation(key, error, *self.conditions.costs(job.architecture), epochs=job.epochs)
        return Result(evaluation, SECONDS)


class Shuffled(Serial):
    """An executor that ends its jobs in the order of their keys, which are hash sums."""

    def next(self):
        self.queue = deque(sorted(self.queue, key=lambda entry: entry[1].architecture.key))
        return super().next()


class Ahead(Shuffled):
    """One that takes several jobs at once, so that methods announce theirs."""

    parallel = 3


@pytest.fixture(autouse=True)
def registered():
    """The doubles, each under a name: all that one more needs."""
    Table.asked = []
    with (
        EVALUATORS.temporarily("table", Table),
        EXECUTORS.temporarily("shuffled", Shuffled),
        EXECUTORS.temporarily("ahead", Ahead),
    ):
        yield


GRID = {"space": "grid", "space_config": {"rows": 2, "columns": 4, "levels_back": 4}}
QUICK_END = dataclasses.replace(tiny.PROTOCOL, finalists=1, final_epochs=1)
TABULAR = {"evaluator": "table", "baselines": "none", "protocol": QUICK_END}


def family(problem):
    """A parent and a child that starts from its weights."""
    rng = np.random.default_rng(0)
    while True:
        parent = problem.space.sample(rng)
        child = problem.space.mutate(parent, rng)
        if child.key != parent.key and len(problem.space.inherited(child, parent, problem.shape)) > 1:
            return parent, child


def test_a_table_takes_the_place_of_training(monkeypatch):
    monkeypatch.setattr(candidates, "train", None)
    problem = tiny.problem("evoapproxnas", evaluator="table")
    method = EvoApproxNas(problem, EvoApproxNasConfig(**tiny.SMALL["evoapproxnas"]))
    while not method.finished:
        method.step()
    assert method.proposals() and len(problem.searched.trials) == len(Table.asked) == 7
    assert problem.searched.seconds == 7 * SECONDS
    assert [e.key for e in problem.searched.evaluations] == Table.asked


@pytest.mark.parametrize("name", ["evoapproxnas", "random"])
def test_a_batch_may_end_in_any_order(name, tmp_path):
    records = [
        finished_run(tmp_path, tiny.run_config(name, executor=executor, **TABULAR))[1]
        for executor in ("serial", "shuffled")
    ]
    assert without_times(records[0]) == without_times(records[1])


def test_trained_candidates_are_the_same_in_any_order():
    problems = [tiny.problem("evoapproxnas", executor=executor, **GRID) for executor in ("serial", "shuffled")]
    rng = np.random.default_rng(1)
    drawn = [problems[0].space.sample(rng) for _ in range(4)]
    first, second = (problem.evaluate(drawn) for problem in problems)
    assert first == second == [problems[0].searched.trials[a.key, 1].evaluation for a in drawn]
    assert list(problems[0].searched.trials) == list(problems[1].searched.trials)


def test_a_child_waits_for_the_parent_in_its_batch():
    straight = tiny.problem("evoapproxnas", **GRID)
    parent, child = family(straight)
    expected = [*straight.evaluate([child], parents=[None]), *straight.evaluate([parent], parents=[None])]
    inherited = tiny.problem("evoapproxnas", **GRID)
    inherited.evaluate([parent], parents=[None])
    (of_weights,) = inherited.evaluate([child], parents=[parent])
    assert of_weights != expected[0]  # the weights make a difference
    for executor in ("serial", "shuffled"):
        problem = tiny.problem("evoapproxnas", executor=executor, **GRID)
        assert problem.evaluate([child, parent], parents=[parent, None]) == [of_weights, expected[1]]


def test_children_tell_for_how_long_their_weights_were_trained():
    problem = tiny.problem("evoapproxnas", **GRID)
    parent, child = family(problem)
    grandchild = problem.space.mutate(child, np.random.default_rng(5))
    found = problem.evaluate([parent], parents=[None]) + problem.evaluate([child], 2, parents=[parent])
    again = tiny.problem("evoapproxnas", **GRID)
    again.load_state_dict(through_a_file(problem.state_dict()))
    found += again.evaluate([grandchild], parents=[child]) + again.evaluate([child], 3, parents=[child])
    assert [(e.epochs, e.inherited, e.epochs_in_all) for e in found] == [(1, 0, 1), (2, 1, 3), (1, 3, 4), (3, 1, 4)]
    assert again.evaluate([parent], 2)[0].epochs_in_all == 2  # from scratch


def test_a_record_says_that_errors_on_inherited_weights_are_not_comparable():
    judged = [Judged(str(at), 1.0, (0.5,), searched_epochs=epochs) for at, epochs in enumerate((3, 17, None))]
    (note,) = unequal_epochs(judged)
    assert "3 to 17 epochs in all" in note
    assert unequal_epochs([judged[0], judged[0], judged[2]]) == unequal_epochs([]) == []


def test_a_result_depends_on_the_job_alone():
    one, other = tiny.problem("evoapproxnas", **GRID), tiny.problem("random", **GRID)
    parent, child = family(one)
    other.evaluate([parent])  # something else before
    jobs = [Job(child, "search", seed, 1) for seed in (0, 0, 1)]
    found = [candidates.train(job, p.conditions) for job, p in zip(jobs, (one, other, one))]
    assert found[0].evaluation == found[1].evaluation
    assert found[2].evaluation.error != found[0].evaluation.error


@pytest.mark.parametrize("saves", [1, 2, 3, 4, 6])
def test_a_run_killed_after_a_candidate_goes_on_with_the_next(saves, tmp_path):
    """The first population are three candidates: saved one by one, then with their step."""
    config = tiny.run_config("evoapproxnas", **TABULAR)
    _, whole = finished_run(tmp_path / "whole", config)
    asked, Table.asked = Table.asked, []
    folder = stopped_run(tmp_path / "stopped", config, saves)
    before = len(Table.asked)
    assert before == {1: 1, 2: 2, 3: 3, 4: 3, 6: 5}[saves]
    record = resume(folder)
    assert sorted(Table.asked) == sorted(asked)  # none twice
    assert without_times(record) == without_times(whole)
    assert record.search_training_seconds == whole.search_training_seconds == 7 * SECONDS


def test_a_steady_state_gives_one_record_in_any_order_and_after_any_stop(tmp_path):
    """Its children start from their parents' weights, of which some have left the population when it is resumed."""
    settings = tiny.method_config("evoapproxnas") | {"generations": 4, "steady_state": 3}
    config = tiny.run_config("evoapproxnas", method_config=settings, baselines="none", protocol=QUICK_END, **GRID)
    _, whole = finished_run(tmp_path, config)
    assert whole.evaluations == 3 + 2 * 4
    for executor, saves in (("ahead", 0), ("ahead", 9), ("serial", 16)):
        here = dataclasses.replace(config, executor=executor)
        record = resume(stopped_run(tmp_path, here, saves)) if saves else finished_run(tmp_path, here)[1]
        assert without_times(record) == without_times(whole)


def test_a_steady_state_ends_with_its_budget_and_proposes_nothing_that_was_not_evaluated(tmp_path):
    settings = tiny.method_config("evoapproxnas") | {"steady_state": 4}
    for budget, executor in (("9evals", "serial"), ("9evals", "ahead"), ("85s", "serial")):
        config = tiny.run_config("evoapproxnas", method_config=settings, executor=executor, budget=budget, **TABULAR)
        record = finished_run(tmp_path, config)[1]
        # Of 85 seconds, 70 for candidates, and 10 for each of two proposals, which are judged.
        assert record.evaluations == {"9evals": 9, "85s": 7}[budget]
        assert record.finalists


@pytest.mark.parametrize("saves", [0, 1, 2])
@pytest.mark.parametrize("name", ["evoapproxnas", "random"])
def test_a_budget_of_time_is_exceeded_by_one_candidate_and_its_judging_at_most(name, saves, tmp_path):
    """Every training takes ten seconds, be it of a candidate or, in the end, of a proposal."""
    settings = {"batch": 5} if name == "random" else {"population": 6}
    config = tiny.run_config(name, budget="85s", **TABULAR)
    config = dataclasses.replace(config, method_config={**config.method_config, **settings})
    record = resume(stopped_run(tmp_path, config, saves)) if saves else finished_run(tmp_path, config)[1]
    assert record.finalists
    search, selection = (record.ledger[stage].device_seconds for stage in ("search", "selection"))
    assert record.evaluations == search // SECONDS
    assert 85 <= search + selection < 85 + 2 * SECONDS + record.ledger["search"].wall_seconds
    assert selection >= SECONDS


def test_a_step_out_of_time_gives_the_first_of_its_batch_whichever_ended_first():
    problem = tiny.problem("random", evaluator="table", executor="shuffled", budget="1h")
    drawn = {a.key: a for a in (problem.space.sample(np.random.default_rng(seed)) for seed in range(6))}
    batch = [drawn[key] for key in sorted(drawn, reverse=True)]  # the executor begins with the last
    problem.searched.out_of_time = lambda: True
    with problem.repeatable_step():
        given = problem.evaluate(batch)
    assert [e.key for e in given] == [batch[0].key]
    assert Table.asked == [batch[0].key]


def test_a_generation_whose_time_ends_between_two_rungs_has_no_newcomers():
    problem = tiny.problem("evoapproxnas", evaluator="table", budget="1h")
    method = EvoApproxNas(problem, EvoApproxNasConfig(population=2, offspring=2, rungs=3, epochs=4))
    method.step()
    problem.searched.out_of_time = lambda: True
    with problem.repeatable_step():
        report = method.step()
    assert report.diagnostics["newcomers"] == 0
    assert method.proposals()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.1, 1.5])
def test_an_error_that_cannot_be_is_a_failure(number):
    problem = tiny.problem("evoapproxnas", evaluator="table")
    architecture = problem.space.sample(np.random.default_rng(0))
    problem.work.evaluator.rows[architecture.key] = number
    (found,) = problem.evaluate([architecture])
    assert found.error == 1.0
    assert str(number) in found.failure


def test_jobs_in_this_process_take_no_more_device_time_than_there_was(tmp_path):
    _, record = finished_run(tmp_path, tiny.run_config("random", baselines="none"))
    search = record.ledger["search"]
    assert record.search_training_seconds <= search.device_seconds
    assert search.device_seconds == pytest.approx(search.wall_seconds, rel=0.05)


@pytest.mark.parametrize("choice", ["evaluator", "executor", "task"])
def test_an_unknown_one_is_refused_with_a_suggestion(choice):
    near = {"evaluator": "trainin", "executor": "seria", "task": "image_classificatio"}[choice]
    with pytest.raises(InputError, match=f"did you mean {near[:9]}"):
        tiny.problem(**{choice: near})
