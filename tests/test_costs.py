"""Costs and energies of networks counted by hand, the published numbers, and expectations by enumeration."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.runs.architecture_files import resolve
from spaces.arithmetic.factory import FixedLayers, Sum
from spaces.cells.architecture import CHOSEN_OPERATIONS, OPERATION_NAMES, Cell, CellArchitecture, Edge
from spaces.cells.expected import ExpectedCellCost
from spaces.cells.published import PUBLISHED
from spaces.cells.sites import CellConfig
from spaces.cells.space import CellSpace
from spaces.costs import COSTS
from spaces.costs.model import Cost
from spaces.costs.trace import LayerCost, LayerGeometry, total_macs, total_params, trace
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

HOROWITZ, SYSTEM, APPROXDARTS, MEMORY = (COSTS[name] for name in ("horowitz45", "system45", "approxdarts", "memory"))
every_model = pytest.mark.parametrize("model", COSTS.values(), ids=lambda model: model.name)
EXACT = catalogue.get("mul8s_1KV8")
HALF = Multiplier(name="half", signed=True, table=catalogue.get("mul8s_1KX2").table, power_mw=0.2125)


# -- networks small enough to count by hand ----------------------------------------------------------------------------


class Tiny(nn.Module):
    """Conv with bias, normalisation, two poolings, their sum, global pooling, linear."""

    def __init__(self, multiplier: Multiplier | None) -> None:
        super().__init__()
        layers = FixedLayers("fp32", multiplier)
        self.conv = layers.conv(2, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = layers.conv(4, 4, (1, 3), padding=(0, 1), groups=4, bias=False, kind="separable")
        self.maximum, self.average = nn.MaxPool2d(3, 1, 1), nn.AvgPool2d((1, 3), 1, (0, 1))
        self.add = Sum()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = layers.linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.norm(self.conv(x)).relu())
        x = self.add(self.maximum(x), self.average(x), x)
        return self.linear(self.pool(x).flatten(1))


# From an 8×6 image of two channels: 4×3 pixels of four channels, 48 values.
# name: kind, MACs, additions, parameters, values moved
BY_HAND = {
    "conv": ("conv", 48 * 18, 48 * 18 + 48, 4 * 2 * 9 + 4, 96 + 48),
    "norm": ("norm", 0, 48, 8, 0),
    "depthwise": ("separable", 48 * 3, 48 * 3, 12, 96),
    "maximum": ("pool", 0, 48 * 8, 0, 96),
    "average": ("pool", 0, 48 * 2, 0, 96),
    "add": ("sum", 0, 96, 0, 4 * 48),
    "pool": ("pool", 0, 4 * 11, 0, 52),
    "linear": ("linear", 40, 50, 50, 14),
}
MULTIPLYING = ("conv", "depthwise", "linear")


def rows_of(multiplier: Multiplier | None, integer: bool) -> dict[str, LayerCost]:
    return {row.name: row for row in trace(Tiny(multiplier), (2, 8, 6), integer)}


@pytest.mark.parametrize("multiplier", [None, EXACT, HALF])
@pytest.mark.parametrize("integer", [True, False])
def test_costs_are_those_counted_by_hand(multiplier, integer):
    rows = rows_of(multiplier, integer)
    assert set(rows) == set(BY_HAND)
    for name, row in rows.items():
        assert (row.kind, row.macs, row.adds, row.params, row.activations) == BY_HAND[name], name
        assert row.multiplier is (multiplier if name in MULTIPLYING else None)
        assert row.integer == (multiplier is not None if name in MULTIPLYING else integer)
    assert total_macs(rows.values()) == 864 + 144 + 40
    assert total_params(rows.values()) == sum(p.numel() for p in Tiny(multiplier).parameters())


@pytest.mark.parametrize("training", [True, False])
def test_tracing_leaves_the_network_as_it_was(training):
    network = Tiny(EXACT).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace(network, (2, 8, 6), integer=True)
    assert network.training == network.norm.training == training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_tracing_needs_no_memory_on_the_meta_device():
    with torch.device("meta"):
        rows = {row.name: row for row in trace(Tiny(HALF), (2, 8, 6), integer=True)}
    assert rows == rows_of(HALF, integer=True)


def test_horowitz_by_hand():
    """The whole network on integers: int8 products of 0.2 pJ, int32 additions of 0.1 pJ, 2.5 pJ per byte moved."""
    rows = rows_of(HALF, integer=True)
    macs = 864 + 144 + 40
    adds = 912 + 48 + 144 + 384 + 96 + 96 + 44 + 50
    values = 144 + 96 + 96 + 96 + 192 + 52 + 14 + (76 + 8 + 12 + 50)
    fp32, int8, approximate = (HOROWITZ.network(rows.values(), a) for a in ("fp32", "int8", "approximate"))
    assert fp32.parts["multiplications"] == pytest.approx(macs * 3.7)
    assert fp32.parts["additions"] == pytest.approx(adds * 0.9)
    assert fp32.apart["memory"] == pytest.approx(4 * values * 2.5)
    assert int8.parts["multiplications"] == pytest.approx(macs * 0.2)
    assert approximate.parts["multiplications"] == pytest.approx(macs * 0.1)
    for energy in (int8, approximate):
        assert energy.parts["additions"] == pytest.approx(adds * 0.1)
        assert energy.apart["memory"] == pytest.approx(values * 2.5)
        assert energy.total == pytest.approx(energy.parts["multiplications"] + energy.parts["additions"])


def test_horowitz_with_ungoverned_layers_by_hand():
    """Without a circuit and in a network that is not quantised as a whole, everything stays fp32."""
    rows = list(rows_of(None, integer=False).values())
    assert HOROWITZ.network(rows, "approximate") == HOROWITZ.network(rows, "int8") == HOROWITZ.network(rows, "fp32")
    rows = list(rows_of(HALF, integer=False).values())  # governed products, but pooling, sums and norms in fp32
    fp32_adds, int_adds = 48 + 384 + 96 + 96 + 44, 912 + 144 + 50
    assert HOROWITZ.network(rows, "int8").parts["additions"] == pytest.approx(fp32_adds * 0.9 + int_adds * 0.1)


def test_approxdarts_by_hand():
    """Multiplications only, and 8-bit in the separable convolution alone."""
    rows = rows_of(HALF, integer=True)
    fp32, int8, approximate = (APPROXDARTS.network(rows.values(), a) for a in ("fp32", "int8", "approximate"))
    assert fp32 == Cost({"multiplications": pytest.approx(1048 * 3.7), "additions": 0.0})
    assert int8 == Cost({"multiplications": pytest.approx(904 * 3.7 + 144 * 0.391), "additions": 0.0})
    assert approximate == Cost({"multiplications": pytest.approx(904 * 3.7 + 144 * 0.391 / 2), "additions": 0.0})


def test_system_by_hand():
    """Beside operations: 3.1 pJ for each of 48 + 48 + 10 outputs and each of 48 + 4 averages, and all that is moved."""
    rows = rows_of(HALF, integer=True)
    fp32, int8, approximate = (SYSTEM.network(rows.values(), a) for a in ("fp32", "int8", "approximate"))
    for cost, arithmetic in ((fp32, "fp32"), (int8, "int8"), (approximate, "approximate")):
        operations = HOROWITZ.network(rows.values(), arithmetic)
        around = {"memory": operations.apart["memory"]}
        around |= {"requantisation": 0.0, "divisions": 52 * 3.7} if cost is fp32 else {}
        around = {"requantisation": 106 * 3.1, "divisions": 52 * 3.1} | around
        assert cost.parts == pytest.approx(dict(operations.parts) | around) and not cost.apart
    rows = rows_of(HALF, integer=False)  # averages in fp32
    assert SYSTEM.network(rows.values(), "int8").parts["divisions"] == pytest.approx(52 * 3.7)


def test_a_saving_depends_on_what_is_counted():
    """The first network that was recorded: 31.5 % below exact int8 by arithmetic, and 7.8 % with all that is around it."""
    given = resolve(str(Path(__file__).with_name("golden") / "first_network.json"))
    space = CellSpace(given.library, CellSpace.config_of(given.architecture), scope="all", choice="edge")
    rows = space.costs(given.architecture, NetworkShape(8, 3, 10, (1, 8, 8), False))
    int8, approximate = (SYSTEM.network(rows, arithmetic).parts for arithmetic in ("int8", "approximate"))
    operations = ["multiplications", "additions"]
    saved = {
        counted: round(100 * (1 - sum(approximate[p] for p in parts) / sum(int8[p] for p in parts)), 1)
        for counted, parts in {
            "arithmetic": operations,
            "requantisation": [*operations, "requantisation"],
            "memory": [*operations, "memory"],
            "both": [*operations, "requantisation", "memory"],
            "all": list(int8),
        }.items()
    }
    assert saved == {"arithmetic": 31.5, "requantisation": 21.3, "memory": 9.2, "both": 8.1, "all": 7.8}


def test_memory_by_hand():
    """Four bytes a value in fp32, one on integers, each 2.5 pJ; weights and activations are told apart."""
    rows = rows_of(HALF, integer=True)
    params, activations = 76 + 8 + 12 + 50, 144 + 96 + 96 + 96 + 192 + 52 + 14
    fp32, int8, approximate = (MEMORY.network(rows.values(), a) for a in ("fp32", "int8", "approximate"))
    assert fp32.parts == pytest.approx({"weights": 10 * params, "activations": 10 * activations})
    assert int8 == approximate
    assert int8.parts == pytest.approx({"weights": 2.5 * params, "activations": 2.5 * activations})
    assert HOROWITZ.network(rows.values(), "fp32").apart == pytest.approx({"memory": fp32.total})


@every_model
@pytest.mark.parametrize("arithmetic", ["fp32", "int8", "approximate"])
def test_layers_add_up_to_the_network(model, arithmetic):
    rows = list(rows_of(HALF, integer=True).values())
    whole, layers = model.network(rows, arithmetic), [model.layer(row, arithmetic) for row in rows]
    for part, amount in whole.parts.items():
        assert amount == pytest.approx(sum(layer.parts[part] for layer in layers))
    assert whole.total == pytest.approx(sum(whole.parts.values())) and whole.total > 0


@every_model
def test_a_layer_that_is_skipped_costs_its_share(model):
    row = rows_of(HALF, integer=True)["conv"]
    for arithmetic in ("fp32", "int8", "approximate"):
        once, skipped = (model.layer(replace(row, share=share), arithmetic) for share in (1.0, 0.25))
        assert skipped.total == pytest.approx(once.total / 4)
        assert skipped.apart == pytest.approx({part: amount / 4 for part, amount in once.apart.items()})
    assert model.linear(replace(row, share=0.25)) == pytest.approx([part / 4 for part in model.linear(row)])


@every_model
@pytest.mark.parametrize("name", list(BY_HAND))
def test_a_layer_costs_what_its_linear_form_says(model, name):
    for multiplier in (EXACT, HALF):
        row = rows_of(multiplier, integer=True)[name]
        scaled, fixed = model.linear(row)
        assert fixed + scaled * model.ratio(multiplier) == pytest.approx(model.layer(row, "approximate").total)
        assert fixed + scaled == pytest.approx(model.layer(row, "int8").total)


def test_rows_say_how_large_their_layers_are():
    rows = rows_of(HALF, integer=True)
    assert rows["conv"].geometry == LayerGeometry((2, 8, 6), (4, 4, 3), (3, 3), (2, 2), (1, 1))
    assert rows["depthwise"].geometry == LayerGeometry((4, 4, 3), (4, 4, 3), (1, 3), (1, 1), (1, 1), 4)
    assert rows["maximum"].geometry == LayerGeometry((4, 4, 3), (4, 4, 3), (3, 3), (1, 1), (1, 1))
    assert rows["average"].geometry == LayerGeometry((4, 4, 3), (4, 4, 3), (1, 3), (1, 1))
    assert rows["add"].geometry == rows["norm"].geometry == LayerGeometry((4, 4, 3), (4, 4, 3))
    assert rows["linear"].geometry == LayerGeometry((4,), (10,))


@pytest.mark.parametrize("registry", ["spaces.costs:COSTS", "spaces.arithmetic.arithmetics:ARITHMETICS"])
def test_names_and_descriptions_are_known_without_torch(registry):
    module, name = registry.split(":")
    program = f"import sys; from {module} import {name} as R; [R[n] for n in R]; print(*R, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    *names, imported = done.stdout.split()
    assert len(names) >= 3 and imported == "False"


def test_models_state_the_constants_of_their_sources():
    assert (HOROWITZ.fp32_mult, HOROWITZ.fp32_add, HOROWITZ.int8_mult, HOROWITZ.int32_add) == (3.7, 0.9, 0.2, 0.1)
    assert (APPROXDARTS.fp32_mult, APPROXDARTS.int8_mult) == (3.7, 0.391)
    assert APPROXDARTS.fp32_add == APPROXDARTS.int32_add == 0


def test_an_unknown_model_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean horowitz45"):
        COSTS["horowitz"]


@pytest.mark.parametrize("amount", [math.nan, math.inf, -1.0])
def test_a_model_that_gives_no_amount_is_refused(amount):
    class Broken(type(COSTS["memory"])):
        name = "broken"

        def once(self, row, arithmetic):  # noqa: ARG002
            return Cost({"weights": amount})

    with pytest.raises(InputError, match="the cost model 'broken' gives"):
        Broken().network(trace(Tiny(None), (2, 8, 6), integer=True), "int8")


def test_a_multiplier_without_power_has_no_energy():
    unknown = Multiplier(name="unknown", signed=True, table=EXACT.table)
    row = LayerCost("layer", "conv", 10, unknown, 10, 0, 0, integer=True)
    assert HOROWITZ.layer(row, "int8").parts["multiplications"] == pytest.approx(2.0)
    with pytest.raises(InputError, match="unknown has no power figure"):
        HOROWITZ.layer(row, "approximate")


# -- the published network ---------------------------------------------------------------------------------------------

CIFAR = NetworkShape(channels=36, cells=20, classes=10, input_shape=(3, 32, 32))


def darts_v2(multiplier: str, scope: str) -> CellArchitecture:
    return PUBLISHED["DARTS_V2"].architecture(multiplier, scope)


@pytest.mark.parametrize("scope", ["separable", "all"])
def test_darts_v2_costs_and_saves_what_was_published(scope):
    multiplier = Multiplier(name="mul8s_0515", signed=True, table=HALF.table, power_mw=0.515 * 0.425)
    rows = CellSpace([multiplier], scope=scope).costs(darts_v2(multiplier.name, scope), CIFAR)
    assert total_params(rows) == 3_349_342
    assert total_macs(rows) / 1e6 == pytest.approx(528.4, abs=0.05)
    separable = sum(row.macs for row in rows if row.kind == "separable")
    assert separable / total_macs(rows) == pytest.approx(0.5699, abs=5e-5)
    fp32, int8, approximate = (APPROXDARTS.network(rows, a).total for a in ("fp32", "int8", "approximate"))
    assert int8 / fp32 == pytest.approx(0.490, abs=5e-4)
    assert 1 - approximate / fp32 == pytest.approx(0.539, abs=5e-4)  # published: 53.84 %
    assert 1 - approximate / int8 == pytest.approx(0.0595, abs=1e-4)  # published: 5.97 %
    # By hand: the share f of separable products becomes 0.391/3.7 of itself.
    share = separable / total_macs(rows)
    assert int8 / fp32 == pytest.approx(1 - share + share * 0.391 / 3.7)


def test_the_scope_changes_the_default_accounting():
    """Under horowitz45 a network of scope "all" is wholly on integers, one of scope "separable" only in part."""
    multiplier = Multiplier(name="mul8s_half", signed=True, table=HALF.table, power_mw=0.2125)
    rows = {
        s: CellSpace([multiplier], scope=s).costs(darts_v2(multiplier.name, s), CIFAR) for s in ("all", "separable")
    }
    macs, separable = total_macs(rows["all"]), sum(row.macs for row in rows["all"] if row.kind == "separable")
    everything, part = (HOROWITZ.network(rows[s], "approximate").parts["multiplications"] for s in ("all", "separable"))
    assert everything == pytest.approx(macs * 0.1)
    assert part == pytest.approx(separable * 0.1 + (macs - separable) * 3.7)


# -- expectations ------------------------------------------------------------------------------------------------------

SMALL = NetworkShape(channels=4, cells=4, classes=3, input_shape=(1, 7, 6))
LIBRARY = [catalogue.get(f"mul8s_{name}") for name in ("1KV8", "1L2H", "1KR3")]
OPERATIONS = len(CHOSEN_OPERATIONS)


def one_hot(indices, width: int) -> torch.Tensor:
    return torch.eye(width, dtype=torch.float64)[torch.as_tensor(indices)]


class Expectation:
    """The space's expected cost, of operations (2, E, options) by type of cell, and multipliers (sites, M)."""

    def __init__(self, cost: ExpectedCellCost) -> None:
        self.cost, self.exact_uniform = cost, cost.exact_uniform

    def __call__(self, operations: torch.Tensor, multipliers: torch.Tensor) -> torch.Tensor:
        return self.cost({"alpha": operations.flatten(0, 1), "beta": multipliers})

    def relative_costs(self) -> torch.Tensor:
        return self.cost.relative["alpha"][:, 1:].unflatten(0, (2, -1))


