"""Convolutions through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients, by Triton kernels.

The features u_r(x̂) exist in registers alone, forwards and backwards, where torch's operations need R maps of them in memory.
What is padded has the code ``border`` (an int, or 0-dimensional on the device), or adds nothing where that is None.
"""

import functools
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.gpu.gather import border_of
from spaces.arithmetic.engines.gpu.launching import launch, works
from spaces.arithmetic.engines.known_range import remember_range
from spaces.arithmetic.engines.mixture import mixture as by_torch

LOWEST_CAPABILITY = (8, 0)  # Ampere: the first whose tensor cores know TF32
MOST_FEATURES = 16  # of a code, and columns of their span, which registers hold
TILE_M, TILE_N, TILE_K = 64, 64, 64  # pixels, outputs, and features at a time
MOST_PRODUCTS = 2048  # outputs × features: with more, registers spill
TILE_FEATURES, TILE_TABLE = 64, 32  # channels × columns, and pixels at a time, of a dense layer's table gradient
BLOCKS = 4  # of so many pixels that a program takes one after the other
TILE_DEPTHWISE = 256  # pixels of one word of channels
TILE_GRADIENT, MOST_CHANNELS = 512, 16  # pixels × channels of a depthwise tile of gradients, and channels of it
AT_ONCE = 8  # features whose gradients registers hold
BLOCK = 256  # weights per program
Border: TypeAlias = int | Tensor | None


class Basis(NamedTuple):
    """What the tables of a library have in common, by code."""

    v: Tensor  # v_r of weights, as ``features_by_code`` has them
    span: Tensor  # the orthonormal columns in which all that u can be lies, likewise
    rank: int  # r
    columns: int


class Weights(NamedTuple):
    """A layer's weights, as kernels take them."""

    index: Tensor  # (O, C/groups, kH, kW) uint8
    scale: Tensor  # (O,)
    features: Tensor  # as ``weight_features`` has them


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of the CPU but for the order of additions."""
    return works("mixtures", device, LOWEST_CAPABILITY, _agrees)


def suits(device: torch.device, features: int, w_shape: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether the kernels compute a layer with weights (O, C/groups, kH, kW) and so many features on the device."""
    ordinary = geometry.groups == 1 or (w_shape[1] == 1 and w_shape[0] == geometry.groups)
    return features <= MOST_FEATURES and ordinary and works_on(device)


def features_by_code(values: Tensor) -> Tensor:
    """u, v or a span (R, 256) by code, filled up with zeros: (257, a power of two), which is loaded at once for a code.

    The last row is for what is not there.
    """
    rank = values.shape[0]
    return F.pad(values.t(), (0, (1 << (rank - 1).bit_length()) - rank, 0, 1)).contiguous()


