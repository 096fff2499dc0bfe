"""Networks of a grid: their costs in numbers, and what they compute."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.costs import COSTS
from spaces.costs.trace import total_macs, total_params, trace
from spaces.errors import InputError
from spaces.grid.architecture import BLOCKS, GridArchitecture
from spaces.grid.network import GridNetwork
from spaces.grid.space import GridConfig, GridSpace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape
from tests.grids import (
    CHEAP,
    EXACT,
    LIBRARY,
    ROUGH,
    SHAPE,
    a_residual_merge,
    architecture_of,
    gene,
    random_walk,
    seeds,
)


@pytest.mark.parametrize(
    ("grid", "samples", "steps"),
    [((1, 1, 1), 20, 9), ((1, 5, 5), 20, 9), *(((3, 8, back), 3, 9) for back in range(1, 9)), ((5, 30, 10), 3, 9)],
    ids=str,
)
def test_every_genotype_has_costs(grid, samples, steps):
    space, rng, model = GridSpace(LIBRARY, GridConfig(*grid)), np.random.default_rng(7), COSTS["horowitz45"]
    sizes = itertools.cycle([(6, 6), (32, 32), (5, 7), (1, 1), (2, 9)])
    for architecture in random_walk(space, rng, samples, steps):
        size = next(sizes)
        rows = space.costs(architecture, NetworkShape(int(rng.choice([1, 2, 3, 8])), 1, 10, (3, *size)))
        assert all(number >= 0 for row in rows for number in (row.macs, row.adds, row.params, row.activations))
        energies = [model.network(rows, arithmetic).total for arithmetic in ARITHMETICS]
        assert all(0 < energy < math.inf for energy in energies)
        assert energies[0] > energies[1] and total_macs(rows) > 0 and total_params(rows) > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("images", "draws"),
    [((4, 1, 6, 6), 30), ((2, 3, 5, 7), 30), ((2, 3, 1, 4), 12), ((2, 3, 32, 32), 1)],
    ids=["6x6", "5x7", "1x4", "32x32"],
)
def test_every_genotype_computes(channels, images, draws):
    rng = np.random.default_rng(channels)
    shape = NetworkShape(channels, 1, 5, tuple(images[1:]))
    for grid in ((1, 1, 1), (1, 5, 5), (3, 8, 2)):
        space = GridSpace(LIBRARY, GridConfig(*grid))
        for architecture in random_walk(space, rng, -(-draws // 6), 1):
            network = space.build(architecture, shape, "fp32")
            for net in (network, network.eval()):
                logits = net(torch.randn(images))
                assert logits.shape == (images[0], 5) and torch.isfinite(logits).all()


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_every_genotype_learns_in_every_arithmetic(arithmetic):
    space, rng = GridSpace(LIBRARY, GridConfig(2, 4, 2)), np.random.default_rng(0)
    for architecture in random_walk(space, rng, 3, 3):
        network = space.build(architecture, NetworkShape(2, 1, 5, (1, 6, 6)), arithmetic)
        nn.functional.cross_entropy(network(torch.randn(4, 1, 6, 6)), torch.tensor([0, 1, 2, 3])).backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())


WIDE = NetworkShape(channels=4, cells=1, classes=5, input_shape=(3, 8, 6))  # widths 4, 8, 16, 32


def costs_of(architecture: GridArchitecture, shape: NetworkShape = WIDE) -> list[tuple]:
    """(kind, MACs, additions, parameters) of every row."""
    space = GridSpace(LIBRARY, GridConfig(architecture.rows, architecture.columns, architecture.levels_back))
    return [(row.kind, row.macs, row.adds, row.params) for row in space.costs(architecture, shape)]


def head(channels: int, pixels: int) -> list[tuple]:
    """Global average pooling and the classifier for five classes."""
    return [
        ("pool", 0, channels * (pixels - 1), 0),
        ("linear", 5 * channels, 5 * channels + 5, 5 * channels + 5),
    ]


def conv(inputs: int, outputs: int, kernel: int, pixels: int) -> list[tuple]:
    """A convolution that keeps the resolution, and its normalisation."""
    weights = inputs * outputs * kernel * kernel
    return [
        ("conv", weights * pixels, weights * pixels, weights),
        ("norm", 0, outputs * pixels, 2 * outputs),
    ]


def test_costs_of_a_convolution_block_in_numbers():
    assert costs_of(architecture_of(gene("conv_3x3_16", 0))) == [
        ("conv", 5184, 5184, 108),  # 4·3·3·3 weights, 48 pixels
        ("norm", 0, 192, 8),
        ("pool", 0, 188, 0),  # 4 sums of 48
        ("linear", 20, 25, 25),
    ]


def test_costs_of_residual_blocks_in_numbers():
    assert costs_of(architecture_of(gene("res_3x3_32", 0))) == [
        ("conv", 10368, 10368, 216),  # 8·3·3·3 weights, 48 pixels
        ("norm", 0, 384, 16),
        ("conv", 27648, 27648, 576),  # 8·8·3·3
        ("norm", 0, 384, 16),
        ("sum", 0, 144, 0),  # the image has three channels, which is what is added to
        ("pool", 0, 376, 0),
        ("linear", 40, 45, 45),
    ]
    wider_input = architecture_of(gene("conv_3x3_64", 0), gene("res_5x5_16", 1))
    assert costs_of(wider_input) == [
        *conv(3, 16, 3, 48),
        *conv(16, 4, 5, 48),
        *conv(4, 4, 5, 48),
        ("sum", 0, 4 * 48, 0),  # the other twelve channels pass
        *head(16, 48),
    ]
    equal = architecture_of(gene("conv_3x3_16", 0), gene("res_3x3_16", 1))
    assert costs_of(equal)[-3:] == [("sum", 0, 4 * 48, 0), *head(4, 48)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 16, 20, 36])
@pytest.mark.parametrize("function", BLOCKS)
def test_blocks_are_as_wide_and_large_as_their_names_say(function, channels):
    kind, kernel, width = function.split("_")
    width, kernel = int(width) * channels // 16, int(kernel[0])
    rows = costs_of(architecture_of(gene(function, 0)), replace(WIDE, channels=channels))
    if kind == "conv":
        assert rows == [*conv(3, width, kernel, 48), *head(width, 48)]
    else:
        sums = ("sum", 0, min(3, width) * 48, 0)
        assert rows == [*conv(3, width, kernel, 48), *conv(width, width, kernel, 48), sums, *head(max(3, width), 48)]


def test_costs_of_merges_in_numbers():
    """A map of 8 channels at 8×6 meets one of 4 channels at 4×3: the larger one is pooled, the narrower one padded."""
    nodes = gene("conv_3x3_32", 0), gene("conv_3x3_16", 0), gene("max_pool", 2)
    before = sorted([*conv(3, 8, 3, 48), *conv(3, 4, 3, 48), ("pool", 0, 4 * 12 * 3, 0)])
    for function, after in (("sum", [("sum", 0, 4 * 12, 0), *head(8, 12)]), ("concat", head(12, 12))):
        rows = costs_of(architecture_of(*nodes, gene(function, 1, 3)))
        assert sorted(rows[:5]) == before
        assert rows[5:] == [("pool", 0, 8 * 12 * 3, 0), *after]


def test_a_node_may_be_merged_with_itself_and_the_image():
    assert costs_of(architecture_of(gene("sum", 0, 0))) == [("sum", 0, 3 * 48, 0), *head(3, 48)]
    assert costs_of(architecture_of(gene("concat", 0, 0))) == head(6, 48)
    doubled = architecture_of(gene("conv_3x3_16", 0), gene("concat", 1, 1), gene("sum", 2, 2))
    assert costs_of(doubled) == [*conv(3, 4, 3, 48), ("sum", 0, 8 * 48, 0), *head(8, 48)]


def test_a_concatenation_that_would_be_too_wide_is_a_sum():
    """The widest block has 32 channels here, so that 128 are allowed and 256, or 129, are not."""
    wide = [gene("conv_3x3_128", 0), gene("concat", 1), gene("concat", 2)]
    rows = conv(3, 32, 3, 48)
    assert costs_of(architecture_of(*wide)) == [*rows, *head(128, 48)]
    too_wide = costs_of(architecture_of(*wide, gene("concat", 3)))
    assert too_wide == [*rows, ("sum", 0, 128 * 48, 0), *head(128, 48)]
    padded = costs_of(architecture_of(*wide, gene("concat", 3, 0)))
    assert padded == [*rows, ("sum", 0, 3 * 48, 0), *head(128, 48)]


@pytest.mark.parametrize("function", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("size", "pixels"),
    [((8, 6), [4 * 3, 2 * 1]), ((5, 7), [2 * 3, 1 * 1]), ((2, 9), [1 * 4]), ((9, 3), [4 * 1]), ((1, 5), [])],
)
def test_pooling_drops_odd_edges_and_ends_at_one_pixel(function, size, pixels):
    chain = architecture_of(*(gene(function, source) for source in range(4)))
    rows = costs_of(chain, replace(WIDE, input_shape=(3, *size)))
    left = pixels[-1] if pixels else size[0] * size[1]
    assert rows == [*(("pool", 0, 3 * n * 3, 0) for n in pixels), *head(3, left)]


def test_a_merge_pools_as_often_as_the_smaller_map_was():
    """The image of 9×7 meets one that was pooled twice (2×1), and not a third time, since it cannot be."""
    chain = [gene("avg_pool", 0), gene("max_pool", 1), gene("avg_pool", 2)]
    rows = costs_of(architecture_of(*chain, gene("sum", 0, 3)), replace(WIDE, input_shape=(3, 9, 7)))
    pools = [("pool", 0, 3 * 12 * 3, 0), ("pool", 0, 3 * 2 * 3, 0)]
    assert rows == [*pools, *pools, ("sum", 0, 3 * 2, 0), *head(3, 2)]


def test_costs_carry_the_multipliers_of_the_genes():
    architecture = architecture_of(
        gene("conv_3x3_16", 0, multiplier=CHEAP),
        gene("max_pool", 1, multiplier=CHEAP),
        gene("res_3x3_16", 2),
        multiplier=EXACT,
    )
    rows = GridSpace(LIBRARY, GridConfig(1, 3, 3)).costs(architecture, WIDE)
    names = [row.multiplier.name for row in rows if row.kind in ("conv", "linear")]
    assert names == [CHEAP, ROUGH, ROUGH, EXACT]
    assert all(row.multiplier is None for row in rows if row.kind not in ("conv", "linear"))
    assert all(row.integer for row in rows)


def test_layers_compute_with_the_multipliers_of_the_genes():
    architecture = architecture_of(gene("conv_3x3_16", 0, multiplier=CHEAP), gene("res_3x3_16", 1), multiplier=CHEAP)
    exact = catalogue.exact(signed=True)
    for arithmetic, multipliers in (
        ("fp32", [None] * 4),
        ("int8", [exact.name] * 4),
        ("approximate", [CHEAP, ROUGH, ROUGH, CHEAP]),
    ):
        network = GridSpace(LIBRARY, GridConfig(1, 2, 2)).build(architecture, SHAPE, arithmetic)
        layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        used = [getattr(layer, "multiplier", None) for layer in layers]
        assert [multiplier and multiplier.name for multiplier in used] == multipliers


@settings(max_examples=12)
@given(seeds, st.sampled_from([(6, 6), (5, 7), (3, 10)]), st.sampled_from([1, 2, 3]))
def test_costs_are_those_of_the_real_network(seed, size, channels):
    """Multiplications as torch counts them in a real pass, parameters as it holds them; in every arithmetic."""
    space = GridSpace(LIBRARY, GridConfig(3, 8, 3))
    architecture, shape = space.sample(np.random.default_rng(seed)), NetworkShape(channels, 1, 5, (3, *size))
    rows, network = space.costs(architecture, shape), space.build(architecture, shape, "fp32")
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.randn(1, *shape.input_shape))
    assert total_macs(rows) == counter.get_total_flops() // 2
    assert total_params(rows) == sum(p.numel() for p in network.parameters())
    for arithmetic in ("int8", "approximate"):
        assert trace(space.build(architecture, shape, arithmetic), shape.input_shape, integer=True) == rows


def by_functions(network: GridNetwork, architecture: GridArchitecture, images: Tensor, widest: int) -> Tensor:
    """The logits, computed in evaluation mode from the network's own weights, sizes as the maps themselves have them."""

    def normed_conv(x: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
        y = F.conv2d(x, convolution.weight, padding=convolution.weight.shape[-1] // 2)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    def padded_sum(a: Tensor, b: Tensor) -> Tensor:
        width = max(a.shape[1], b.shape[1])
        return sum(F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1])) for x in (a, b))

    maps = [images]
    for node, module in zip(architecture.active, network.nodes):
        inputs = [maps[source] for source in node.sources]
        if node.function.startswith("conv"):
            maps.append(F.relu(normed_conv(*inputs, module[0], module[1])))
        elif node.function.startswith("res"):
            inner = F.relu(normed_conv(*inputs, module.first[0], module.first[1]))
            maps.append(F.relu(padded_sum(*inputs, normed_conv(inner, module.second[0], module.second[1]))))
        elif node.function in ("max_pool", "avg_pool"):
            pool = F.max_pool2d if node.function == "max_pool" else F.avg_pool2d
            maps.append(pool(inputs[0], 2) if min(inputs[0].shape[2:]) > 1 else inputs[0])
        else:
            smaller = min(map_.shape[2] for map_ in inputs), min(map_.shape[3] for map_ in inputs)
            for k in range(2):
                while inputs[k].shape[2:] != smaller:
                    inputs[k] = F.max_pool2d(inputs[k], 2)
            together = inputs[0].shape[1] + inputs[1].shape[1]
            if node.function == "concat" and together <= 4 * widest:
                maps.append(torch.cat(inputs, dim=1))
            else:
                maps.append(padded_sum(*inputs))
    return F.linear(maps[-1].mean(dim=(2, 3)), network.classifier.weight, network.classifier.bias)


