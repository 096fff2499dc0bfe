"""The contract that every registered method keeps, and what each method claims for itself."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from evaluation.runs.folder import HISTORY, read_history
from methods import METHODS, bilevel
from methods.approxdarts import ApproxDarts, ApproxDartsConfig
from methods.bilevel import second_order_gradient
from methods.fronts import pareto_front
from methods.method import Evaluation
from methods.random_search import RandomConfig, RandomSearch
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.arithmetic.precision import mixtures_in_fp32
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests import tiny
from tests.method_contract import CONTRACT, every_method
from tests.running import finished_run


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@every_method
def test_every_method_keeps_the_contract(check, name, tmp_path):
    check(name, tmp_path)


@pytest.mark.parametrize("space", ["bench", "grid"])
@every_method
def test_every_method_searches_the_other_spaces_or_names_those_that_it_can(name, space):
    problem, rng = tiny.problem(name, space=space), np.random.default_rng(0)

    def evaluate(drawn, epochs=None, parents=None):  # noqa: ARG001
        return [Evaluation(a.key, rng.random(), problem.cost_of(a), 1, 1, epochs=epochs or 1) for a in drawn]

    problem.evaluate = evaluate
    try:
        method = METHODS[name](problem, METHODS[name].Config(**tiny.method_config(name)))
    except InputError as error:
        assert "cells" in str(error) and space in str(error)
        assert hasattr(METHODS[name].Config, "method")  # a search over a supernet; all others search everywhere
        return
    for _ in range(2 if hasattr(method, "net") else 40):
        if not method.finished:
            method.step()
    proposals = method.proposals()
    assert proposals and all(problem.space.from_json(a.to_json()) == a for a in proposals)


def test_an_unknown_method_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean approxdarts"):
        METHODS["aproxdarts"]


# -- random search -----------------------------------------------------------------------------------------------------


def test_the_pareto_front_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [Evaluation(str(i), *rng.integers(0, 6, 2) / 6.0, 1, 1) for i in range(12)]
        front = pareto_front(points)
        beaten = [
            p
            for p in points
            if any(q.error <= p.error and q.cost <= p.cost and (q.error, q.cost) != (p.error, p.cost) for q in points)
        ]
        expected = {(p.error, p.cost) for p in points if p not in beaten}
        assert {(p.error, p.cost) for p in front} == expected
        assert len(front) == len(expected)
        assert [p.error for p in front] == sorted(p.error for p in front)


def test_random_search_never_trains_an_architecture_twice_and_stops_in_a_small_space():
    # One node, one circuit, no choice of it: 7 operations on each of two edges, in two cells: 7^4 architectures.
    problem = tiny.problem(space_config={"nodes": 1}, multipliers=("mul8s_1KV8",), multiplier_choice="network")
    problem.evaluate = lambda drawn: [Evaluation(a.key, 0.5, 1.0, 1, 1) for a in drawn]
    method = RandomSearch(problem, RandomConfig(samples=5000, batch=500))
    while not method.finished:
        method.step()
    assert len(method.architectures) == 7**4


def test_random_search_survives_failures_and_proposes_none_of_them():
    problem = tiny.problem()
    outcomes = iter([Evaluation("", 1.0, 1e15, 0, 0, "broken"), Evaluation("", 0.4, 5.0, 1, 1)] * 10)
    problem.evaluate = lambda drawn: [dataclasses.replace(next(outcomes), key=a.key) for a in drawn]
    method = RandomSearch(problem, RandomConfig(samples=4, batch=2))
    while not method.finished:
        report = method.step()
    assert report.diagnostics["failed"] == 2
    assert all(method.evaluations[a.key].failure is None for a in method.proposals())


def test_a_diverging_candidate_becomes_a_finite_failure():
    wild = dataclasses.replace(tiny.PROTOCOL, selection_lr=1e30, clip=1e30)
    problem = tiny.problem(protocol=wild)
    evaluation = problem.evaluate([problem.space.sample(np.random.default_rng(0))])[0]
    assert evaluation.failure is not None
    assert evaluation.error == 1.0
    assert np.isfinite(evaluation.cost)


def test_evaluations_are_cached_and_do_not_depend_on_their_order():
    rng = np.random.default_rng(3)
    problem = tiny.problem()
    a, b = (problem.space.sample(rng) for _ in range(2))
    forwards = problem.evaluate([a, b, a])
    assert forwards[0] is forwards[2]
    assert tiny.problem().evaluate([b, a]) == [forwards[1], forwards[0]]


# -- approxdarts -------------------------------------------------------------------------------------------------------


def darts(**settings):
    problem = tiny.problem("approxdarts")
    return ApproxDarts(problem, ApproxDartsConfig(**{"epochs": 2, **settings}))


@pytest.mark.parametrize(
    "settings", [{}, {"order": 2}, {"relaxation": "gumbel", "order": 2}, {"relaxation": "sigmoid"}]
)
def test_every_setting_searches(settings):
    method = darts(**settings)
    before = method.logits["alpha"].detach().clone(), method.logits["beta"].detach().clone()
    report = method.step()
    assert np.isfinite(report.diagnostics["train_loss"])
    reduction = method.logits["alpha"][5:].exp()  # two nodes with two and three edges, then those of the other cell
    logits = reduction[:, 3] / reduction.sum(dim=1)  # skip_connect is the fourth operation
    assert report.diagnostics["alpha/reduction/skip_connect"] == pytest.approx(logits.mean().item())
    for group, size in (("alpha/normal/", 8), ("alpha/reduction/", 8), ("beta/", 3)):
        shares = [value for name, value in report.diagnostics.items() if name.startswith(group)]
        assert len(shares) == size and sum(shares) == pytest.approx(1)
    assert not torch.equal(before[0], method.logits["alpha"])
    assert not torch.equal(before[1], method.logits["beta"])
    assert method.proposals()


def test_partial_channels_search():
    wide = dataclasses.replace(tiny.PROTOCOL, search_channels=8)
    problem = tiny.problem("approxdarts", protocol=wide)
    assert np.isfinite(ApproxDarts(problem, ApproxDartsConfig(epochs=1, partial=4)).step().validation_error)
    with pytest.raises(InputError, match="partial"):
        ApproxDarts(problem, ApproxDartsConfig(partial=3))


def test_during_warm_up_only_the_weights_learn():
    method = darts(warmup=1)
    alpha, weights = method.logits["alpha"].detach().clone(), [w.detach().clone() for w in method.bilevel.weights]
    method.step()
    assert torch.equal(alpha, method.logits["alpha"])
    assert any(not torch.equal(old, new) for old, new in zip(weights, method.bilevel.weights))


def test_the_untrained_control_derives_from_random_operations(tmp_path):
    method, other, learning = darts(untrained=True), darts(untrained=True), darts()
    assert method.finished and other.finished and not learning.finished
    assert torch.equal(method.logits["alpha"], other.logits["alpha"])
    assert 0.5 < method.logits["alpha"].std() < 2 and torch.equal(method.logits["beta"], learning.logits["beta"])
    config = tiny.method_config("approxdarts") | {"untrained": True}
    folder, record = finished_run(tmp_path, tiny.run_config("approxdarts", method_config=config))
    assert record.finalists and "search" not in {line["stage"] for line in read_history(folder.path / HISTORY)}
    assert record.ledger["search"].device_seconds < record.ledger["final"].device_seconds


def test_the_zero_one_loss_counts_for_gates_alone():
    plain, driven = (darts(relaxation="sigmoid", zero_one_weight=weight) for weight in (0.0, 10.0))
    with torch.no_grad():
        for method in (plain, driven):
            method.logits["alpha"].copy_(
                torch.linspace(-3, 3, method.logits["alpha"].numel()).view_as(method.logits["alpha"])
            )
    gates = driven.logits["alpha"].detach()[:, 1:].sigmoid().numpy()  # without "none"
    added = (driven.cost_term() - plain.cost_term()).item()
    assert added == pytest.approx(-10 * np.mean((gates - 0.5) ** 2), rel=1e-5)
    with pytest.raises(InputError, match="needs --approxdarts.relaxation sigmoid"):
        ApproxDartsConfig(zero_one_weight=1.0)


def test_a_fixed_multiplier_is_the_only_one_proposed():
    problem = tiny.problem("approxdarts", multipliers=("mul8s_1KX2",))
    method = ApproxDarts(problem, ApproxDartsConfig(epochs=1))
    method.step()
    used = {e.multiplier for a in method.proposals() for cell in a.cells for node in cell.nodes for e in node}
    assert used <= {"mul8s_1KX2", None}


def test_a_heavier_energy_term_lowers_the_expected_energy():
    expected = []
    for weight in (0.0, 20.0):
        method = darts(energy_weight=weight, choice_lr=0.1)
        report = [method.step() for _ in range(2)][-1]
        expected.append(report.diagnostics["expected_cost"])
    assert expected[1] < 0.95 * expected[0]


def test_proposals_begin_with_the_published_derivation_and_spread_over_energy():
    method = darts(proposals=5)
    with torch.no_grad():
        method.logits["alpha"].copy_(torch.randn_like(method.logits["alpha"]))
        method.logits["beta"].copy_(torch.randn_like(method.logits["beta"]))
    proposals = method.proposals()
    strongest = method.problem.space.derive(
        {name: logits.detach().numpy() for name, logits in method.logits.items()}, method.choices
    )
    assert proposals[0] == strongest
    energies = [method.problem.cost_of(a) for a in proposals]
    assert len(proposals) == 5
    assert max(energies) > 1.3 * min(energies)


def test_second_order_gradient_against_finite_differences():
    """On a smooth problem in float64: d/dα of L_val(w − ξ ∇_w L_train(w, α), α), by nudging every α."""
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(12, 3, generator=generator, dtype=torch.float64), torch.randn(12, generator=generator).double())
        for _ in range(2)
    ]
    weight = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    alpha = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    lr = 0.3

    def loss_at(w, a, batch):
        x, y = batch
        return ((torch.tanh(x * torch.sigmoid(a)) @ w - y) ** 2).mean() + 0.1 * (a.softmax(0) * w**2).sum()

    def unrolled(a):
        w = weight.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_at(w, a, data[0]), w)
        return loss_at(w - lr * gradient, a, data[1])

    kept = weight.detach().clone()
    (gradient,) = second_order_gradient(
        lambda batch: loss_at(weight, alpha, batch),
        [weight],
        [alpha],
        data[0],
        data[1],
        lambda gradients: [-lr * g for g in gradients],
        lr,
        nullcontext,
    )
    step = 1e-5
    nudged = [alpha.detach() + step * sign * torch.eye(3, dtype=torch.float64) for sign in (1, -1)]
    numeric = [(unrolled(plus) - unrolled(minus)).item() / (2 * step) for plus, minus in zip(*nudged)]
    first_order = torch.autograd.grad(loss_at(weight, alpha, data[1]), alpha)[0]
    assert torch.allclose(gradient, torch.tensor(numeric, dtype=torch.float64), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(gradient, first_order, rtol=1e-2)  # the second-order part is really there
    assert torch.equal(weight, kept)


def test_the_mixed_derivative_over_quantised_weights_is_taken_in_fp32(monkeypatch):
    """Two gated layers, whose difference in fp32 does not depend on the shift; on 8-bit weights it grows as 1 / shift."""
    torch.manual_seed(0)
    choice = MultiplierChoice(catalogue.library(("mul8s_1KV8", "mul8s_1L2H")))
    layers = [MultiplierMixture(4, 4, 3, padding=1, bias=False, choice=choice) for _ in range(2)]
    weights, alpha = [layer.weight for layer in layers], torch.zeros(2, requires_grad=True)
    batches = [(torch.randn(8, 4, 6, 6), torch.randn(8, 4, 6, 6)) for _ in range(2)]

    def loss(batch):
        choice.set(torch.tensor([0.5, 0.5]))
        gates = alpha.softmax(dim=0)
        return (sum(gate * layer(batch[0]) for gate, layer in zip(gates, layers)) - batch[1]).square().mean()

    def mixed(smooth, shift):
        monkeypatch.setattr(bilevel, "SHIFT", shift)
        arguments = (loss, weights, [alpha], *batches, lambda gradients: [0.0 * g for g in gradients])
        first, both = (second_order_gradient(*arguments, lr, nullcontext, smooth)[0] for lr in (0.0, 1.0))
        return both - first

    loss(batches[0])  # the scale of activations is known
    smooth, stepped = ([mixed(way, shift) for shift in (1e-2, 1e-3)] for way in (mixtures_in_fp32, nullcontext))
    assert torch.allclose(*smooth, rtol=0.02) and smooth[0].norm() > 0
    assert not torch.allclose(*stepped, rtol=0.5)
    with mixtures_in_fp32():
        x = batches[0][0]
        assert torch.equal(layers[0](x), torch.nn.functional.conv2d(x, weights[0], padding=1))
    assert not torch.equal(layers[0](x), torch.nn.functional.conv2d(x, weights[0], padding=1))
    assert darts(order=2).bilevel.smooth is mixtures_in_fp32
