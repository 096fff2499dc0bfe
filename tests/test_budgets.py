"""Trained work: counted as layers compute it, booked by stage, and kept to as a budget, whatever it is that spends it."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from evaluation.runs.folder import HISTORY, read_history
from evaluation.runs.record import MEASURING, Record
from evaluation.runs.recording import rank_correlations
from evaluation.searching.evaluators import EVALUATORS
from evaluation.searching.executors import EXECUTORS
from evaluation.searching.executors.serial import Serial
from methods.random_search import RandomSearch
from spaces import work
from spaces.costs.trace import total_macs, trace
from spaces.graphed_step import WARM, GraphedStep
from tests import tiny
from tests.evaluators import NoOp
from tests.running import finished_run, resume, stopped_run, without_times
from tests.tape import TapeRecorder

IMAGES, ALL = 60, 120  # of the tiny problem: in its training part, and in both
SHORT = dataclasses.replace(tiny.PROTOCOL, finalists=1, final_epochs=1)
GRID = {"space": "grid", "space_config": {"rows": 2, "columns": 4, "levels_back": 4}}
QUICKLY = {"evaluator": "noop", "baselines": "none", "protocol": SHORT, **GRID}


class Backwards(Serial):
    """Has room for four jobs, and ends the last one first."""

    parallel = 4

    def next(self):
        self.queue.rotate(1)
        return super().next()


@pytest.fixture(autouse=True)
def registered():
    with EVALUATORS.temporarily("noop", NoOp), EXECUTORS.temporarily("backwards", Backwards):
        yield


# -- counting ----------------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    """27 × 4 × 16 = 1,728 MACs, and 64 × 3 = 192, for an image (3, 4, 4)."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def test_a_pass_counts_three_times_with_gradients_and_once_without():
    net, images = network(), torch.randn(5, 3, 4, 4)
    net(images)  # outside
    with work.counting() as counted:
        net(images)
        assert counted.macs == 3 * 5 * (1728 + 192)
        with torch.no_grad():
            net(images)
        assert counted.macs == 4 * 5 * (1728 + 192)
        with work.paused():
            net(images)
            trace(net, (3, 4, 4), integer=False)
        trace(net, (3, 4, 4), integer=False)
        assert counted.macs == 4 * 5 * (1728 + 192)
    net(images)
    assert counted.macs == 4 * 5 * (1728 + 192)


def test_a_replayed_step_counts_as_the_step_itself():
    counts = []
    for recorder in (None, TapeRecorder()):
        net = network()
        step = GraphedStep(lambda images, net=net: net(images).sum().backward(), [], recorder)
        with work.counting() as counted:
            for size in (4, 4, 4, 4, 2, 4, 4):
                step(torch.randn(size, 3, 4, 4))
        counts.append(counted.macs)
    assert recorder.replayed == 6 - WARM
    assert counts == [3 * 26 * 1920.0] * 2


def test_a_supernet_counts_what_it_computes():
    """Of first order: every batch of both parts once, with gradients; the control that samples computes less."""
    spent = {}
    for relaxation in ("softmax", "gumbel"):
        problem = tiny.problem("approxdarts")
        cls, settings = tiny.METHODS["approxdarts"], tiny.method_config("approxdarts")
        method = cls(problem, cls.Config(**settings | {"relaxation": relaxation, "warmup": 0}))
        with problem.repeatable_step():
            method.step()
        spent[relaxation] = problem.search_work
        if relaxation == "softmax":
            macs = total_macs(trace(method.net, problem.shape.input_shape, integer=True))
            assert problem.search_work == 3 * macs * 2 * IMAGES
    assert 0 < spent["gumbel"] < 0.6 * spent["softmax"]


# -- booking -----------------------------------------------------------------------------------------------------------


def test_every_stage_is_booked_with_what_it_trained(tmp_path):
    folder, record = finished_run(tmp_path, tiny.run_config("random", snapshots=1, baselines="none"))
    lines = read_history(folder.path / HISTORY)
    final = sum(3 * finalist.macs * ALL * 2 for finalist in record.finalists)
    assert record.ledger["final"].work == final and record.ledger["test"].work == 0
    search, selection = record.ledger["search"].work, record.ledger["selection"].work
    assert lines[-1]["work"] == search + selection + final
    assert record.account.spent == search + selection and record.account.unit == "MAC"
    assert search % (3 * IMAGES) == 0 and 0 < selection <= search
    assert record.anytime[-1].work == search and record.anytime[-1].judging_work == selection
    assert record.ledger[MEASURING].work == record.anytime[0].judging_work
    assert Record.from_json(record.to_json()) == record


def test_a_child_that_goes_on_counts_the_epochs_that_were_missing():
    problem = tiny.problem("evoapproxnas", space="grid", evaluator="noop")
    one = problem.space.sample(problem.rng)
    macs = problem.costs(one)[2]
    problem.evaluate([one], 2, [None])
    assert problem.search_work == 3 * macs * IMAGES * 2
    problem = tiny.problem("evoapproxnas", space="grid")
    problem.evaluate([one], 2, [None])
    problem.evaluate([one], 3, [one])
    problem.evaluate([one], 3, [one])  # known
    assert problem.search_work == 3 * macs * IMAGES * 3