def unsettled(network: GridNetwork) -> GridNetwork:
    """The network in evaluation mode, with normalisations that do something."""
    for module in network.eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean), nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2), nn.init.normal_(module.bias)
    return network


def assert_computes_by_functions(architecture: GridArchitecture, shape: NetworkShape) -> None:
    space = GridSpace(LIBRARY, GridConfig(architecture.rows, architecture.columns, architecture.levels_back))
    network, images = unsettled(space.build(architecture, shape, "fp32")), torch.randn(3, *shape.input_shape)
    expected = by_functions(network, architecture, images, widest=8 * shape.channels)
    assert expected.std() > 0.01
    assert torch.allclose(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        [gene("res_3x3_64", 0)],
        [gene("conv_5x5_128", 0), gene("res_5x5_16", 1)],
        [gene("conv_3x3_32", 0), gene("avg_pool", 0), gene("max_pool", 2), gene("sum", 1, 3)],
        [gene("conv_3x3_16", 0), gene("max_pool", 0), gene("conv_5x5_64", 2), gene("sum", 1, 3), gene("sum", 4, 0)],
        [gene("conv_3x3_16", 0), gene("avg_pool", 0), gene("concat", 1, 2), gene("conv_3x3_16", 3)],
        [gene("conv_3x3_128", 0), *(gene("concat", k) for k in (1, 2, 3)), gene("concat", 4, 0), gene("res_3x3_16", 5)],
        [gene("max_pool", 0), gene("avg_pool", 1), gene("avg_pool", 2), gene("max_pool", 3), gene("concat", 0, 4)],
    ],
    ids=["a wider residual", "a narrower residual", "a sum of sizes", "two sums", "concat", "too wide", "pooling"],
)
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 2)], ids=str)
def test_networks_by_hand_compute_what_they_should(nodes, size):
    assert_computes_by_functions(architecture_of(*nodes), NetworkShape(2, 1, 5, (3, *size)))


