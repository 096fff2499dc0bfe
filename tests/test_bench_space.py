"""The bench space: what counts as one network, what its cells compute, and what they cost."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.arithmetic.factory import FixedLayers
from spaces.bench.architecture import OPERATION_NAMES, BenchArchitecture, BenchEdge, places
from spaces.bench.network import build
from spaces.bench.space import BenchConfig, BenchSpace
from spaces.costs import COSTS
from spaces.costs.trace import total_macs
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape

NAMES = ["mul8s_1KV8", "mul8s_1L1G", "bam8s_4_4_0"]
LIBRARY = catalogue.library(NAMES)
SHAPE = NetworkShape(channels=4, cells=2, classes=5, input_shape=(1, 8, 8))
SKIP = BenchEdge("skip_connect")


def conv(kernel: int, multiplier: str = NAMES[0]) -> BenchEdge:
    return BenchEdge(f"conv_{kernel}x{kernel}", multiplier)


def architecture(*edges: BenchEdge) -> BenchArchitecture:
    return BenchArchitecture(edges, NAMES[0])


def number(edges, x: float) -> float:
    """What a cell makes of a number, where every operation is a function of its own: follows the edges, knows no program."""
    nodes = [x]
    for node in range(1, 1 + max(to for _, to in places(count_of(edges)))):
        total = 0.0
        for (source, to), edge in zip(places(count_of(edges)), edges):
            if to == node:
                value = nodes[source]
                if edge.operation != "skip_connect":
                    at = OPERATION_NAMES.index(edge.operation) + 10 * len(edge.multiplier or "")
                    value = math.sin(1.3 * value + at)
                total += value
        nodes.append(total)
    return nodes[-1]


def count_of(edges) -> int:
    return next(nodes for nodes in range(2, 7) if len(places(nodes)) == len(edges))


def test_networks_of_three_edges_have_one_key_exactly_where_they_compute_the_same():
    options = [SKIP, *(conv(kernel, name) for kernel in (1, 3) for name in ("a", "bb", "ccc"))]
    keys: dict[str, float] = {}
    for edges in itertools.product(options, repeat=3):
        value = round(number(edges, 0.37), 9)
        assert keys.setdefault(architecture(*edges).key, value) == value
    # Chains of two convolutions beside anything; and unordered pairs of what is side by side
    assert len(keys) == len(set(keys.values())) == 6 * 6 * 7 + 7 * 8 // 2
    assert len(list(BenchSpace(LIBRARY).every())) == len(keys)


operations = st.sampled_from([SKIP, BenchEdge("avg_pool_3x3"), conv(1), conv(3), conv(3, NAMES[1])])


@given(st.lists(operations, min_size=6, max_size=6), st.lists(operations, min_size=6, max_size=6))
def test_cells_of_six_edges_with_one_key_compute_the_same(one, other):
    if architecture(*one).key == architecture(*other).key:
        assert number(one, 0.37) == pytest.approx(number(other, 0.37))


def test_steps_that_look_alike_are_told_apart_by_what_reads_them():
    """A, and B of A, beside another A: whichever A it is that B reads."""
    a, b = conv(1), conv(3)
    # 0→1 A; 0→2 A, 1→2 skip…: the same sums, built over node 1 or over node 2
    over_first = architecture(a, SKIP, b, a, SKIP, SKIP)  # node 3 = A(x) + n1 + (x + B(n1))
    other_way = architecture(a, a, b, SKIP, SKIP, SKIP)  # node 3 = x + n1 + (A(x) + B(n1))
    assert over_first.key == other_way.key
    assert len(over_first.program.steps) == 3


def test_a_network_computes_what_its_cell_says():
    """Against the cell's edges, one after the other, on the network's own operations."""
    edges = (conv(1), conv(3, NAMES[1]), conv(3, NAMES[2]))
    network = BenchSpace(LIBRARY).build(architecture(*edges), SHAPE).eval()
    cell = network.cells[0]
    assert [step.operation for step in cell.program.steps] == [edge.operation for edge in edges]
    x = torch.randn(2, SHAPE.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    first = cell.operations[0](x.relu())
    expected = cell.operations[1](x.relu()) + cell.operations[2](first.relu())
    assert torch.equal(cell(x), expected)


def test_products_are_those_counted_by_hand():
    """8×8 pixels at 4 channels, then 4×4 at 8: stem, 1×1 transition, classifier; the edges at both sizes."""
    space = BenchSpace(LIBRARY)
    around = 64 * 9 * 4 + 16 * 4 * 8 + 8 * 5
    assert total_macs(space.costs(architecture(SKIP, SKIP, SKIP), SHAPE)) == around
    edge = 64 * 9 * 16 + 16 * 9 * 64
    assert total_macs(space.costs(architecture(conv(3), SKIP, SKIP), SHAPE)) == around + edge
    assert total_macs(space.costs(architecture(conv(3), conv(1), conv(3)), SHAPE)) == around + 2 * edge + edge // 9


@pytest.mark.parametrize("settings", [BenchConfig(), BenchConfig(4, True, "nodes")])
def test_the_expected_cost_of_a_decided_supernet_is_that_of_the_derived_network(settings):
    space, rng, model = BenchSpace(LIBRARY, settings), np.random.default_rng(0), COSTS["horowitz45"]
    choices = space.choices(SHAPE)
    cost = space.expected_cost(SHAPE, choices, model, torch.device("cpu"))
    for _ in range(5):
        scores = {name: rng.random((each.count, len(each.options))) for name, each in choices.items()}
        decided = {name: torch.tensor(rows == rows.max(axis=1, keepdims=True)).float() for name, rows in scores.items()}
        derived = space.derive(scores, choices)
        assert float(cost(decided)) == pytest.approx(model.network(space.costs(derived, SHAPE), "approximate").total)
    exact = {name: torch.full((each.count, len(each.options)), 1 / len(each.options)) for name, each in choices.items()}
    exact["beta"] = torch.eye(3)[[0] * choices["beta"].count]
    assert cost.exact_uniform() == pytest.approx(float(cost(exact)))


def test_a_decided_supernet_computes_what_the_derived_network_does():
    space = BenchSpace(LIBRARY)
    choices = space.choices(SHAPE)
    edges = (conv(1), conv(3, NAMES[1]), conv(3, NAMES[2]))
    torch.manual_seed(0)
    net = space.supernet(SHAPE, choices).train()
    options = choices["alpha"].options
    alpha = torch.zeros(3, len(options))
    beta = torch.zeros(3, 3)
    for at, edge in enumerate(edges):
        alpha[at, options.index(edge.operation)] = 1
        beta[at, NAMES.index(edge.multiplier)] = 1
    net.choose({"alpha": alpha, "beta": beta})
    multipliers = {multiplier.name: multiplier for multiplier in LIBRARY}
    alone = build(
        architecture(*edges), SHAPE, lambda name: FixedLayers("approximate", multipliers[name]), affine=False
    ).train()
    with torch.no_grad():
        for part in ("stem", "transitions", "classifier"):
            getattr(alone, part).load_state_dict(getattr(net, part).state_dict())
        for mine, theirs in zip(alone.cells, net.cells):
            for at, edge in enumerate(edges):
                chosen = theirs.edges[at].operations[options.index(edge.operation)]
                mine.operations[at][0].weight.copy_(chosen[0].weight)
    images = torch.randn(6, *SHAPE.input_shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(net(images), alone(images), atol=1e-4)


def test_multipliers_are_tied_where_the_settings_say_so():
    rng = np.random.default_rng(0)
    space = BenchSpace(LIBRARY, BenchConfig(4, True, "nodes"))
    one = space.sample(rng)
    for _ in range(50):
        one = space.mutate(one, rng)
        for node in range(1, 4):
            into = {e.multiplier for e, (_, to) in zip(one.edges, places(4)) if to == node and e.multiplier}
            assert len(into) <= 1
    whole = BenchSpace(LIBRARY, choice="network")
    assert whole.sites == ("network",)
    assert all(len({e.multiplier for e in whole.sample(rng).edges} - {None}) <= 1 for _ in range(20))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="2 to 6 nodes"):
        BenchConfig(nodes=7)
    with pytest.raises(InputError, match="edges"):
        architecture(SKIP, SKIP)
    with pytest.raises(InputError, match="needs a multiplier"):
        architecture(BenchEdge("conv_1x1"), SKIP, SKIP)
    with pytest.raises(InputError, match="did you mean conv_3x3"):
        BenchArchitecture.from_json({"space": "bench", "outer": "x", "edges": [["conv3x3", "x"]]})
    with pytest.raises(InputError, match="nodes"):
        BenchSpace(LIBRARY, BenchConfig(4)).from_json(architecture(SKIP, SKIP, SKIP).to_json())
    with pytest.raises(InputError, match="operation in this bench space"):
        BenchSpace(LIBRARY).from_json(architecture(BenchEdge("avg_pool_3x3"), SKIP, SKIP).to_json())
    with pytest.raises(InputError, match="multiplier"):
        BenchSpace(LIBRARY).build(architecture(conv(1, "mul8s_1L2H"), SKIP, SKIP), SHAPE)
    with pytest.raises(InputError, match="choice"):
        BenchSpace(LIBRARY, choice="cell")
