"""The supernet: with certain choices it is the stand-alone network, in values and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import CHOSEN_OPERATIONS, OPERATION_NAMES, CellArchitecture
from spaces.cells.network import CellNetwork
from spaces.cells.operations import State
from spaces.cells.sites import kinds
from spaces.cells.space import CellSpace
from spaces.cells.supernet import CellSupernet, MixedEdge, check_mixture
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape
from tests.cells import (
    EXACT,
    LIBRARY,
    NAMES,
    SHAPE,
    every_space,
    space_of,
    uneven,
)


def supernet_of(space: CellSpace, shape: NetworkShape, partial: int = 1) -> CellSupernet:
    return space.supernet(shape, space.choices(shape), partial)


def choose(supernet: CellSupernet, operations: Tensor, multipliers: Tensor, sampled: np.ndarray | None = None) -> None:
    """Operations (2, E, options) and ``sampled`` (2, E), by type of cell."""
    picked = None if sampled is None else {"alpha": sampled.reshape(-1)}
    supernet.choose({"alpha": operations.flatten(0, 1), "beta": multipliers}, picked)


def certain(space: CellSpace, architecture: CellArchitecture) -> tuple[Tensor, Tensor, np.ndarray]:
    """One-hot α ("none" on edges that are not kept) and β for an architecture, and the indices of its operations."""
    operations = torch.zeros(2, len(space.edge_places), len(OPERATION_NAMES))
    multipliers = torch.zeros(space.ties.count, len(LIBRARY))
    sampled = np.full((2, len(space.edge_places)), OPERATION_NAMES.index("avg_pool_3x3"))
    operations[..., 0], rows = 1.0, {}
    for kind, cell in enumerate(architecture.cells):
        for node, edges in enumerate(cell.nodes):
            for edge in edges:
                at, operation = space.edge_places.index((node, edge.source)), OPERATION_NAMES.index(edge.operation)
                operations[kind, at, 0], operations[kind, at, operation] = 0.0, 1.0
                sampled[kind, at] = operation
                rows[space.ties.edges[kind, at]] = edge.multiplier or rows.get(space.ties.edges[kind, at])
        if space.scope == "all":
            rows[space.ties.cells[kind]] = cell.multiplier
    if space.scope == "all":
        rows[space.ties.network] = architecture.multiplier
    for row in range(space.ties.count):
        name = rows.get(row)
        multipliers[row, 0 if name is None else NAMES.index(name)] = 1.0
    return operations, multipliers, sampled


def copy_state(supernet: CellSupernet, network: CellNetwork, space: CellSpace, architecture: CellArchitecture) -> None:
    """Weights and buffers of the operations that the architecture keeps, and of everything around the cells."""
    network.stem.load_state_dict(supernet.stem.state_dict())
    head = supernet.classifier.state_dict()
    head["weight"] = head["weight"].flatten(1)
    network.classifier.load_state_dict(head)
    for theirs, mine, kind in zip(supernet.cells, network.cells, kinds(DEEP.cells)):
        mine.project_first.load_state_dict(theirs.project_first.state_dict())
        mine.project_second.load_state_dict(theirs.project_second.state_dict())
        for node, edges in enumerate(architecture.cells[kind].nodes):
            for k, edge in enumerate(edges):
                operation = theirs.body.edges[space.edge_places.index((node, edge.source))].operations[edge.operation]
                mine.body.operations[node][k].load_state_dict(operation.state_dict())


DEEP = NetworkShape(channels=2, cells=4, classes=5, input_shape=(3, 7, 8))


def both_networks(choice: str, scope: str, seed: int) -> tuple:
    space = space_of(choice, scope, nodes=3)
    architecture = uneven(space.sample(np.random.default_rng(seed)))  # nodes of one, three and two edges
    torch.manual_seed(seed)
    supernet = supernet_of(space, DEEP)
    network = space.build(architecture, DEEP, "approximate", searching=True)
    copy_state(supernet, network, space, architecture)
    return space, architecture, supernet, network


@every_space
def test_a_certain_supernet_is_the_stand_alone_network(choice, scope):
    space, architecture, supernet, network = both_networks(choice, scope, seed=len(choice))
    operations, multipliers, sampled = certain(space, architecture)
    for step in range(3):  # scales and statistics move in the same way
        images = torch.randn(4, 3, 7, 8) * (1 + step)
        choose(supernet, operations, multipliers, sampled if step == 1 else None)
        expected = network(images)
        assert expected.std() > 0.01
        assert torch.allclose(supernet(images), expected, rtol=1e-5, atol=1e-5)
    supernet.eval(), network.eval()
    images = torch.randn(4, 3, 7, 8)
    expected = network(images)
    for chosen in (None, sampled):
        choose(supernet, operations, multipliers, chosen)
        assert torch.allclose(supernet(images), expected, rtol=1e-5, atol=1e-5)
    late = space.build(architecture, DEEP, "approximate", searching=True).eval()
    copy_state(supernet, late, space, architecture)
    assert torch.allclose(late(images), expected, rtol=1e-5, atol=1e-5)
    # The comparison can fail: other operations, or other circuits, give other logits.
    choose(supernet, operations.roll(1, dims=-1), multipliers)
    assert not torch.allclose(supernet(images), expected, rtol=1e-4, atol=1e-4)
    if scope == "all":
        choose(supernet, operations, multipliers.roll(1, dims=1))
        assert not torch.allclose(supernet(images), expected, rtol=1e-4, atol=1e-4)


def test_the_gradients_of_a_certain_supernet_are_those_of_the_network():
    space, architecture, supernet, network = both_networks("edge", "all", 2)
    operations, multipliers, sampled = certain(space, architecture)
    images, labels = torch.randn(4, 3, 7, 8), torch.tensor([0, 1, 2, 3])
    choose(supernet, operations, multipliers, sampled)
    for net in (supernet, network):
        nn.functional.cross_entropy(net(images), labels).backward()
    pairs = [(supernet.stem[0], network.stem[0])]
    for theirs, mine, kind in zip(supernet.cells, network.cells, kinds(DEEP.cells)):
        for node, edges in enumerate(architecture.cells[kind].nodes):
            for k, edge in enumerate(edges):
                operation = theirs.body.edges[space.edge_places.index((node, edge.source))].operations[edge.operation]
                pairs.append((operation, mine.body.operations[node][k]))
    compared = 0
    for theirs, mine in pairs:
        for (name, p), (_, q) in zip(theirs.named_parameters(), mine.named_parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5 * q.grad.abs().max().item()), name
            compared += 1
    assert compared > 10


def test_the_supernet_is_differentiable_in_every_choice():
    space = space_of(nodes=2)
    supernet = supernet_of(space, SHAPE)
    alpha = torch.randn(2, len(space.edge_places), len(OPERATION_NAMES), requires_grad=True)
    beta = torch.randn(space.ties.count, len(LIBRARY), requires_grad=True)
    choose(supernet, alpha.softmax(-1), beta.softmax(-1))
    nn.functional.cross_entropy(supernet(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 3])).backward()
    for parameter in (alpha, beta):
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad.abs().amax(dim=-1) > 0).all()


def mixed_edge(channels: int, stride: int, partial: int) -> MixedEdge:
    return MixedEdge(channels, stride, dict.fromkeys((True, False), FixedLayers("fp32", None)), partial)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixed_edge_is_the_weighted_sum_of_its_operations(stride):
    edge, x = mixed_edge(4, stride, 1).eval(), torch.randn(2, 4, 7, 6)
    edge.weights = torch.rand(len(OPERATION_NAMES))
    expected = 0
    for index, name in enumerate(OPERATION_NAMES):
        if name != "none":
            expected = expected + edge.weights[index] * State(x).through(edge.operations[name])
    assert torch.allclose(edge(State(x)), expected, atol=1e-6)
    edge.sampled = "dil_conv_3x3"
    alone = edge.weights[OPERATION_NAMES.index("dil_conv_3x3")] * edge.operations["dil_conv_3x3"](x.relu())
    assert torch.allclose(edge(State(x)), alone, atol=1e-7)
    assert set(edge.operations) == set(CHOSEN_OPERATIONS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("partial", [2, 4])
def test_partial_channels_pass_the_others_by(stride, partial):
    """PC-DARTS: 1/K of the channels computes, the rest is pooled where the stride asks, and the groups interleave."""
    edge, x = mixed_edge(8, stride, partial).eval(), torch.randn(2, 8, 7, 6)
    edge.weights = torch.rand(len(OPERATION_NAMES))
    count = 8 // partial
    inside = sum(
        edge.weights[OPERATION_NAMES.index(name)] * State(x[:, :count]).through(edge.operations[name])
        for name in CHOSEN_OPERATIONS
    )
    beside = x[:, count:]
    if stride == 2:
        padded = nn.functional.pad(beside, (0, 0, 0, 1), value=-torch.inf)
        beside = padded.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-1, -2))
    grouped = torch.cat([inside, beside], dim=1)
    order = [group * count + channel for channel in range(count) for group in range(partial)]
    assert torch.allclose(edge(State(x)), grouped[:, order], atol=1e-6)


def test_the_first_channels_of_a_map_are_copied_once():
    state = State(torch.randn(2, 8, 3, 3).contiguous(memory_format=torch.channels_last))
    assert state.first(8) is state and state.first(2) is state.first(2) is not state.first(4)
    assert state.first(2).value.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
def test_partial_channels_stay_in_one_order_of_memory(stride, monkeypatch):
    """Maps and their gradients; in another one, normalisation takes several times as long."""
    edge, x = mixed_edge(8, stride, 4), torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    edge.weights, seen = torch.ones(len(OPERATION_NAMES)), []
    monkeypatch.setattr("spaces.cells.supernet.normalised_sum", lambda _, maps, *__: watched(maps[0] * 1.0))

    def watched(y: torch.Tensor) -> torch.Tensor:
        y.register_hook(lambda grad: seen.append(grad * 1.0))
        return y

    y = edge(State(x.requires_grad_()))
    y.square().sum().backward()
    assert seen and all(part.is_contiguous(memory_format=torch.channels_last) for part in (y, *seen))


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_a_partial_supernet_computes(size):
    space = space_of(nodes=2)
    supernet = supernet_of(space, NetworkShape(4, 3, 5, (3, *size)), 2)
    choose(supernet, torch.full((2, 5, 8), 1 / 8), torch.full((space.ties.count, 3), 1 / 3))
    for net in (supernet, supernet.eval()):
        logits = net(torch.randn(3, 3, *size))
        assert logits.shape == (3, 5) and torch.isfinite(logits).all()


@pytest.mark.parametrize("partial", [0, -1, 2, 4])
def test_channels_that_cannot_be_divided_are_refused(partial):
    with pytest.raises(InputError, match="partial"):
        supernet_of(space_of(nodes=1), SHAPE, partial)


def test_a_library_whose_mixture_would_need_gigabytes_is_refused():
    """64 tables of full rank in 31 places; the line says what is small enough, and that is."""
    rng = np.random.default_rng(0)
    library = [
        Multiplier(name=f"m{number}", signed=True, table=rng.integers(-99, 99, (256, 256)), power_mw=0.3)
        for number in range(64)
    ]
    with pytest.raises(
        InputError, match="a mixture of 64 multipliers .* 256 factors, in 31 places, .*; choose up to 63"
    ):
        check_mixture(CellSpace(library), 31)
    check_mixture(CellSpace(library[:63]), 31)
    check_mixture(CellSpace(library, choice="network"), 1)
    alike = [replace(catalogue.get(EXACT), name=f"m{number}") for number in range(300)]
    check_mixture(CellSpace(alike), 31)  # one factor, however many there are