@given(seeds, st.sampled_from([(8, 8), (5, 7), (1, 3)]), st.sampled_from([1, 3]))
def test_networks_at_random_compute_what_they_should(seed, size, channels):
    architecture = GridSpace(LIBRARY, GridConfig(3, 8, 3)).sample(np.random.default_rng(seed))
    assert_computes_by_functions(architecture, NetworkShape(channels, 1, 5, (3, *size)))


def test_what_cannot_be_built_is_refused():
    space = GridSpace(LIBRARY, GridConfig(1, 5, 5))
    architecture = a_residual_merge()
    with pytest.raises(InputError, match="did you mean approximate"):
        space.build(architecture, SHAPE, "aproximate")
    for channels in (0, -1):
        with pytest.raises(InputError, match="at least one initial channel"):
            space.build(architecture, replace(SHAPE, channels=channels))
    with pytest.raises(InputError, match=r"unknown multiplier.*mul8s_1KVX.*did you mean"):
        space.build(replace(architecture, multiplier="mul8s_1KVX"), SHAPE)
    foreign = gene("conv_3x3_16", 0, multiplier="mul8s_1KR3")  # known to the catalogue, but not in this library
    with pytest.raises(InputError, match="mul8s_1KR3"):
        space.costs(replace(architecture, nodes=(foreign, *architecture.nodes[1:])), SHAPE)
    idle = replace(architecture.nodes[1], multiplier="mul8s_1KR3")
    harmless = replace(architecture, nodes=(architecture.nodes[0], idle, *architecture.nodes[2:]))
    assert space.costs(harmless, SHAPE) == space.costs(architecture, SHAPE)
