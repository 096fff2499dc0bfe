"""The contract of every registered space, and of one more that is a single file."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch

from evaluation.cli.plan import plan_runs
from evaluation.run import parse
from evaluation.searching.candidates import inherit
from methods.random_search import RandomConfig, RandomSearch
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.costs.trace import total_macs
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.registry import SPACES, architecture_from_json, deciding, differentiable, save_drawing
from spaces.shape import NetworkShape
from spaces.space import Architecture
from tests import tiny
from tests.chain_space import Chain, ChainSpace

SHAPE = NetworkShape(channels=4, cells=3, classes=5, input_shape=(3, 8, 6))
LIBRARY = catalogue.library(["mul8s_1KV8", "mul8s_1L2H", "mul8s_1KX2"])
every_space = pytest.mark.parametrize("name", [*SPACES, "chain"])


@pytest.fixture(autouse=True)
def with_the_chain():
    with SPACES.temporarily("chain", "tests.chain_space:ChainSpace"):
        yield


def space_of(name: str):
    return SPACES[name](LIBRARY, SPACES[name].small)


def samples(name: str, count: int = 4) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space_of(name).sample(rng) for _ in range(count)]


@every_space
def test_samples_depend_on_the_generator_alone_and_survive_json(name):
    for architecture, again in zip(samples(name), samples(name)):
        assert architecture == again and architecture.key == again.key and architecture.space == name
        data = json.loads(json.dumps(architecture.to_json()))
        for restored in (architecture_from_json(data), space_of(name).from_json(data)):
            assert restored == architecture and restored.key == architecture.key
        assert SPACES[name].config_of(architecture) == SPACES[name].small
        assert architecture.short().startswith(architecture.key[:8])
        assert set(architecture.multipliers) <= {multiplier.name for multiplier in LIBRARY}
    with pytest.raises(InputError):
        architecture_from_json({**data, "space": "none"})
    with pytest.raises(InputError):
        SPACES[name].architecture_type.from_json([])


@every_space
def test_every_combination_of_decisions_is_a_network_and_options_make_different_ones(name):
    space, rng = space_of(name), np.random.default_rng(0)
    decisions = space.decisions()
    assert bool(decisions) == (name in deciding()) == (name != "chain")
    if not decisions:
        with pytest.raises(InputError, match=f"the networks of {name} are not made up"):
            space.decided({})

    def draw() -> dict:
        return {each: options[int(rng.integers(len(options)))] for each, options in decisions.items()}

    def matters(each: str, options: tuple) -> bool:
        """Whether two options make different networks in one of some draws; a gene of a grid is often inactive."""
        drawn = (draw() for _ in range(100))
        return any(
            space.decided(d | {each: options[0]}).key != space.decided(d | {each: options[-1]}).key for d in drawn
        )

    for _ in range(20 if decisions else 0):
        architecture = space.decided(draw())
        assert space.from_json(architecture.to_json()) == architecture
    counted = [matters(each, options) for each, options in decisions.items() if len(options) > 1]
    assert sum(counted) >= 0.9 * len(counted)


@every_space
def test_mutation_and_drift_do_what_they_say_to_the_key(name):
    space, rng = space_of(name), np.random.default_rng(1)
    for architecture in samples(name):
        assert space.mutate(architecture, rng).key != architecture.key
        assert space.drift(architecture, rng).key == architecture.key


@every_space
def test_one_multiplier_everywhere_is_one_multiplier(name):
    for architecture in samples(name):
        for scope in SPACES[name].scopes:
            changed = architecture.with_multiplier("mul8s_1L2H", scope)
            assert set(changed.multipliers) <= {"mul8s_1L2H"} and changed.scope == scope
    with pytest.raises(InputError):
        architecture.with_scope("nothing")


@every_space
@pytest.mark.parametrize("arithmetic", list(ARITHMETICS))
def test_networks_compute_in_every_arithmetic(name, arithmetic):
    network = space_of(name).build(samples(name)[0], SHAPE, arithmetic)
    logits = network(torch.randn(3, *SHAPE.input_shape))
    assert logits.shape == (3, 5) and torch.isfinite(logits).all()
    with pytest.raises(InputError, match="arithmetic"):
        space_of(name).build(samples(name)[0], SHAPE, "int9")


@every_space
def test_cost_rows_name_multipliers_and_count_every_product(name):
    """Against a count of what the layers of the network do, by hooks of another kind than those of the trace."""
    architecture = samples(name)[1]
    network, counted = space_of(name).build(architecture, SHAPE, "fp32"), []

    def count(layer, _, output):
        inner = layer.weight[0].numel()
        counted.append(inner * output[0].numel())

    for layer in network.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(count)
    network.eval()(torch.randn(1, *SHAPE.input_shape))
    rows = space_of(name).costs(architecture, SHAPE)
    assert total_macs(rows) == sum(counted) > 0
    assert {row.multiplier.name for row in rows if row.multiplier} == set(architecture.multipliers)


def test_the_chains_rows_are_those_counted_by_hand():
    """8 × 6 pixels: 3 → 4 channels by 1×1, 4 → 4 by 3×3, then 4 → 5."""
    chain = Chain((("conv_1x1", "mul8s_1KV8"), ("conv_3x3", "mul8s_1L2H")))
    rows = space_of("chain").costs(chain, SHAPE)
    multiplying = [(row.macs, row.multiplier.name) for row in rows if row.multiplier]
    assert multiplying == [(48 * 12, "mul8s_1KV8"), (48 * 9 * 16, "mul8s_1L2H"), (20, "mul8s_1L2H")]


@every_space
def test_weights_are_inherited_by_modules_that_both_have(name):
    space = space_of(name)
    parent = samples(name)[2]
    networks = [space.build(parent, SHAPE), space.build(parent, SHAPE)]
    modules = space.inherited(parent, parent, SHAPE)
    assert modules and all(own == theirs for own, theirs in modules.items())
    inherit(networks[0], networks[1].state_dict(), modules)
    for own, mine in networks[0].named_parameters():
        if any(own.startswith(f"{module}.") for module in modules):
            assert torch.equal(mine, networks[1].get_parameter(own)), own
    child = space.mutate(parent, np.random.default_rng(0))
    known = [dict(space.build(a, SHAPE).named_modules()) for a in (child, parent)]
    for own, theirs in space.inherited(child, parent, SHAPE).items():
        assert own in known[0] and theirs in known[1]


@every_space
def test_drawings_and_tables_show_every_operation(name, tmp_path):
    for number, architecture in enumerate(samples(name, 2)):
        for twice in "ab":
            save_drawing(architecture, tmp_path / f"{number}{twice}.svg")
        first, second = ((tmp_path / f"{number}{twice}.svg").read_bytes() for twice in "ab")
        assert first == second
        edges = SPACES[name].edges(architecture)
        assert edges and {edge.operation for edge in edges} <= set(SPACES[name].operation_names)
        assert {edge.multiplier for edge in edges} - {""} <= set(architecture.multipliers)


@every_space
def test_sites_have_names_of_their_own(name):
    space = space_of(name)
    assert space.sites and len(set(space.sites)) == len(space.sites)


@every_space
def test_settings_are_flags_of_their_space_alone(name):
    field = fields(SPACES[name].Config)[0].name
    value = getattr(SPACES[name].small, field)
    flag = f"--{name}.{field}"
    (plan,), _ = plan_runs(parse(["--method", "random", "--space", name, flag, str(value)]), "test")
    assert (plan.space, plan.space_config[field]) == (name, value)
    other = next(other for other in SPACES if other != name)
    with pytest.raises(InputError, match=f"belongs to space '{name}'"):
        parse(["--method", "random", "--space", other, flag, str(value)])


def test_one_file_is_a_space_that_can_be_searched():
    problem = tiny.problem("random", space="chain")
    method = RandomSearch(problem, RandomConfig(samples=3, batch=3))
    method.step()
    assert all(isinstance(problem.space, ChainSpace) and len(a.links) == 2 for a in method.proposals())
    assert asdict(problem.space.config) == {"length": 2}


# -- spaces that can be searched by gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", differentiable())
def test_choices_untied_cost_what_they_cost_tied(name):
    """Who reads which row is data: rows of their own that say the same make the same network at the same cost."""
    space = space_of(name)
    tied = space.choices(SHAPE)
    untied = {key: choice.untied() for key, choice in tied.items()}
    assert any(untied[key].count > tied[key].count for key in tied)
    generator = torch.Generator().manual_seed(0)
    shares = {
        key: torch.rand(choice.count, len(choice.options), generator=generator).softmax(-1)
        for key, choice in tied.items()
    }
    repeated = {}
    for key, choice in untied.items():
        row_of = {}
        for place, rows in choice.rows.items():
            row_of |= dict(zip(rows.flatten().tolist(), tied[key].rows[place].flatten().tolist()))
        repeated[key] = shares[key][[row_of[row] for row in range(choice.count)]]
    model = tiny.problem().cost_model
    costs = [
        space.expected_cost(SHAPE, choices, model, torch.device("cpu"))(given).item()
        for choices, given in ((tied, shares), (untied, repeated))
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-9)
    images, answers = torch.randn(2, *SHAPE.input_shape, generator=generator), []
    for choices, given in ((tied, shares), (untied, repeated)):
        torch.manual_seed(0)
        net = space.supernet(SHAPE, choices)
        net.choose(given)
        answers.append(net(images))
    assert torch.allclose(*answers, atol=1e-5)
    networks = [
        space.build(space.derive({key: share.numpy() for key, share in given.items()}, choices), SHAPE, "fp32")
        for choices, given in ((tied, shares), (untied, repeated))
    ]
    assert [str(network) for network in networks[:1]] == [str(networks[1])]