def expectation(space: CellSpace, model=HOROWITZ, shape: NetworkShape = SMALL) -> Expectation:
    return Expectation(space.expected_cost(shape, space.choices(shape), model, torch.device("cpu")))


def network_of(space: CellSpace, kept: list[list[tuple[int, ...]]], operations, multipliers) -> CellArchitecture:
    """The architecture with the given sources of every node, operations (2, E) and circuits (sites)."""
    names = [space.library[index].name for index in multipliers]
    sites, cells = space.ties, []
    for kind in range(2):
        nodes = []
        for node, sources in enumerate(kept[kind]):
            edges = [space.edge_places.index((node, source)) for source in sources]
            nodes.append(
                tuple(
                    Edge(source, OPERATION_NAMES[1 + operations[kind][edge]], names[sites.edges[kind, edge]])
                    for source, edge in zip(sources, edges)
                )
            )
        cells.append(Cell(tuple(nodes), bool(kind), names[sites.cells[kind]] if sites.cells else None))
    return CellArchitecture(tuple(cells), None if sites.network is None else names[sites.network], space.scope)


def energy_of(space: CellSpace, architecture: CellArchitecture, model, shape: NetworkShape = SMALL) -> float:
    return model.network(space.costs(architecture, shape), "approximate").total


@pytest.mark.parametrize("model", [HOROWITZ, APPROXDARTS], ids=["horowitz45", "approxdarts"])
@pytest.mark.parametrize("scope", ["all", "separable"])
@pytest.mark.parametrize("choice", ["edge", "cell", "network"])
def test_a_certain_choice_costs_what_its_network_costs(choice, scope, model):
    """With one node both of its edges are kept, so that certain probabilities leave a single network."""
    space = CellSpace(LIBRARY, CellConfig(1), scope=scope, choice=choice)
    expected, rng = expectation(space, model), np.random.default_rng(5)
    for _ in range(4):
        operations = rng.integers(OPERATIONS, size=(2, 2))
        multipliers = rng.integers(len(LIBRARY), size=space.ties.count)
        got = expected(one_hot(operations + 1, OPERATIONS + 1), one_hot(multipliers, len(LIBRARY)))
        architecture = network_of(space, [[(0, 1)], [(0, 1)]], operations, multipliers)
        assert got.item() == pytest.approx(energy_of(space, architecture, model), rel=1e-12)