def weight_features(w_index: Tensor, by_code: Tensor, depthwise: bool = False) -> Tensor:
    """v_r(ŵ) for dense indices (O, C/groups, kH, kW): (taps, O, C/groups, R), of a depthwise layer (taps, R, C).

    v as ``features_by_code`` has it, R filled up.
    """
    features = torch.empty(features_shape(tuple(w_index.shape), by_code, depthwise), device=w_index.device)
    size, inputs = w_index.numel(), w_index.shape[1]
    launch(
        "weight_features_kernel", -(-size // BLOCK), w_index, by_code, features, len(w_index), inputs, size,
        *steps_of(w_index), int(depthwise), RANK=by_code.shape[1], BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return features


def features_shape(w_shape: tuple[int, ...], by_code: Tensor, depthwise: bool) -> tuple[int, ...]:
    """Of the features of weights (O, C/groups, kH, kW)."""
    (outputs, inputs, height, width), rank = w_shape, by_code.shape[1]
    return (height * width, rank, outputs) if depthwise else (height * width, outputs, inputs, rank)


def steps_of(w_index: Tensor) -> tuple[int, int, int]:
    """From one output, input and tap to the next, of a dense tensor in the memory."""
    return w_index.stride(0), w_index.stride(1), w_index.stride(3) if w_index.shape[3] > 1 else w_index.stride(2)


def weights_of(w_index: Tensor, scale: Tensor, basis: Basis, depthwise: bool) -> Weights:
    """A layer's weights by themselves; ``weights`` has those of a whole network."""
    return Weights(w_index, scale.contiguous(), weight_features(w_index, basis.v, depthwise))


def convolve(
    index: Tensor, u: Tensor, basis: Basis, weights: Weights, geometry: Geometry, step: Tensor, border: Border = None
) -> Tensor:
    """The sums times their scale (O,) and ``step`` (0-dimensional): (N, O, H', W') float32, channels-last.

    ``index`` (N, C, H, W) uint8; ``u`` as ``features_by_code`` has it.
    """
    if geometry.groups > 1:
        return _convolve_depthwise(index, u, basis, weights, geometry, step, border)
    index, geometry = _padded(index, geometry, border)
    x, kernel = pixels_of(index), weights.index.shape[2:]
    size = geometry.output_size(x.shape[1:3], kernel)
    y = torch.empty((len(x), *size, len(weights.index)), device=x.device)
    pixels, channels, outputs, rank = y[..., 0].numel(), x.shape[3], y.shape[3], u.shape[1]
    block = _power(outputs, TILE_N)
    launch(
        "blend_matrix_kernel", -(-pixels // TILE_M) * -(-outputs // block), x, u, weights.features, weights.scale, step, y,
        pixels, *x.shape[1:3], *size, channels, outputs, len(weights.features), kernel[1], *moves(geometry),
        RANK=rank, BLOCK_M=TILE_M, BLOCK_N=block, CHANNELS=_channels(channels, rank, block), num_warps=4, num_stages=1,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def _convolve_depthwise(
    index: Tensor, u: Tensor, basis: Basis, weights: Weights, geometry: Geometry, step: Tensor, border: Border
) -> Tensor:
    x, w_index = pixels_of(index), weights.index.contiguous()
    height, width = w_index.shape[2:]
    size, channels = geometry.output_size(x.shape[1:3], (height, width)), x.shape[3]
    y, tables = (torch.empty(n, device=x.device) for n in ((len(x), *size, channels), (w_index.numel(), 256)))
    launch("depthwise_tables_kernel", w_index.numel(), w_index, u, basis.v, tables, RANK=u.shape[1], num_warps=4)
    unit, pixels = 4 if channels % 4 == 0 and x.data_ptr() % 4 == 0 else 1, y[..., 0].numel()
    programs = -(-pixels // TILE_DEPTHWISE) * (channels // unit)
    low, high = torch.empty((2, programs), device=x.device)
    launch(
        "blend_depthwise_kernel", programs, x.view(-1).view(torch.int32) if unit == 4 else x, tables,
        weights.scale, step, y, low, high, _border(border, x),
        pixels, *x.shape[1:3], *size, channels // unit, height, *moves(geometry),
        UNIT=unit, ADDS=border is not None, KERNEL_WIDTH=width, PIXELS=TILE_DEPTHWISE, num_warps=4,
    )  # fmt: skip
    y = y.permute(0, 3, 1, 2)
    if programs > 0:
        remember_range(y, low, high)  # that the layer after it asks for
    return y


def dense_table_gradient(
    index: Tensor, grad: Tensor, basis: Basis, weights: Weights, geometry: Geometry, step: Tensor, border: Border = None
) -> Tensor:
    """The gradient for u along the columns of its span, (R, columns), from that of ``convolve`` (N, O, H', W')."""
    index, geometry = _padded(index, geometry, border)
    x, pull = (pixels_of(part) for part in (index, grad))
    channels, outputs, span = x.shape[3], pull.shape[3], basis.span
    pixels, block = pull[..., 0].numel(), _power(outputs, TILE_N)
    inputs = _power(channels, TILE_FEATURES // span.shape[1], least=-(-16 // span.shape[1]))
    chunks = max(1, -(-pixels // (TILE_TABLE * BLOCKS)))
    programs = chunks * len(weights.features) * -(-channels // inputs) * -(-outputs // block)
    sums = torch.empty((basis.rank, span.shape[1], programs), device=x.device)
    launch(
        "blend_matrix_table_kernel", programs, x, pull, weights.scale, weights.features, span, sums,
        pixels, *x.shape[1:3], *pull.shape[1:3], channels, outputs, weights.index.shape[3], chunks, BLOCKS, *moves(geometry),
        RANK=basis.rank, PITCH=basis.v.shape[1], SPAN=span.shape[1], BLOCK_K=TILE_TABLE, CHANNELS=inputs, OUTPUTS=block,
        num_warps=4, num_stages=1,
    )  # fmt: skip
    return added_up(sums, step)[:, : basis.columns]


def depthwise_gradients(
    index: Tensor, clamped: Tensor | None, grad: Tensor, basis: Basis, weights: Weights, geometry: Geometry, step: Tensor,
    border: Border = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same of a depthwise layer, and the gradient for the feature u_0(x̂), (N, C, H, W): zero where ``clamped`` is 1."""
    x, pull, lost = (pixels_of(part) for part in (index, grad, index if clamped is None else clamped))
    channels, (height, width), features = x.shape[3], weights.index.shape[2:], weights.features
    around = (0, 0) if border is None else geometry.padding
    pixels = len(x) * (x.shape[1] + 2 * around[0]) * (x.shape[2] + 2 * around[1])
    _, _, block, unit = tiled(x, TILE_GRADIENT)
    tile = TILE_GRADIENT if unit > 1 else TILE_GRADIENT // 2  # narrow loads need more registers
    programs = -(-pixels // (tile // block)) * -(-channels // block)
    grad_x, sums = (torch.empty(n, device=x.device) for n in (x.shape, (basis.rank, basis.columns, programs)))
    for first in range(0, basis.rank, AT_ONCE):
        launch(
            "blend_depthwise_gradient_kernel", programs, pull, weights.scale, features[:, first:], x, lost,
            basis.span, grad_x, sums[first:], _border(border, x), *around,
            pixels, *x.shape[1:3], *pull.shape[1:3], channels // unit, height, features.stride(0),
            *geometry.padding, *geometry.dilation, UNIT=unit, STRIDE_H=geometry.stride[0], STRIDE_W=geometry.stride[1],
            KERNEL_WIDTH=width, RANK=min(AT_ONCE, basis.rank - first), SPAN=basis.columns, PITCH=basis.span.shape[1],
            FIRST=first == 0, CLAMPS=clamped is not None, PIXELS=tile // block, CHANNELS=block, num_warps=1,
        )  # fmt: skip
    return added_up(sums, step), grad_x.permute(0, 3, 1, 2)


def tiled(x: Tensor, tile: int) -> tuple[int, int, int, int]:
    """Of a map (N, H, W, C): pixels, channels, channels of a tile, and a number by which channels can be divided."""
    channels = x.shape[3]
    return (
        x[..., 0].numel(),
        channels,
        min(tile, _power(channels, MOST_CHANNELS, least=1)),
        4 if channels % 4 == 0 else 1,
    )


def added_up(sums: Tensor, step: Tensor) -> Tensor:
    """Sums (n, m, programs) over all programs, times the step: (n, m)."""
    total, programs = torch.empty(sums.shape[:2], device=sums.device), sums.shape[2]
    block = _power(programs, BLOCK * 4)
    launch("add_up_kernel", total.numel(), sums, step, total, programs, BLOCK=block, num_warps=4)
    return total


def _padded(index: Tensor, geometry: Geometry, border: Border) -> tuple[Tensor, Geometry]:
    return (index, geometry) if border is None else (geometry.pad(index, border), geometry.unpadded())


def _border(border: Border, x: Tensor) -> Tensor:
    """(1,) uint8; anything where padded positions add nothing."""
    return border_of(0 if border is None else border, 1, x.device)


def moves(geometry: Geometry) -> tuple[int, ...]:
    """Stride, padding and dilation, as kernels take them."""
    return (*geometry.stride, *geometry.padding, *geometry.dilation)


def _channels(channels: int, rank: int, outputs: int) -> int:
    """Codes of a pixel that are expanded together: enough features for the tensor cores, and no more than registers hold."""
    features = min(TILE_K, MOST_PRODUCTS // outputs)
    return max(-(-16 // rank), min(features // rank, _power(channels, features, least=1)))


def _power(count: int, most: int, least: int = 16) -> int:
    """The power of two that holds ``count``, within limits."""
    return max(least, min(most, 1 << (count - 1).bit_length()))


# -- tried out ---------------------------------------------------------------------------------------------------------

_TOLERANCE = 1e-4  # of the largest value
_TRIED = (  # images, channels, height, width; outputs, kernel; geometry; border
    ((2, 20, 9, 8), 24, 1, Geometry(), None),
    ((2, 3, 9, 8), 40, 3, Geometry((2, 2), (1, 1)), 128),
    ((2, 40, 9, 8), 40, 3, Geometry((1, 1), (2, 2), (2, 2), 40), 128),
    ((2, 6, 9, 8), 6, 5, Geometry((2, 2), (2, 2), (1, 1), 6), None),
)


def _agrees(device: torch.device) -> bool:
    """Whether a few layers' sums and gradients are near those of torch's operations on the CPU."""
    generator = torch.Generator().manual_seed(0)
    for size, outputs, side, geometry, border in _TRIED:
        w_size = (outputs, size[1] // geometry.groups, side, side)
        index, w_index = (torch.randint(0, 256, n, generator=generator, dtype=torch.uint8) for n in (size, w_size))
        u, v, span = (torch.randn((n, 256), generator=generator) for n in (5, 5, 7))
        span, scale = torch.linalg.qr(span.t())[0], torch.rand(outputs, generator=generator)
        basis = Basis(features_by_code(v).to(device), features_by_code(span.t()).to(device), 5, 7)
        features = by_torch.weight_features(w_index, v) * scale.view(-1, 1, 1, 1, 1)
        padded, moved = _padded(index, geometry, border)
        y = by_torch.convolve(padded, u, features, moved)
        expected = [y, *by_torch.gradients(padded, y, features, moved, 0, span)]
        expected[1] = expected[1] @ span
        down, across = (size - seen for size, seen in zip(expected[2].shape[2:], index.shape[2:]))
        expected[2] = expected[2][:, :, down // 2 :, across // 2 :][:, :, : index.shape[2], : index.shape[3]]

        clamped = torch.randint(0, 2, size, generator=generator, dtype=torch.uint8)
        there, by_code, one = index.to(device), features_by_code(u).to(device), torch.ones((), device=device)
        weights = weights_of(w_index.to(device), scale.to(device), basis, geometry.groups > 1)
        held = (basis, weights, geometry, one, border)
        found = [convolve(there, by_code, *held)]
        if geometry.groups > 1:
            found += depthwise_gradients(there, clamped.to(device), y.to(device), *held)
            expected[2] = expected[2] * (clamped == 0)
        else:
            found += [dense_table_gradient(there, y.to(device), *held)]
        if not all(_near(a.cpu(), b) for a, b in zip(found, expected)):
            return False
    return True


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