# -- keeping to it -----------------------------------------------------------------------------------------------------


def spent_at_most_one_candidate_more(record: Record, granted: float) -> None:
    """By one candidate, and, as it may be proposed, by its judging."""
    largest = 3 * IMAGES * max(finalist["macs"] for finalist in (vars(each) for each in record.finalists))
    spent = record.ledger["search"].work + record.ledger["selection"].work
    assert (record.account.spent, record.account.granted) == (spent, granted)
    assert granted <= spent <= granted + 3 * largest


@pytest.mark.parametrize("name", ["random", "evoapproxnas"])
def test_a_budget_of_work_holds_and_is_the_same_whatever_was_at_work(name, tmp_path):
    """Also where it ends within the first population, or in the middle of a batch; and after a kill."""
    settings = {"batch": 5} if name == "random" else {"population": 8}
    config = tiny.run_config(name, budget="9e7macs", **QUICKLY)
    config = dataclasses.replace(config, method_config={**config.method_config, **settings})
    _, record = finished_run(tmp_path / "a", config)
    spent_at_most_one_candidate_more(record, 9e7)
    other = dataclasses.replace(config, executor="backwards")
    found = [finished_run(tmp_path / "b", other)[1], resume(stopped_run(tmp_path / "c", config, 3))]
    for each in found:
        assert without_times(each) == without_times(record)
        assert each.ledger["search"].work == record.ledger["search"].work


def test_a_supernet_stops_within_an_epoch(tmp_path):
    """A batch is what it exceeds its budget by."""
    _, whole = finished_run(tmp_path / "a", tiny.run_config("approxdarts", baselines="none", protocol=SHORT))
    searched, judged = whole.ledger["search"].work, whole.ledger["selection"].work
    granted = 0.5 * searched + judged
    config = tiny.run_config("approxdarts", budget=f"{granted:.0f}macs", baselines="none", protocol=SHORT)
    _, record = finished_run(tmp_path / "b", config)
    batches = 3 * (3 + 2 * 3)  # of three epochs, the first of which is a warm-up
    assert record.account.granted == pytest.approx(granted, rel=1e-6)
    assert granted <= record.account.spent <= granted + 2 * searched / batches + 2 * judged
    assert record.ledger["search"].work < 0.9 * searched


def test_a_network_is_judged_by_several_trainings(tmp_path):
    """Its error is their mean, each has random numbers of its own, and all are booked; a checkpoint keeps them."""
    protocol = dataclasses.replace(SHORT, judgements=3)
    longer = [dataclasses.replace(each, selection_epochs=4) for each in (SHORT, protocol)]
    problems = [tiny.problem(protocol=each) for each in longer]
    drawn = [problems[0].space.sample(problems[0].rng) for _ in range(2)]
    (once, _), found = problems[0].judge(drawn), problems[1].judge(drawn)
    errors = {e.key: [trial.evaluation.error for trial in problems[1].judged.known(e.key)] for e in found}
    assert all(evaluation.error == pytest.approx(sum(errors[evaluation.key]) / 3) for evaluation in found)
    assert max(len(set(each)) for each in errors.values()) == 3
    assert once.error == problems[1].judged.known(drawn[0].key)[0].evaluation.error
    assert problems[1].judged.of(drawn[0].key).work == 3 * problems[0].judged.of(drawn[0].key).work
    assert protocol.hash != SHORT.hash == dataclasses.replace(protocol, judgements=1).hash
    config = tiny.run_config("random", **QUICKLY | {"protocol": protocol}, snapshots=1)
    _, record = finished_run(tmp_path / "a", config)
    assert without_times(resume(stopped_run(tmp_path / "b", config, 8))) == without_times(record)
    assert record.anytime[-1].judging_work == record.ledger["selection"].work > 0
    assert all(len(each.errors) == 3 for each in record.judged)


def test_what_a_search_believed_is_ranked_against_what_was_judged(tmp_path, monkeypatch):
    """By all pairs: concordant less discordant ones."""
    monkeypatch.setattr(
        RandomSearch, "signals", lambda self: {"luck": dict.fromkeys(self.evaluations, 0.5)}, raising=False
    )
    settings = tiny.method_config("random") | {"samples": 60, "batch": 60}
    config = tiny.run_config("random", method_config=settings, evaluator="noop", baselines="none", protocol=SHORT)
    _, record = finished_run(tmp_path, config)
    assert len(record.judged) >= 3 and record.rank_correlations["luck"] is None
    assert {tuple(each.signals) for each in record.judged} == {("search error", "cost", "luck")}
    for name in ("search error", "cost"):
        pairs = [
            math.copysign(1, (a.signals[name] - b.signals[name]) * (a.errors[0] - b.errors[0]))
            for a, b in itertools.combinations(record.judged, 2)
        ]
        assert record.rank_correlations[name] == pytest.approx(sum(pairs) / len(pairs))
    assert record.rank_correlations["search error"] == pytest.approx(1.0)  # the evaluator knows no chance
    assert rank_correlations(record.judged[:2]) == {"search error": None, "cost": None, "luck": None}