@pytest.mark.parametrize("operation", range(OPERATIONS), ids=CHOSEN_OPERATIONS)
def test_every_operation_costs_what_it_costs_in_a_network(operation):
    space = CellSpace(LIBRARY, CellConfig(1))
    got = expectation(space)(
        one_hot(np.full((2, 2), operation + 1), OPERATIONS + 1), one_hot(np.full(space.ties.count, 1), len(LIBRARY))
    )
    architecture = network_of(space, [[(0, 1)]] * 2, np.full((2, 2), operation), [1] * space.ties.count)
    assert got.item() == pytest.approx(energy_of(space, architecture, HOROWITZ), rel=1e-12)


def test_uncertain_edges_cost_the_mean_over_all_pairs():
    """Two nodes, certain operations: the second node keeps each of its three pairs of edges equally often."""
    space, rng = CellSpace(LIBRARY, CellConfig(2)), np.random.default_rng(1)
    operations = rng.integers(OPERATIONS, size=(2, len(space.edge_places)))
    operations[:, space.edge_places.index((1, 2))] = CHOSEN_OPERATIONS.index(
        "dil_conv_5x5"
    )  # halved in the reduction cell
    multipliers = rng.integers(len(LIBRARY), size=space.ties.count)
    got = expectation(space)(one_hot(operations + 1, OPERATIONS + 1), one_hot(multipliers, len(LIBRARY)))
    pairs = list(itertools.combinations(range(3), 2))
    energies = [
        energy_of(space, network_of(space, [[(0, 1), first], [(0, 1), second]], operations, multipliers), HOROWITZ)
        for first, second in itertools.product(pairs, pairs)
    ]
    assert len(set(energies)) > 3
    assert got.item() == pytest.approx(sum(energies) / 9, rel=1e-12)


