"""Depthwise convolutions through a table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients; on the CPU.

Straight from the codes, one call for a layer, with any stride, padding and dilation: libraries take several times as long
for the gradients of a dilated depthwise convolution as for the convolution itself. Nothing depends on the number of
threads.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_loops as loops
from spaces.arithmetic.engines.cpu.depthwise_products import PIXELS, window_number
from spaces.arithmetic.engines.cpu.tables import Tables
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.known_range import remember_range
from spaces.arithmetic.engines.memory import CODES, LANES, has_dot_products
from spaces.arithmetic.engines.quantise_loops import extent_of
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import WEIGHT_ZERO

DOT_PRODUCTS = has_dot_products()
_AT_ONCE = CODES // LANES  # pixels that are looked up at a time


def suit(w_shape: tuple[int, ...], geometry: Geometry, device: torch.device) -> bool:
    """Whether a layer with weights (O, C/groups, kH, kW) has one filter for every channel, and runs on the CPU."""
    return device.type == "cpu" and w_shape[1] == 1 and w_shape[0] == geometry.groups > 1


def convolve(
    index: Tensor,
    tables: Tables,
    by_weight: Tensor,
    geometry: Geometry,
    fill: int,
    scale: Tensor | None = None,
    constant: Tensor | None = None,
) -> Tensor:
    """scale·Σ_r u_r(x̂)·v_r(ŵ) + constant, (N, C, H', W') float32.

    ``index`` (N, C, H, W) uint8, of which the padding holds ``fill``; ``tables`` of R values, ``by_weight`` v_r(ŵ) in blocks;
    ``scale`` and ``constant`` (C,).
    """
    size, kernel = tuple(index.shape), (by_weight.shape[1], by_weight.shape[3])
    layer, plan = _layer(size, len(tables.values), kernel, geometry, fill, tables.adds(fill))
    y, extents = _convolved(pixels_of(index), tables, layer, plan, by_weight, scale, constant)
    return _known(y, extents)


def input_gradient(grad: Tensor, flipped: Tensor, size: tuple[int, ...], geometry: Geometry) -> Tensor:
    """The gradient of a depthwise convolution for its input (N, C, H, W) = ``size``; its ``flipped`` weights in blocks."""
    kernel = (flipped.shape[1], flipped.shape[3])
    layer, plan = _layer_of_gradient(tuple(size), tuple(grad.shape), kernel, geometry)
    return _convolved(pixels_of(grad.float()), None, layer, plan, flipped, None, None)[0]


def convolve_words(
    index: Tensor,
    tables: Tables,
    by_weight: Tensor,
    geometry: Geometry,
    fill: int,
    scale: Tensor | None,
    constant: Tensor,
) -> Tensor:
    """The same with four byte features to a word: Σ u_r(x̂)·v_r(ŵ) + constant as int32, or rounded to float32 and scaled.

    ``tables`` of R words, ``by_weight`` in blocks of int32, four signed bytes each, ``constant`` (C,) int32. Only where the
    processor has ``DOT_PRODUCTS``.
    """
    size, kernel = tuple(index.shape), (by_weight.shape[1], by_weight.shape[3])
    layer, plan = _layer(size, len(tables.values), kernel, geometry, fill, tables.adds(fill))
    words = loops.WORDS if scale is None else loops.WORDS_SCALED
    y, extents = _convolved(pixels_of(index), tables, layer, plan, by_weight, scale, constant, words)
    return _known(y, extents) if scale is not None else y.view(torch.int32)


def _known(y: Tensor, extents: np.ndarray | None) -> Tensor:
    """y, with which its range is remembered where it was found."""
    if extents is not None:
        remember_range(y, *extent_of(extents.ctypes.data, extents.size))
    return y


def _convolved(
    x: Tensor,
    tables: Tables | None,
    layer: loops.Layer,
    plan: Tensor,
    by_weight: Tensor,
    scale: Tensor | None,
    constant: Tensor | None,
    words: int = loops.NUMBERS,
) -> tuple[Tensor, np.ndarray | None]:
    """scale·Σ_r u_r(x)·v_r(ŵ) + constant (N, C, H', W') of x (N, H, W, C); without tables, u is x itself.

    And the smallest and the largest number of each image (2, N), while it is in the cache: of codes, of few channels.
    """
    y = torch.empty((layer.images, layer.outputs, layer.pixels, layer.channels))
    scale = _ones(layer.channels) if scale is None else scale.float().contiguous()
    constant = _zeros(layer.channels) if constant is None else constant.to(by_weight.dtype).contiguous()
    looked_up = (0, 0, 0, loops.AS_NUMBERS) if tables is None else tables.addresses
    tensors = (plan, by_weight, scale, constant, y)
    at, by, scaled, added, out = (tensor.data_ptr() for tensor in tensors)
    groups = -(-layer.channels // (LANES * loops.GROUP))
    extents = None
    if groups == 1 and tables is not None and words != loops.WORDS and y.numel():
        extents = np.empty((2, layer.images), dtype=np.float32)
    arguments = (
        x.data_ptr(), *looked_up, at, layer, by, words, scaled, added, out, 0 if extents is None else extents.ctypes.data
    )  # fmt: skip
    share(loops.convolve, arguments, layer.images * groups, y.numel())
    return y.permute(0, 3, 1, 2), extents


def weight_gradient(
    index: Tensor,
    tables: Tables,
    grad: Tensor,
    kernel: tuple[int, int],
    geometry: Geometry,
    fill: int,
    step: float = 1.0,
) -> Tensor:
    """step · Σ over pixels of u_r(x̂) times the output's gradient at every tap, (C, R, kH, kW).

    ``index`` (N, C, H, W) uint8, of which the padding holds ``fill``; ``tables`` of R values; ``grad`` (N, C, H', W').
    """
    rank = len(tables.values)
    layer, plan = _layer(tuple(index.shape), rank, kernel, geometry, fill, tables.adds(fill))
    blocks, groups = -(-layer.channels // LANES), -(-layer.images // loops.IMAGES)
    sums = torch.empty((groups, blocks, layer.rows, rank, layer.columns, LANES))
    x, g = pixels_of(index), pixels_of(grad.float())
    arguments = (
        x.data_ptr(), g.data_ptr(), *tables.addresses, plan.data_ptr(), layer, sums.data_ptr()
    )  # fmt: skip
    share(loops.weight_gradient, arguments, groups * blocks, index.numel())
    gradient = torch.empty((layer.channels, rank, *kernel))
    loops.add_groups(sums.data_ptr(), groups, layer, np.float32(step), gradient.data_ptr())
    return gradient


def product_gradients(
    grad: Tensor, index: Tensor, step: Tensor, w_index: Tensor, w_scale: Tensor,
    fill: int, geometry: Geometry, wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The straight-through gradients for x and w where wanted: of the exact convolution of what the codes stand for.

    ``index`` (N, C, H, W) and ``w_index`` (C, 1, kH, kW) uint8 with their scales; ``fill``: the index of zero.
    """
    grad_x = grad_w = None
    if wanted[0]:
        grad_x = input_gradient(grad, decoded(w_index, _WEIGHTS, w_scale, flipped=True), index.shape, geometry)
    if wanted[1]:
        kernel = (w_index.shape[2], w_index.shape[3])
        grad_w = weight_gradient(index, _codes_from(fill), grad, kernel, geometry, fill, float(step))
    return grad_x, grad_w


