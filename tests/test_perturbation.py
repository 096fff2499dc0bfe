"""Selection by perturbation: against a loss of which it is known what every option is worth, and in a search."""

import dataclasses

import numpy as np
import pytest
import torch

from methods.approxdarts import ApproxDarts, ApproxDartsConfig
from methods.perturbation import Perturbation
from spaces.errors import InputError
from spaces.space import Choice
from tests import tiny
from tests.method_contract import same, through_a_file
from tests.running import finished_run

CHOICES = {
    "alpha": Choice(("none", "a", "b", "c"), {"edges": np.arange(3)}, hidden=1),
    "beta": Choice(("exact", "coarse"), {"edges": np.arange(3)}, multipliers=True),
}
# What each option takes off the loss; between the first two rows it matters what the other one keeps.
WORTH = torch.tensor([[9.0, 0.3, 0.1, 0.2], [9.0, 0.1, 0.2, 0.7], [9.0, 0.4, 0.5, 0.3]], dtype=torch.float64)


def loss(weights):
    alpha = weights["alpha"].double()
    both = alpha[0, 2] * alpha[1, 2]  # "b" twice is worth most of all
    return float(10 - (alpha[:, 1:] * WORTH[:, 1:]).sum() - 3 * both)


def uniform():
    return {"alpha": torch.full((3, 4), 0.25), "beta": torch.full((3, 2), 0.5)}


def decided(seed: int) -> Perturbation:
    perturbation = Perturbation(CHOICES, np.random.default_rng(seed))
    while not perturbation.finished:
        perturbation.decide(uniform(), loss)
    return perturbation


def by_hand(order: list[int]) -> list[int]:
    """The option that each row keeps: of the loss without each, the largest, with what earlier rows keep."""
    alpha = uniform()["alpha"]
    for row in order:
        without = []
        for option in (1, 2, 3):
            removed = alpha.clone()
            removed[row, option] = 0
            without.append(loss({"alpha": removed}))
        alpha[row] = torch.nn.functional.one_hot(torch.tensor(1 + int(np.argmax(without))), 4)
    return alpha.argmax(dim=1).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_rows_keep_what_the_loss_needs_most(seed):
    perturbation = decided(seed)
    order = [row for _, row in perturbation.order]
    assert sorted(order) == [0, 1, 2] and perturbation.steps == 4
    scores = perturbation.scores({"alpha": torch.zeros(3, 4).double(), "beta": torch.zeros(3, 2).double()})
    kept = scores["alpha"][:, 1:].argmax(dim=1) + 1
    assert kept.tolist() == by_hand(order)
    assert torch.equal(scores["beta"], torch.zeros(3, 2).double())
    final = torch.nn.functional.one_hot(kept, 4).double()
    for row in range(3):  # a row's best score is the loss without what it keeps
        removed = final.clone()
        removed[row] = 0
        assert scores["alpha"][row].max().item() == pytest.approx(loss({"alpha": removed}))


def test_what_is_decided_counts_alone_and_passes_no_gradient():
    perturbation = Perturbation(CHOICES, np.random.default_rng(0))
    perturbation.decide(uniform(), loss)
    logits = torch.zeros(3, 4, requires_grad=True)
    weights = perturbation.applied({**uniform(), "alpha": logits.softmax(-1)})["alpha"]
    _, row = perturbation.order[0]
    assert weights[row].sort().values.tolist() == [0, 0, 0, 1] and weights.sum() == 3
    weights[:, 1].sum().backward()
    assert (logits.grad[row] == 0).all() and (logits.grad.abs().sum(dim=1) > 0).sum() == 2


def test_a_state_holds_the_order_of_the_rows():
    """A resumed search builds its own from a generator that has moved on since."""
    stopped, goes_on = (Perturbation(CHOICES, np.random.default_rng(seed)) for seed in (0, 1))
    assert stopped.order != goes_on.order
    stopped.decide(uniform(), loss)
    goes_on.load_state_dict(through_a_file(stopped.state_dict()))
    for perturbation in (stopped, goes_on):
        while not perturbation.finished:
            perturbation.decide(uniform(), loss)
    assert same(stopped.state_dict(), goes_on.state_dict())


def config(**settings) -> ApproxDartsConfig:
    return ApproxDartsConfig(**{"epochs": 1, "selection": "perturbation", "tuning": 0, "proposals": 3, **settings})


@pytest.mark.parametrize("relaxation", ["gumbel", "sigmoid"])
def test_a_search_decides_edge_by_edge_and_goes_on_after_a_stop(relaxation):
    def fresh():
        problem = tiny.problem("approxdarts", space_config={"nodes": 1})
        return ApproxDarts(problem, config(relaxation=relaxation, tuning=1))

    straight = fresh()
    reports = [straight.step() for _ in range(4)]
    assert [report.total for report in reports] == [1 + 4 + 1] * 4  # two cells of two edges
    half = fresh()
    for _ in range(2):
        half.step()
    state, position = through_a_file(half.state_dict()), half.problem.state_dict()
    resumed = fresh()
    resumed.load_state_dict(state)
    resumed.problem.load_state_dict(position)
    assert [resumed.step() for _ in range(2)] == reports[2:]
    assert same(resumed.state_dict(), straight.state_dict())
    assert [a.key for a in resumed.proposals()] == [a.key for a in straight.proposals()]


def test_weights_learn_between_decisions_only_where_they_are_tuned():
    for tuning in (0, 1):
        method = ApproxDarts(tiny.problem("approxdarts"), config(tuning=tuning))
        method.step()
        before = [w.detach().clone() for w in method.bilevel.weights]
        alpha = method.logits["alpha"].detach().clone()
        method.step()
        moved = any(not torch.equal(old, new) for old, new in zip(before, method.bilevel.weights))
        assert moved == bool(tuning) and torch.equal(alpha, method.logits["alpha"])
    with pytest.raises(InputError, match="tuning and patience ≥ 0"):
        config(tuning=-1)


def test_a_run_selects_by_perturbation(tmp_path):
    settings = dataclasses.asdict(config(relaxation="gumbel"))
    _, record = finished_run(
        tmp_path, tiny.run_config("approxdarts", method_config=settings, space_config={"nodes": 1})
    )
    assert record.finalists and record.method_config["selection"] == "perturbation"