@pytest.mark.parametrize("kind", [0, 1], ids=["normal", "reduction"])
def test_uncertain_operations_cost_their_mean(kind):
    """All 49 pairs of operations of one cell, weighted by the probabilities without "none"."""
    space, rng = CellSpace(LIBRARY, CellConfig(1)), np.random.default_rng(2)
    fixed = rng.integers(OPERATIONS, size=(2, 2))
    multipliers = rng.integers(len(LIBRARY), size=space.ties.count)
    probabilities = one_hot(fixed + 1, OPERATIONS + 1).numpy()
    probabilities[kind] = rng.dirichlet(np.ones(OPERATIONS + 1), size=2)
    assert (probabilities[kind, :, 0] > 0.01).all()  # "none" has its share, which counts for nothing
    got = expectation(space)(torch.from_numpy(probabilities), one_hot(multipliers, len(LIBRARY)))
    chosen = probabilities[kind, :, 1:] / probabilities[kind, :, 1:].sum(axis=1, keepdims=True)
    total = 0.0
    for pair in itertools.product(range(OPERATIONS), repeat=2):
        operations = fixed.copy()
        operations[kind] = pair
        energy = energy_of(space, network_of(space, [[(0, 1)]] * 2, operations, multipliers), HOROWITZ)
        total += chosen[0, pair[0]] * chosen[1, pair[1]] * energy
    assert got.item() == pytest.approx(total, rel=1e-12)