# -- what the loops are told -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _layer(
    size: tuple[int, ...], rank: int, kernel: tuple[int, int], geometry: Geometry, fill: int, adds: bool
) -> tuple[loops.Layer, Tensor]:
    """A convolution of codes (N, C, H, W) = ``size``, and its plan; ``adds``: whether the padding's code adds anything."""
    images, channels, height, width = size
    outputs, pixels = geometry.output_size((height, width), kernel)
    (down, along), (top, left), (far, gap) = geometry.stride, geometry.padding, geometry.dilation
    wide, tiles = _row(pixels, along, (kernel[1] - 1) * gap, left + -(-width // _AT_ONCE) * _AT_ONCE)
    rows = np.arange((outputs - 1) * down + (kernel[0] - 1) * far + 1) - top
    inside = (rows >= 0) & (rows < height)
    kinds = np.where(inside, loops.OF_MAP, loops.OF_PADDING if adds else 0)
    live = (kernel[0] - 1) * far // down + 1
    plan = _plan(kinds, np.where(inside, rows, 0), kernel[0], down, far, outputs, live)
    return loops.Layer(
        images, height, width, channels, outputs, pixels, rank, *kernel, along, gap,
        window_number(kernel[1], along, gap), wide, tiles,
        width, 0, left, 1, live, len(plan), fill,
    ), plan  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _layer_of_gradient(
    size: tuple[int, ...], grad: tuple[int, ...], kernel: tuple[int, int], geometry: Geometry
) -> tuple[loops.Layer, Tensor]:
    """The convolution, with flipped weights, of an output's gradients ``grad`` to those of the input ``size``.

    Gradients lie as far apart as windows do, with zeros between, and the stride is 1.
    """
    images, channels, height, width = size
    (down, along), (far, gap) = geometry.stride, geometry.dilation
    reach = ((kernel[0] - 1) * far, (kernel[1] - 1) * gap)
    top, left = (distance - padded for distance, padded in zip(reach, geometry.padding))
    skipped = max(0, -(left // along))  # columns whose window lies in the padding
    begin = skipped * along + left
    wide, tiles = _row(width, 1, reach[1], 0)
    seen = max(0, min(grad[3] - skipped, -(-(wide - begin) // along)))
    rows = np.arange(height + reach[0]) - top
    met = (rows >= 0) & (rows % down == 0) & (rows // down < grad[2])
    plan = _plan(
        np.where(met, loops.OF_MAP, 0), np.where(met, rows // down, 0), kernel[0], 1, far, height, reach[0] + 1
    )
    return loops.Layer(
        images, grad[2], grad[3], channels, height, width, 1, *kernel, 1, gap,
        window_number(kernel[1], 1, gap), wide, tiles,
        seen, skipped, begin, along, reach[0] + 1, len(plan), 0,
    ), plan  # fmt: skip


def _row(pixels: int, along: int, reach: int, laid_out: int) -> tuple[int, int]:
    """How wide rows are laid out that an output row of ``pixels`` sees, and in how many tiles it is added up."""
    tiles = -(-pixels // PIXELS)
    seen = (tiles * PIXELS - 1) * along + reach + 1
    return -(-max(seen, laid_out) // _AT_ONCE) * _AT_ONCE, tiles


def _plan(kinds: np.ndarray, rows: np.ndarray, kernel: int, down: int, far: int, outputs: int, live: int) -> Tensor:
    """A step for every row, padding included, of such a kind and with such a row of the map; as ``loops`` reads them."""
    # The first row of the window of which a row is the kernel's k-th
    first = np.arange(len(rows))[:, None] - np.arange(kernel) * far
    seen_by = np.where((first >= 0) & (first % down == 0) & (first // down < outputs), first // down, -1)
    kinds = np.where((seen_by >= 0).any(axis=1), kinds, 0)
    done = seen_by[:, -1]
    pairs = np.stack([seen_by, seen_by % live], axis=2).reshape(len(rows), -1)
    steps = np.concatenate([np.stack([kinds, rows, done, done % live], axis=1), pairs], axis=1)
    return torch.from_numpy(np.ascontiguousarray(steps, dtype=np.int64))


@functools.lru_cache(maxsize=64)
def _ones(channels: int) -> Tensor:
    return torch.ones(channels)


@functools.lru_cache(maxsize=64)
def _zeros(channels: int) -> Tensor:
    return torch.zeros(channels)  # also as 32-bit integers


@functools.lru_cache(maxsize=256)
def _codes_from(zero: int) -> Tables:
    """The codes themselves, as numbers."""
    return Tables(torch.arange(SIZE, dtype=torch.float32)[None] - zero)


def words(w_index: Tensor, values: np.ndarray, constants: np.ndarray) -> tuple[Tensor, Tensor]:
    """Words in blocks for indices (C, 1, kH, kW) and ``values`` (256, R) int32; each channel's Σ of ``constants`` (256,)."""
    channels, _, *kernel = w_index.shape
    blocks, sums = _blocks(channels, kernel, values), np.empty(channels, dtype=np.int32)
    loops.decode_words(w_index.data_ptr(), channels, values, constants, blocks, sums)
    return torch.from_numpy(blocks), torch.from_numpy(sums)


def _blocks(channels: int, kernel: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Room for what such ``values`` (256, R) make of weights, full of zeros."""
    return np.zeros((-(-channels // LANES), kernel[0], values.shape[1], kernel[1], LANES), dtype=values.dtype)


def decoded(w_index: Tensor, values: np.ndarray, scale: Tensor | None = None, flipped: bool = False) -> Tensor:
    """v_r(ŵ)·scale in blocks, for indices (C, 1, kH, kW) and ``values`` (256, R) float32; ``scale`` (C,)."""
    channels, _, *kernel = w_index.shape
    blocks = _blocks(channels, kernel, values)
    by_channel = _ONE if scale is None else scale.numpy()
    loops.decode(w_index.contiguous().numpy(), values, by_channel, flipped, blocks)
    return torch.from_numpy(blocks)


_ONE = np.ones(1, dtype=np.float32)
_WEIGHTS = np.arange(SIZE, dtype=np.float32)[:, None] - np.float32(WEIGHT_ZERO)  # by index, unscaled
