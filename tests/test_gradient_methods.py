"""Searches by gradient other than ApproxDARTS: what of the supernet learns when, and what is derived."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from methods.dartspt import DartsPt, DartsPtConfig
from methods.ddarts import DDarts, DDartsConfig
from methods.derivation import Derivation, best_selections
from methods.gdas import Gdas, GdasConfig
from methods.pcdarts import PcDarts, PcDartsConfig
from methods.pipelined import Pipelined, PipelinedConfig
from methods.relaxations import Gumbel, Softmax, Uniform
from spaces.cells.operations import State
from spaces.errors import InputError
from spaces.multipliers.multiplier import error_metrics
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
    state = State(x)
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


def test_a_choice_that_no_sampled_operation_uses_is_left_alone():
    """In the bench space an operation that multiplies nothing can be all that is sampled."""
    made = tiny.problem("gdas", space="bench")
    method = Gdas(made, GdasConfig(epochs=1, choice_decay=0.0, energy_weight=0.0))
    skip = [method.choices["alpha"].options.index("skip_connect")] * method.choices["alpha"].count
    with torch.no_grad():
        method.logits["alpha"][range(len(skip)), skip] = 100.0
    before = copy(method.logits)
    method.step()
    assert torch.equal(before["beta"], method.logits["beta"])


def test_decay_pulls_multipliers_to_their_prior_and_operations_to_zero():
    """Adam makes whole steps of the smallest gradients: where the loss says nothing, decay alone decides."""
    made = tiny.problem("gdas", space="bench")
    method = Gdas(made, GdasConfig(epochs=1, choice_lr=0.05, energy_weight=0.0, multiplier_prior=5.0))
    errors = [error_metrics(multiplier).mre_pct / 100 for multiplier in made.space.library]
    prior = (-5.0 * torch.tensor(errors)).expand_as(method.logits["beta"])
    assert torch.allclose(method.logits["beta"], prior, atol=0.01)
    with torch.no_grad():
        for rows in method.logits.values():
            rows += 0.5
    method.bilevel.loss = lambda *_: sum((0.0 * rows).sum() for rows in method.logits.values())
    for _ in range(200):
        method.bilevel.choice_step((torch.zeros(1), torch.zeros(1)), (torch.zeros(1), torch.zeros(1)))
    assert torch.allclose(method.logits["beta"], prior, atol=0.05)
    assert method.logits["alpha"].abs().max() < 0.05


# -- names of their own ------------------------------------------------------------------------------------------------


def test_gdas_samples_one_operation_and_dartspt_selects_by_perturbation():
    gdas = Gdas(problem("gdas"), GdasConfig())
    assert isinstance(gdas.relaxation, Gumbel) and gdas.search_steps == 250
    dartspt = DartsPt(problem("dartspt"), DartsPtConfig())
    assert dartspt.perturbation is not None and dartspt.search_steps == 50 + 4 + 1


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


# -- D-DARTS -----------------------------------------------------------------------------------------------------------


def ddarts(**settings) -> DDarts:
    return DDarts(problem("ddarts"), DDartsConfig(**{"epochs": 1, "choice_lr": 0.1, **settings}))


def batches(made) -> tuple:
    return next(made.train_batches()), next(made.validation_batches())


@pytest.mark.parametrize("ablation", ["none", "constant", "credit"])
def test_each_cells_choices_get_the_gradient_of_their_own_loss_and_no_other(ablation):
    method = ddarts(ablation=ablation)
    train, judging = batches(method.problem)
    alpha, seen = method.logits["alpha"], []
    with torch.no_grad():
        alpha += 0.5 * torch.randn_like(alpha)  # gates that differ
        method.loss(judging, None)
    method.net.eval()  # so that a pass changes nothing
    method.losses.copy_(method.ablation_losses(judging))
    weights = copy(method.net.state_dict())
    method.bilevel.choice_optimiser.step = lambda: seen.append(alpha.grad.clone())
    method.bilevel.choice_step(train, judging)
    assert same(weights, copy(method.net.state_dict()))
    covered = 0
    for cell in range(3):
        (rows,) = method.rows_of(cell).values()
        loss = method.loss(judging, None) + method.own_loss(cell)
        cost, decay = super(DDarts, method).cost_term(), method.penalty() - method.cost_term()
        (expected,) = torch.autograd.grad(loss + cost + decay, [alpha])
        assert torch.allclose(seen[0][rows], expected[rows], rtol=1e-4, atol=1e-6)
        others = [row for row in range(len(alpha)) if row not in rows]
        (own,) = torch.autograd.grad(method.own_loss(cell), [alpha])
        assert own[rows][:, 1:].abs().min() > 0 and not own[others].any()
        covered += len(rows)
    assert covered == len(alpha)  # no two cells share a row


def test_a_cell_is_credited_for_what_the_loss_loses_without_it_in_credit_alone():
    given = torch.tensor([-1.0, 0.5, 0.5])
    gradients = {}
    for ablation in ("none", "constant", "credit"):
        method = ddarts(ablation=ablation, zero_one_weight=0.0)
        method.losses.copy_(given)
        (gradients[ablation],) = torch.autograd.grad(
            sum(method.own_loss(c) for c in range(3)), [method.logits["alpha"]]
        )
    assert not gradients["none"].any() and not gradients["constant"].any()
    (first,), (second,) = (method.rows_of(cell).values() for cell in (0, 1))
    assert (gradients["credit"][first][:, 1:] < 0).all()  # its gates open
    assert (gradients["credit"][second][:, 1:] > 0).all()


def test_ablation_losses_against_passes_by_hand():
    method = ddarts()
    _, judging = batches(method.problem)
    method.net.eval()
    losses, state = [], method.problem.generator.get_state()
    found = method.ablation_losses(judging)
    assert found.mean().item() == pytest.approx(0, abs=1e-3)
    method.problem.generator.set_state(state)
    probabilities = method.relaxation.probabilities(method.logits)
    with torch.no_grad():
        whole = method.loss_under(probabilities, None, judging, None)
        for cell in range(3):
            (rows,) = method.rows_of(cell).values()
            alpha = probabilities["alpha"].clone()
            alpha[rows] = torch.rand((len(rows), 8), generator=method.problem.generator)
            losses.append(method.loss_under({**probabilities, "alpha": alpha}, None, judging, None) - whole)
    mean = sum(losses) / 3
    assert torch.allclose(found, torch.stack([-(loss - mean) / mean for loss in losses]), rtol=1e-3, atol=1e-4)


def test_the_ablation_passes_are_on_the_account():
    work = {}
    for ablation in ("none", "constant"):
        method = ddarts(ablation=ablation)
        with method.problem.repeatable_step():
            method.step()
        work[ablation] = method.problem.search_work
    assert work["constant"] > 1.3 * work["none"]


def test_cells_differ_and_a_space_of_equal_cells_is_refused():
    method = ddarts()
    with torch.no_grad():
        method.logits["alpha"].copy_(torch.randn_like(method.logits["alpha"]))
    assert len(method.proposals()[0].cells) == 3
    with pytest.raises(InputError, match="lets cells differ, which those of 'bench' cannot; search cells"):
        DDarts(tiny.problem("ddarts", space="bench"), DDartsConfig())


def test_edges_are_kept_by_the_threshold_of_their_best_gates():
    assert ddarts().keep() is None  # two, as the space derives them
    for how, threshold, expected in (
        ("sparse", 0.85, [[1], [2], [3, 0]]),
        ("edge", 0.85, [[1], [2], [3, 0, 2]]),
        ("edge", 0.5, [[1, 2], [2, 0], [3, 0, 2]]),
    ):
        keep = ddarts(parsing=how, threshold=threshold).keep()
        # None reaches 0.85, and yet no node is cut off; one does; three do.
        gates = ([0.2, 0.8, 0.7], [0.84, 0.1, 0.9], [0.9, 0.1, 0.86, 0.95])
        assert [keep(np.log(each)).tolist() for each in gates] == expected
    for threshold in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="a threshold between 0 and 1"):
            DDartsConfig(threshold=threshold)


def gated(how: str) -> tuple[DDarts, dict]:
    """A search over two nodes, and scores by hand: gates above 0.9 of one operation on four of the edges, else of 0.3."""
    method = DDarts(tiny.problem("ddarts"), DDartsConfig(epochs=1, parsing=how))
    scores = {n: np.log(np.full((c.count, len(c.options)), 0.3)) for n, c in method.choices.items()}
    scores["beta"][:, 1] = np.log(0.6)
    for edges in method.choices["alpha"].rows["edges"]:  # node 0 from 0 and 1, then node 1 from 0, 1 and 2
        for edge, operation in ((1, "max_pool_3x3"), (2, "sep_conv_5x5"), (3, "sep_conv_3x3"), (4, "skip_connect")):
            scores["alpha"][edges[edge], method.choices["alpha"].options.index(operation)] = np.log(0.9 + 0.01 * edge)
    return method, {name: torch.from_numpy(rows) for name, rows in scores.items()}


@pytest.mark.parametrize(("how", "counts"), [("darts", [2, 2]), ("sparse", [1, 2]), ("edge", [1, 3])])
def test_networks_are_derived_as_they_are_parsed(how, counts):
    method, scores = gated(how)
    derived = method.derivation.strongest(scores)
    last = [(0, "sep_conv_5x5"), (1, "sep_conv_3x3"), (2, "skip_connect")][-counts[1] :]
    for cell in derived.cells:
        assert [len(node) for node in cell.nodes] == counts
        assert (1, "max_pool_3x3") in [(edge.source, edge.operation) for edge in cell.nodes[0]]
        assert [(edge.source, edge.operation) for edge in cell.nodes[1]] == last
    assert set(derived.multipliers) == {"mul8s_1L2H"}
    # What the supernet computes of it has these edges and no other; as scores it gives the network back.
    chosen = method.space.chosen(derived, method.choices)
    assert chosen["alpha"].sum() == 3 * sum(counts)
    if how == "edge":
        gates = {n: torch.from_numpy(np.log(0.1 + 0.8 * rows)) for n, rows in chosen.items()}
        assert method.derivation.strongest(gates) == derived


def test_prices_lower_and_raise_the_number_of_edges():
    method, scores = gated("edge")
    counts = [
        sum(len(node) for cell in method.derivation.strongest(scores, price).cells for node in cell.nodes)
        for price in (1.0, 0.0, -2.0)
    ]
    assert counts[0] < counts[1] == 12 < counts[2]
    spread = method.derivation.spread(scores, 5, 2.0)
    assert len({sum(len(node) for cell in each.cells for node in cell.nodes) for each in spread}) > 2


def test_edges_of_drawn_networks_are_as_many_as_their_gates_say():
    """With Gumbel noise an edge reaches the threshold with probability 1 − exp(−Σ gates / threshold)."""
    method, scores = gated("edge")
    scores["alpha"] = torch.full_like(scores["alpha"], np.log(0.08))
    rng, both = np.random.default_rng(0), []
    for _ in range(300):
        drawn = method.derivation.drawn(scores, rng, 1e-9)
        both += [len(cell.nodes[0]) == 2 for cell in drawn.cells]
    expected = (1 - np.exp(-7 * 0.08 / 0.85)) ** 2
    assert np.mean(both) == pytest.approx(expected, abs=0.06)