def test_uncertain_multipliers_cost_their_mean():
    space, rng = CellSpace(LIBRARY[:2], CellConfig(1), choice="cell"), np.random.default_rng(3)
    operations = np.full((2, 2), CHOSEN_OPERATIONS.index("sep_conv_5x5"))
    beta = rng.dirichlet(np.ones(2), size=space.ties.count)
    got = expectation(space)(one_hot(operations + 1, OPERATIONS + 1), torch.from_numpy(beta))
    total = 0.0
    for multipliers in itertools.product(range(2), repeat=space.ties.count):
        energy = energy_of(space, network_of(space, [[(0, 1)]] * 2, operations, multipliers), HOROWITZ)
        total += math.prod(row[index] for row, index in zip(beta, multipliers)) * energy
    assert got.item() == pytest.approx(total, rel=1e-12)


def test_the_expectation_is_the_mean_of_sampled_networks():
    """Uniform probabilities against 200 uniform draws: within three standard errors, of 2 % each."""
    space, rng = CellSpace(LIBRARY, CellConfig(2)), np.random.default_rng(0)
    uniform = torch.ones(2, len(space.edge_places), OPERATIONS + 1)
    shape = NetworkShape(channels=4, cells=3, classes=3, input_shape=(1, 7, 6))
    beta = torch.full((space.ties.count, len(LIBRARY)), 1 / len(LIBRARY))
    got = expectation(space, shape=shape)(uniform / (OPERATIONS + 1), beta).item()
    energies = np.array([energy_of(space, space.sample(rng), HOROWITZ, shape) for _ in range(200)])
    error = energies.std(ddof=1) / np.sqrt(len(energies))
    assert error < 0.02 * got
    assert abs(energies.mean() - got) < 3 * error


