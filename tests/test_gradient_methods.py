"""Searches by gradient other than ApproxDARTS: what of the supernet learns when, and what is derived."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from methods.dartspt import DartsPt, DartsPtConfig
from methods.derivation import Derivation, best_selections
from methods.gdas import Gdas, GdasConfig
from methods.pcdarts import PcDarts, PcDartsConfig
from methods.pipelined import Pipelined, PipelinedConfig
from methods.relaxations import Gumbel, Softmax, Uniform
from spaces.errors import InputError
from spaces.space import Choice
from tests import tiny
from tests.method_contract import same


def problem(name: str, **changes):
    return tiny.problem(name, space_config={"nodes": 1}, **changes)


def copy(tensors: dict) -> dict:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


# -- PC-DARTS ----------------------------------------------------------------------------------------------------------


def test_the_inputs_of_a_node_are_summed_by_their_shares():
    made = tiny.problem("pcdarts", space_config={"nodes": 3})
    space, shape = made.space, made.shape
    choices = {**space.choices(shape), **space.shares(shape)}
    net = space.supernet(shape, choices).eval()
    generator = torch.Generator().manual_seed(0)
    logits = {n: torch.randn(c.count, len(c.options), generator=generator) for n, c in choices.items()}
    net.choose({name: rows.softmax(dim=-1) for name, rows in logits.items()})
    with torch.no_grad():
        net(torch.rand(2, *shape.input_shape, generator=generator))
    for position, stage in enumerate(net.cells):
        edges = list(stage.body.edges)
        for node in range(3):
            into = [edge for edge, (target, _) in zip(edges, space.edge_places) if target == node]
            row = choices["gamma"].rows["nodes"][position, node]
            expected = logits["gamma"][row, : node + 2].softmax(dim=0)  # over the inputs that the node has
            assert torch.allclose(torch.stack([edge.share for edge in into]), expected)
    edge, x = into[0], torch.rand(2, into[0].computed, 6, 6, generator=generator)
    state = SimpleNamespace(value=x, through=lambda operation: operation(x))
    with torch.no_grad():
        weighed, edge.share = edge(state), None
        assert torch.allclose(weighed, edge(state) * expected[0])


def test_the_edges_that_are_kept_have_the_largest_product_of_share_and_operation():
    made = tiny.problem("pcdarts", space_config={"nodes": 4})
    choices = {**made.space.choices(made.shape), **made.space.shares(made.shape)}
    rng, changed = np.random.default_rng(0), 0
    for _ in range(20):
        scores = {n: np.log(rng.dirichlet(np.ones(len(c.options)), c.count)) for n, c in choices.items()}
        derived = made.space.derive(scores, choices)
        plain = made.space.derive(scores, {n: c for n, c in choices.items() if n != "gamma"})
        changed += derived != plain
        for kind, cell in enumerate(derived.cells):
            for node, edges in enumerate(cell.nodes):
                alpha = {
                    source: np.exp(scores["alpha"][14 * kind + at, 1:]).max()
                    for at, (target, source) in enumerate(made.space.edge_places)
                    if target == node
                }
                gamma = np.exp(scores["gamma"][4 * kind + node])
                ranked = sorted(alpha, key=lambda source: -alpha[source] * gamma[source])
                assert {edge.source for edge in edges} == set(ranked[:2])
    assert changed > 5


def test_choices_rest_for_the_first_epochs_and_shares_learn_after_them():
    config = PcDartsConfig(epochs=2, warmup=1, partial=1, choice_lr=0.1)
    method = PcDarts(problem("pcdarts"), config)
    before = copy(method.logits)
    method.step()
    assert same(before, copy(method.logits))
    report = method.step()
    assert all(not torch.equal(before[name], method.logits[name]) for name in ("alpha", "beta", "gamma"))
    assert report.diagnostics["gamma/normal/c(k−2)"] + report.diagnostics["gamma/normal/c(k−1)"] == pytest.approx(1)


def test_a_space_without_shares_is_refused_with_those_that_have_them():
    made = problem("pcdarts")
    made.space.shares = lambda _: {}
    with pytest.raises(InputError, match="none of; search cells"):
        PcDarts(made, PcDartsConfig(partial=1))


def test_shares_are_never_sampled():
    choices = {"gamma": Choice(("a", "b", "c"), {"nodes": np.arange(2)}, shares=True)}
    logits, generator = {"gamma": torch.randn(2, 3)}, torch.Generator().manual_seed(0)
    for relaxation in (Gumbel, Softmax):
        relaxed = relaxation(choices, generator)(logits)
        assert not relaxed.sampled and torch.equal(relaxed.weights["gamma"], logits["gamma"].softmax(dim=-1))
    assert torch.equal(Uniform(choices, generator)(logits).weights["gamma"], torch.full((2, 3), 1 / 3))


# -- names of their own ------------------------------------------------------------------------------------------------


def test_gdas_samples_one_operation_and_dartspt_selects_by_perturbation():
    gdas = Gdas(problem("gdas"), GdasConfig())
    assert isinstance(gdas.relaxation, Gumbel) and gdas.steps == 250
    dartspt = DartsPt(problem("dartspt"), DartsPtConfig())
    assert dartspt.perturbation is not None and dartspt.steps == 50 + 4 + 1


@pytest.mark.parametrize("cls", [Gdas, DartsPt, PcDarts, Pipelined])
def test_bad_settings_are_refused_under_the_methods_own_name(cls):
    with pytest.raises(InputError, match=f"^{cls.Config.method} needs weight decays"):
        dataclasses.replace(cls.Config(), clip=0.0)
    with pytest.raises(InputError, match=f"^{cls.Config.method} searches differentiable spaces \\(.*cells.*\\), not"):
        cls(tiny.problem("random", space="grid"), cls.Config())


# -- pipelined ---------------------------------------------------------------------------------------------------------


def pipelined(**settings) -> Pipelined:
    settings = {"weight_epochs": 1, "choice_epochs": 2, "choice_lr": 0.1, **settings}
    return Pipelined(problem("pipelined"), PipelinedConfig(**settings))


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_weights_learn_first_and_then_stay_bit_for_bit_while_choices_learn(relaxation):
    method = pipelined(relaxation=relaxation)
    weights, logits = copy(method.net.state_dict()), copy(method.logits)
    method.step()
    assert same(copy(method.logits), logits) and not same(copy(method.net.state_dict()), weights)
    weights = copy(method.net.state_dict())
    while not method.finished:
        method.step()
    assert same(copy(method.net.state_dict()), weights)  # buffers, too
    assert all(not torch.equal(method.logits[name], logits[name]) for name in logits)


def test_every_option_is_drawn_alone_and_as_often_in_the_first_stage():
    method, drawn = pipelined(), []
    choose = method.net.choose
    method.net.choose = lambda weights, sampled: (drawn.append(weights), choose(weights, sampled))
    method.step()
    rows = torch.cat([weights["alpha"] for weights in drawn])
    assert set(rows.flatten().tolist()) == {0.0, 1.0} and (rows.sum(dim=1) == 1).all() and (rows[:, 0] == 0).all()
    beta = torch.cat([weights["beta"] for weights in drawn])
    assert set(beta.flatten().tolist()) == {0.0, 1.0} and (beta.mean(dim=0) > 0.1).all()


def test_a_larger_eta_never_raises_the_expected_cost():
    expected = []
    for eta in (0.0, 0.3, 1.0, 10.0):
        method = pipelined(relaxation="softmax", energy_weight=eta)
        reports = [method.step() for _ in range(3)]
        expected.append(reports[-1].diagnostics["expected_cost"])
    assert expected == sorted(expected, reverse=True) and expected[-1] < 0.9 * expected[0]


def test_selections_come_by_falling_sums_and_each_once():
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.random(size))[::-1] for size in (3, 1, 4, 2, 3)]
    found = list(best_selections(rows))
    sums = [sum(row[ranks.get(at, 0)] for at, row in enumerate(rows)) for ranks in found]
    assert sums == sorted(sums, reverse=True)
    assert {tuple(ranks.get(at, 0) for at in range(5)) for ranks in found} == set(
        itertools.product(*(range(len(row)) for row in rows))
    )
    assert len(found) == 3 * 4 * 2 * 3


def test_the_likeliest_architectures_against_all_of_them():
    choices = {
        "alpha": Choice(("none", "a", "b", "c"), {"edges": np.arange(2)}, hidden=1),
        "beta": Choice(("m", "n"), {"edges": np.arange(1)}, multipliers=True),
    }

    def derive(scores, _):
        picked = (*(1 + scores["alpha"][:, 1:].argmax(axis=1)), *scores["beta"].argmax(axis=1))
        return SimpleNamespace(key=picked)

    rng = np.random.default_rng(1)
    scores = {"alpha": torch.tensor(rng.random((2, 4))), "beta": torch.tensor(rng.random((1, 2)))}
    derivation = Derivation(SimpleNamespace(derive=derive), choices, {}, lambda _: 1.0)
    found = [architecture.key for architecture in derivation.likeliest(scores, 7)]
    total = lambda key: sum(scores["alpha"][at, key[at]] for at in range(2)) + scores["beta"][0, key[2]]  # noqa: E731
    everything = sorted(itertools.product((1, 2, 3), (1, 2, 3), (0, 1)), key=lambda key: -total(key))
    assert found == everything[:7]
    assert len(derivation.likeliest(scores, 50)) == 18
