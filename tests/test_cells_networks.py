"""Networks of cells: widths, costs, normalisation, and what is there in training only."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import Cell, CellArchitecture, Edge
from spaces.cells.building import expand_cells
from spaces.cells.network import DropPath, FixedCell
from spaces.cells.operations import FactorizedReduce
from spaces.cells.sites import CellConfig
from spaces.cells.space import CellSpace
from spaces.costs.trace import total_params, trace
from spaces.errors import InputError
from spaces.shape import NetworkShape
from tests.cells import (
    EXACT,
    LIBRARY,
    SCOPES,
    SHAPE,
    multipliers_of,
    per_position,
    seeds,
    space_of,
)


@settings(max_examples=12)
@given(seeds, st.sampled_from(SCOPES), st.sampled_from([(8, 8), (7, 9), (5, 4), (4, 11)]), st.integers(3, 5))
def test_every_sample_computes_in_every_arithmetic(seed, scope, size, depth):
    space = space_of(scope=scope, nodes=2)
    architecture = space.sample(np.random.default_rng(seed))
    shape = NetworkShape(channels=2, cells=depth, classes=5, input_shape=(3, *size))
    images = torch.randn(3, 3, *size)
    for arithmetic in ARITHMETICS:
        network = space.build(architecture, shape, arithmetic)
        logits = network(images)
        logits.sum().backward()
        assert logits.shape == (3, 5) and torch.isfinite(logits).all()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        assert torch.isfinite(network.eval()(images)).all()


def test_the_cells_have_the_widths_and_sizes_of_darts():
    """Depth 6, C = 4, two nodes: reductions at positions 2 and 4 double the width and halve 7×9 to 4×5 and 2×3."""
    space = space_of(nodes=2)
    shape = NetworkShape(channels=4, cells=6, classes=5, input_shape=(1, 7, 9))
    network = space.build(space.sample(np.random.default_rng(0)), shape, "fp32")
    shapes = []
    for stage in network.cells:
        stage.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:])))
    network(torch.randn(2, 1, 7, 9))
    assert shapes == [(8, 7, 9), (8, 7, 9), (16, 4, 5), (16, 4, 5), (32, 2, 3), (32, 2, 3)]
    assert network.stem[0].out_channels == 12 and network.classifier.in_features == 32


def test_factorized_reduction_by_hand():
    """The second half of the channels sees the image shifted down and right by a pixel, with zeros beyond odd edges."""
    reduce = FactorizedReduce(1, 2, FixedLayers("fp32", None), affine=False).eval()
    nn.init.ones_(reduce.straight.weight), nn.init.ones_(reduce.shifted.weight)
    image = torch.arange(1.0, 16.0).view(1, 1, 3, 5)
    image[0, 0, 0, 2] = -3  # ReLU comes first
    straight, shifted = reduce(image)[0]
    assert torch.allclose(straight, torch.tensor([[1.0, 0, 5], [11, 13, 15]]), rtol=1e-4)
    assert torch.allclose(shifted, torch.tensor([[7.0, 9, 0], [0, 0, 0]]), rtol=1e-4)


@pytest.mark.parametrize("scope", SCOPES)
def test_costs_do_not_depend_on_the_arithmetic(scope):
    space = space_of(scope=scope, nodes=2)
    architecture, shape = space.sample(np.random.default_rng(4)), replace(SHAPE, input_shape=(3, 7, 9), auxiliary=True)
    rows = space.costs(architecture, shape)
    for arithmetic in ARITHMETICS:
        network = space.build(architecture, replace(shape, auxiliary=False), arithmetic)
        assert trace(network, shape.input_shape, integer=scope == "all") == rows
        assert total_params(rows) == sum(p.numel() for p in network.parameters())
    governed = {row.multiplier.name for row in rows if row.multiplier}
    assert governed == set().union(*map(multipliers_of, architecture.cells), {architecture.multiplier} - {None})
    separable = [row for row in rows if row.kind == "separable"]
    assert all(row.multiplier for row in separable)
    assert scope == "all" or not any(row.multiplier for row in rows if row.kind != "separable")


def test_normalisation_during_search_is_that_of_darts():
    """No affine parameters inside the cells, and a normalisation after pooling; the other way round afterwards."""
    space = space_of(nodes=1)
    pooled = ((Edge(0, "skip_connect", EXACT), Edge(1, "avg_pool_3x3", None)),)
    architecture = CellArchitecture((Cell(pooled, False, EXACT), Cell(pooled, True, EXACT)), EXACT)
    for searching in (True, False):
        network = space.build(architecture, SHAPE, searching=searching)
        norms = [module for module in network.cells.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.affine for norm in norms} == {not searching}
        # Two projections in each of three cells, a halving skip in two of them, and three poolings.
        assert len(norms) == 6 + 2 + 3 * searching
        assert network.stem[1].affine
    supernet = space.supernet(SHAPE, space.choices(SHAPE))
    assert not any(module.affine for module in supernet.cells.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_network_with_a_cell_per_position():
    space, rng = space_of(nodes=2), np.random.default_rng(9)
    pair, depth = space.sample(rng), 5
    shape = replace(SHAPE, cells=depth)
    repeated = per_position(pair, depth)
    assert [cell.reduction for cell in repeated.cells] == [False, True, False, True, False]
    assert space.costs(repeated, shape) == space.costs(pair, shape)
    for _ in range(20):
        repeated = space.mutate(repeated, rng)
    assert repeated.cells[0] != repeated.cells[2] or repeated.cells[2] != repeated.cells[4]
    network = space.build(repeated, shape)
    for stage, cell in zip(network.cells, repeated.cells):
        sources = [[edge.source for edge in node] for node in cell.nodes]
        assert stage.body.sources == sources
        for row in trace(network, shape.input_shape, integer=True):
            if row.kind == "separable" and row.name.startswith(f"cells.{repeated.cells.index(cell)}."):
                assert row.multiplier.name in multipliers_of(cell)
    assert torch.isfinite(network(torch.randn(2, 3, 8, 8))).all()


def test_a_node_is_the_sum_of_its_edges_however_many():
    nodes = (
        (Edge(1, "max_pool_3x3", None),),
        (Edge(0, "skip_connect", None), Edge(1, "avg_pool_3x3", None), Edge(2, "skip_connect", None)),
    )
    body = FixedCell(Cell(nodes, False, None), 2, lambda _: None, DropPath(), searching=False)
    first, second = torch.randn(2, 4, 2, 5, 5)
    pooled = F.max_pool2d(second, 3, 1, 1)
    added = first + F.avg_pool2d(second, 3, 1, 1, count_include_pad=False) + pooled
    assert torch.allclose(body(first, second), torch.cat([pooled, added], dim=1))


def test_nodes_of_one_and_three_edges_cost_what_their_edges_cost():
    """By hand, in the normal cell of C = 2 at 8×8, and in the first reduction cell of C = 4, from 8×8 to 4×4."""
    nodes = (
        (Edge(1, "sep_conv_3x3", EXACT),),
        (Edge(0, "max_pool_3x3", None), Edge(1, "dil_conv_5x5", EXACT), Edge(2, "sep_conv_3x3", EXACT)),
    )
    architecture = CellArchitecture((Cell(nodes, False, EXACT), Cell(nodes, True, EXACT)), EXACT)
    rows = space_of(nodes=2).costs(architecture, SHAPE)

    def of(part: str) -> list:
        return [row for row in rows if row.name.startswith(part)]

    def macs(cell: int, node: int, edge: int) -> int:
        return sum(row.macs for row in of(f"cells.{cell}.body.operations.{node}.{edge}."))

    separable, dilated = 2 * 9 * 64 + 2 * 2 * 64, 2 * 25 * 64 + 2 * 2 * 64
    assert [macs(0, 0, 0), macs(0, 1, 0), macs(0, 1, 1), macs(0, 1, 2)] == [2 * separable, 0, dilated, 2 * separable]
    separable, dilated = 4 * 9 * 16 + 4 * 4 * 16, 4 * 25 * 16 + 4 * 4 * 16
    assert [macs(1, 0, 0), macs(1, 1, 1), macs(1, 1, 2)] == [2 * separable, dilated, 2 * separable]
    # A node of one edge adds nothing, one of three adds twice.
    (added,) = of("cells.0.body.sums.")
    assert (added.name, added.adds, added.activations) == ("cells.0.body.sums.1", 2 * 2 * 64, 4 * 2 * 64)


def test_what_cannot_be_built_is_refused():
    space = space_of(nodes=2)
    architecture = space.sample(np.random.default_rng(0))

    def refused(match: str, a: CellArchitecture = architecture, arithmetic: str = "fp32", **shape) -> None:
        with pytest.raises(InputError, match=match):
            space.build(a, replace(SHAPE, **shape), arithmetic)

    refused("did you mean approximate", arithmetic="aproximate")
    refused("at least 3 cells", cells=2)
    refused("even number", channels=3)
    refused("even number", channels=0)
    refused("at least 4×4", input_shape=(3, 8, 3))
    refused("5 cells do not fit a network of 3", a=per_position(architecture, 5))
    pools = ((Edge(0, "max_pool_3x3", None), Edge(1, "max_pool_3x3", None)),)
    swapped = CellArchitecture((Cell(pools, True, EXACT), Cell(pools, False, EXACT)), EXACT)
    refused("2 cells do not fit", a=swapped)
    refused("unknown multiplier.*mul8s_1KVX.*did you mean", a=replace(architecture, multiplier="mul8s_1KVX"))
    with pytest.raises(InputError, match="mul8s_1KR3"):  # known to the catalogue, but not in this library
        space.costs(replace(architecture, multiplier="mul8s_1KR3"), SHAPE)


def test_cells_for_less_depth_are_repeated_part_by_part():
    space = space_of(nodes=1)
    rng = np.random.default_rng(0)
    cells = [per_position(space.sample(rng), 8).cells[at] for at in range(8)]  # reductions at 2 and 5
    named = {id(cell): at for at, cell in enumerate(cells)}

    def names(given: list, depth: int) -> list[int]:
        return [named[id(cell)] for cell in expand_cells(tuple(given), depth)]

    assert names(cells, 8) == list(range(8))
    assert names(cells, 13) == [0, 1, 0, 1, 2, 3, 4, 3, 5, 6, 7, 6, 7]  # reductions at 4 and 8
    few = [cells[0], cells[2], cells[5]]  # no normal cells but the first
    assert names(few, 9) == [0, 0, 0, 2, 0, 0, 5, 0, 0]
    architecture = CellArchitecture(tuple(cells), cells[0].multiplier, "all")
    deeper = space.build(architecture, replace(SHAPE, cells=13))
    assert torch.isfinite(deeper(torch.zeros(2, *SHAPE.input_shape))).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"scope": "al"}, "scope"),
        ({"choice": "edges"}, "did you mean edge"),
        ({"nodes": 0}, "between 1 and 64 nodes, not 0"),
        ({"nodes": 65}, "not 65"),
    ],
)
def test_an_impossible_space_is_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        CellSpace(LIBRARY, CellConfig(arguments.pop("nodes", 4)), **arguments)


# -- training aids -----------------------------------------------------------------------------------------------------


def test_an_auxiliary_head_is_there_only_if_asked_and_only_in_training():
    space = space_of(nodes=1)
    architecture, images = space.sample(np.random.default_rng(0)), torch.randn(2, 3, 8, 8)
    plain = space.build(architecture, SHAPE, "fp32")
    plain(images)
    assert plain.auxiliary is None and plain.auxiliary_logits is None
    network = space.build(architecture, replace(SHAPE, auxiliary=True), "fp32")
    network(images)
    assert network.auxiliary_logits.shape == (2, 5)
    network.auxiliary_logits.sum().backward()
    assert network.cells[0].project_first[1].weight.grad is not None
    network.eval()(images)
    assert network.auxiliary_logits is None


@pytest.mark.parametrize(
    "size",
    [(32, 32), (16, 16), (8, 8), (7, 9), (30, 32), (32, 48), (64, 32), (64, 64), (4, 20)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_an_auxiliary_head_fits_every_image(size):
    space = space_of(nodes=1)
    shape = NetworkShape(2, 3, 5, (3, *size), auxiliary=True)
    network = space.build(space.sample(np.random.default_rng(0)), shape, "fp32")
    network(torch.randn(2, 3, *size))
    assert network.auxiliary_logits.shape == (2, 5)


def test_the_auxiliary_head_is_that_of_darts():
    """At C = 36, 32×32: 576 channels at position 13; 128·576 + 768·128·2·2 weights, two norms, ten classes."""
    space = space_of()
    shape = NetworkShape(36, 20, 10, (3, 32, 32), auxiliary=True)
    with torch.device("meta"):
        network = space.build(space.sample(np.random.default_rng(0)), shape, "fp32")
    by_hand = 128 * 576 + 2 * 128 + 768 * 128 * 4 + 2 * 768 + 768 * 10 + 10
    assert sum(p.numel() for p in network.auxiliary.parameters()) == by_hand
    assert network.auxiliary_position == 13


def test_dropped_paths_keep_the_expectation():
    drop, images = DropPath(), 40_000
    drop.probability, drop.generator = 0.3, torch.Generator().manual_seed(1)
    x = torch.ones(images, 2, 1, 2)
    y = drop(x)
    assert (y == y[:, :1, :, :1]).all()  # the whole path of an image
    kept = y[:, 0, 0, 0]
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    error = (0.3 / 0.7 / images) ** 0.5  # the variance of a kept-and-scaled path is p / (1 − p)
    assert abs(kept.mean().item() - 1) < 4 * error


def test_nothing_is_dropped_in_evaluation_or_without_a_probability():
    drop, x = DropPath(), torch.randn(8, 2, 3, 3)
    assert torch.equal(drop(x), x)
    drop.probability = 0.9
    assert not torch.equal(drop(x), x)
    assert torch.equal(drop.eval()(x), x)


def test_dropped_paths_follow_their_generator_alone():
    drop, x, results = DropPath(), torch.ones(64, 1, 1, 1), []
    drop.probability = 0.5
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        drop.generator = torch.Generator().manual_seed(5)
        results.append(torch.cat([drop(x), drop(x)]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)
    assert not torch.equal(results[0][:64], results[0][64:])


def test_identities_are_never_dropped():
    drop = DropPath()
    drop.probability = 1 - 1e-9
    edges = ((Edge(0, "skip_connect", None), Edge(1, "max_pool_3x3", None)),)
    body = FixedCell(Cell(edges, False, None), 2, lambda _: None, drop, searching=False)
    first, second = torch.randn(2, 4, 2, 5, 5)
    assert torch.equal(body(first, second), first)
    space = space_of(nodes=2)
    network = space.build(space.sample(np.random.default_rng(0)), SHAPE, "fp32")
    assert [module for module in network.modules() if isinstance(module, DropPath)] == [network.drop_path]