def test_the_yardsticks_of_the_expectation():
    space = CellSpace(LIBRARY, CellConfig(2))
    expected = expectation(space)
    uniform = torch.full((2, len(space.edge_places), OPERATIONS + 1), 1 / (OPERATIONS + 1), dtype=torch.float64)
    exact = one_hot(np.zeros(space.ties.count, dtype=int), len(LIBRARY))  # the library's first is the exact circuit
    assert expected.exact_uniform() == pytest.approx(expected(uniform, exact).item(), rel=1e-12)
    relative = expected.relative_costs()
    assert relative.shape == (2, len(space.edge_places), OPERATIONS)
    assert (relative.amax(dim=-1) == 1).all() and (relative >= 0).all()
    sep5, sep3 = (CHOSEN_OPERATIONS.index(name) for name in ("sep_conv_5x5", "sep_conv_3x3"))
    assert (relative.argmax(dim=-1) == sep5).all()
    # Normal edges at 4 channels per pixel: two times (25 or 9) depthwise and 4 pointwise products, and a shift each.
    by_hand = 2 * ((9 + 4) * 0.3 + 0.1) / (2 * ((25 + 4) * 0.3 + 0.1))
    one_cell = expectation(space, shape=NetworkShape(4, 3, 3, (1, 8, 8)))
    assert one_cell.relative_costs()[0, :, sep3].tolist() == pytest.approx([by_hand] * len(space.edge_places))


