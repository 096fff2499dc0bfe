"""What searches over a supernet make of it: networks drawn by their probabilities, and what is believed of them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from methods.approxdarts import ApproxDarts, ApproxDartsConfig
from methods.derivation import Derivation
from methods.gdas import Gdas, GdasConfig
from spaces.errors import InputError
from spaces.registry import SPACES, differentiable
from spaces.space import Choice
from tests import tiny

CHOICES = {
    "alpha": Choice(("none", "a", "b"), {"edges": np.arange(1)}, hidden=1),
    "beta": Choice(("m", "n"), {"edges": np.arange(1)}, multipliers=True),
}


def search(space: str = "bench", **settings) -> ApproxDarts:
    config = ApproxDartsConfig(**{"epochs": 2, "choice_lr": 0.1, "relaxation": "gumbel", **settings})
    return ApproxDarts(tiny.problem("approxdarts", space=space), config)


def derivation() -> Derivation:
    def derive(scores, _):
        return SimpleNamespace(key=(int(scores["alpha"][0, 1:].argmax()), int(scores["beta"][0].argmax())))

    relative = {"alpha": torch.tensor([[0.0, 1.0, 0.1]]), "beta": torch.tensor([[1.0, 0.2]])}
    return Derivation(SimpleNamespace(derive=derive), CHOICES, relative, lambda _: 1.0)


def shares(highest: float, noise: float) -> np.ndarray:
    scores = {"alpha": torch.tensor([[5.0, 2.0, 1.0]]).double(), "beta": torch.tensor([[0.5, 0.0]]).double()}
    rng, counts = np.random.default_rng(0), np.zeros((2, 2))
    for _ in range(4000):
        counts[derivation().drawn(scores, rng, highest, noise).key] += 1
    return counts / counts.sum()


def test_networks_are_drawn_by_their_probabilities():
    """Without a price worth the name: softmax of the scores, over those that exist outside the supernet."""
    for noise in (1.0, 4.0):
        alpha, beta = np.exp(np.array([2.0, 1.0]) / noise), np.exp(np.array([0.5, 0.0]) / noise)
        expected = np.outer(alpha / alpha.sum(), beta / beta.sum())
        assert np.abs(shares(1e-9, noise) - expected).max() < 0.03  # four standard errors


def test_prices_of_either_sign_draw_networks_of_all_costs():
    high, low = shares(100.0, 1.0), shares(1e-9, 1.0)
    assert high[1].sum() > low[1].sum() + 0.1  # the cheap operation, where cost is taxed
    assert high[0].sum() > 0.5  # the dear one, where it is subsidised
    assert high[:, 1].sum() > low[:, 1].sum() + 0.1  # multipliers of more power are never subsidised


@pytest.mark.parametrize("space", differentiable())
def test_what_is_chosen_is_derived_again_and_is_all_that_a_supernet_computes(space):
    method = search(space)
    rng = np.random.default_rng(2)
    scores = {n: rng.random((c.count, len(c.options))) for n, c in method.choices.items()}
    architecture = method.space.derive(scores, method.choices)
    chosen = method.space.chosen(architecture, method.choices)
    assert method.space.derive(chosen, method.choices).key == architecture.key
    assert all(set(rows.sum(axis=1)) <= {0.0, 1.0} for rows in chosen.values())

    probabilities = method.relaxation.probabilities(method.logits)
    batch = next(method.problem.validation_batches())
    method.endless_validation = lambda: iter([batch] * 4)
    (sampled,) = method.in_supernet([architecture])
    with torch.no_grad():  # all operations, weighed with 0 but for those that are chosen
        weights = {name: torch.from_numpy(rows).to(probabilities[name]) for name, rows in chosen.items()}
        used = weights["beta"].any(dim=1, keepdim=True)
        weights["beta"] = torch.where(used, weights["beta"], probabilities["beta"])
        assert float(method.loss_under(weights, None, batch, None)) == pytest.approx(sampled.loss, abs=1e-5)


def test_what_is_believed_of_proposals_is_the_likelihood_and_the_loss():
    method = search()
    with torch.no_grad():
        for rows in method.logits.values():
            rows += torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    signals, scores = method.signals(), method.scores()
    for proposal in method.proposals():
        unlikely = 0.0
        for at, edge in enumerate(proposal.edges):
            unlikely -= float(scores["alpha"][at, method.choices["alpha"].options.index(edge.operation)])
            if edge.multiplier:
                unlikely -= float(scores["beta"][at, method.choices["beta"].options.index(edge.multiplier)])
        assert signals["alpha"][proposal.key] == pytest.approx(unlikely)
        assert 0 < signals["supernet loss"][proposal.key] < 20


def test_networks_that_are_likely_are_trained_after_the_search_and_the_best_proposed():
    method = search(trained=6, proposals=2, price=4.0)
    derived = None
    while not method.finished:
        report = method.step()
        derived = derived or method.proposals()  # before any is trained
        assert report.total == 2 + 2  # batches of four and two
    assert len(method.own.evaluations) == 6 and report.step == 4
    front = {evaluation.key for evaluation in method.own.front()}
    assert derived and {each.key for each in method.proposals()} <= front


def test_where_nothing_likely_is_left_others_are_trained():
    """A space of nine networks, eight of which α makes all but impossible."""
    problem = tiny.problem("gdas", space="bench", space_config={"nodes": 2, "pooling": False, "sites": "edges"})
    method = Gdas(problem, GdasConfig(epochs=1, trained=50))
    with torch.no_grad():
        method.logits["alpha"] += torch.tensor([0.0, 30.0, 0.0])
    while not method.finished:
        method.step()
    known = {each.key for each in problem.space.every()}
    assert known == method.own.architectures.keys() and len(known) > 5


def test_a_search_whose_derived_networks_get_no_better_ends():
    method = search(epochs=10, warmup=1, patience=2)
    method.in_supernet = lambda derived: [SimpleNamespace(error=0.5)] * len(derived)
    space = method.problem.space
    method.derived = lambda: [space.on_multiplier(space.reference(), "mul8s_1KX2")]
    epochs = 0
    while not method.finished:
        method.step()
        epochs += 1
    assert epochs == 1 + 1 + 2  # the warm-up, the first that is watched, and two no better
    with pytest.raises(InputError, match="patience"):
        dataclasses.replace(method.config, selection="perturbation")


def test_a_control_that_learns_nothing_can_train_what_it_draws():
    method = search(untrained=True, trained=4)
    before = method.logits["alpha"].detach().clone()
    while not method.finished:
        method.step()
    assert torch.equal(before, method.logits["alpha"]) and len(method.own.evaluations) == 4


def test_every_differentiable_space_is_there():
    assert set(differentiable()) >= {"bench", "cells"} and set(differentiable()) <= set(SPACES)