def test_the_expectation_is_differentiable():
    space = CellSpace(LIBRARY, CellConfig(2))
    expected, scale = expectation(space), 1e-3
    operations = torch.rand(2, len(space.edge_places), OPERATIONS + 1, dtype=torch.float64) + 0.1
    multipliers = torch.rand(space.ties.count, len(LIBRARY), dtype=torch.float64)
    operations.requires_grad_(), multipliers.requires_grad_()
    assert torch.autograd.gradcheck(lambda o, c: expected(o, c) * scale, (operations, multipliers), eps=1e-5, rtol=1e-6)
    # Linear in the circuits: any step gives the derivative.
    gradient = torch.autograd.grad(expected(operations, multipliers), multipliers)[0]
    step = 10 * torch.randn_like(multipliers)
    with torch.no_grad():
        difference = expected(operations, multipliers + step) - expected(operations, multipliers)
    assert difference.item() == pytest.approx((gradient * step).sum().item(), rel=1e-9)
    assert (gradient[:, 0] > gradient[:, 1]).all()  # the exact circuit costs more than a cheaper one


def test_the_expectation_grows_with_the_image_and_the_depth():
    space = CellSpace(LIBRARY, CellConfig(1))
    uniform = torch.full((2, 2, OPERATIONS + 1), 1 / (OPERATIONS + 1))
    beta = torch.full((space.ties.count, 3), 1 / 3)
    shapes = [NetworkShape(4, cells, 3, (1, *size)) for cells, size in ((3, (8, 8)), (3, (8, 16)), (6, (8, 16)))]
    energies = [expectation(space, shape=shape)(uniform, beta).item() for shape in shapes]
    assert energies[0] < energies[1] < energies[2]
    assert energies[1] / energies[0] == pytest.approx(2, rel=0.01)  # twice the pixels; the classifier alone stays
