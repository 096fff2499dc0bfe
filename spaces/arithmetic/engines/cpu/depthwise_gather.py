"""Look the products of depthwise layers up, 64 pixels of a channel at a time.

A few images are laid out in planes, one for each channel (and, with strides, for each step between two windows), in which
a tap of the kernel is a distance. Products of one weight are a column of the table, whose low and high bytes lie in
registers. Where the processor has no permutes of bytes, or a column spans more than 16 bits, each code is looked up by itself.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_convolution, tables
from spaces.arithmetic.engines.cpu.depthwise_loops import GROUP, LINE
from spaces.arithmetic.engines.cpu.depthwise_simd import lay_out_bytes, set_bytes, set_floats, write_floats
from spaces.arithmetic.engines.cpu.gather_simd import (
    MOST_TAPS,
    sum_each,
    sum_products,
    transpose_codes,
    transpose_sums,
)
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.memory import CODES, LANES, number_at
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

_POSITIONS = 1024  # of a plane, at least, if there are so many images: short ones waste parts of vectors
_CHUNK = 256  # positions whose sums stay in the first-level cache


@dataclass(frozen=True)
class Packed:
    weights: np.ndarray  # (C, taps) uint8
    kernel: tuple[int, int]
    constant: np.ndarray  # (C,) int64: what the columns' lowest products add up to
    columns: np.ndarray  # what is looked up by weight: (256, 512) bytes or, product by product, (256, 256) int32
    permutes: bool
    geometry: Geometry


class Planes(NamedTuple):
    """The numbers of a layer, and of the planes in which a few of its images lie; a position is a byte."""

    images: int
    height: int
    width: int
    channels: int
    outputs: int  # rows
    pixels: int  # of an output row
    down: int  # strides
    along: int
    top: int  # padding
    left: int
    row: int  # positions from one row to the next
    image: int  # from one image to the next
    part: int  # of every down·along parts of a plane
    seen: int  # positions that are looked up, whole vectors
    together: int  # images in a plane
    fill: int  # the code of padded positions
    taps: int


def suit(weights: Tensor, geometry: Geometry) -> bool:
    """Whether a layer has one filter for every channel."""
    return depthwise_convolution.suit(tuple(weights.shape), geometry, weights.device)


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed:
    """Weights (C, 1, kH, kW) uint8."""
    kernel = (int(weights.shape[2]), int(weights.shape[3]))
    columns, lowest = _byte_columns(table)
    permutes = tables.PERMUTES and columns.size > 0 and kernel[0] * kernel[1] <= MOST_TAPS
    if not permutes:
        columns, lowest = np.ascontiguousarray(table.table.T), np.zeros(SIZE, dtype=np.int64)
    taps = weights.contiguous().view(len(weights), -1).numpy()
    return Packed(taps, kernel, lowest[taps].sum(axis=1, dtype=np.int64), columns, permutes, geometry)


@functools.lru_cache(maxsize=64)
def _byte_columns(table: ProductTable) -> tuple[np.ndarray, np.ndarray]:
    """The columns above their lowest products (256,) as bytes, by weight; none if a column spans more than 16 bits."""
    by_weight = table.table.T.astype(np.int64)
    lowest = by_weight.min(axis=1)
    above = by_weight - lowest[:, None]
    if above.max() >= 1 << 16:
        return np.empty(0, dtype=np.uint8), lowest
    halves = np.stack([above & 255, above >> 8], axis=1).astype(np.uint8)
    return np.ascontiguousarray(halves), lowest


def conv2d(x: Tensor, packed: Packed, fill: int, scale: Tensor | None = None) -> Tensor:
    """The sums (N, C, H', W') of codes x (N, C, H, W): int32, or scaled float32."""
    planes, offsets = _planes(tuple(x.shape), packed.kernel, packed.geometry, fill)
    y = torch.empty((planes.images, planes.outputs, planes.pixels, planes.channels))
    factors = torch.ones(-(-planes.channels // LANES) * LANES)
    if scale is not None:
        factors[: planes.channels] = scale
    codes = pixels_of(x)
    weights, constant, columns = (array.ctypes.data for array in (packed.weights, packed.constant, packed.columns))
    arguments = (
        codes.data_ptr(), planes, offsets.data_ptr(), weights, constant, columns, int(packed.permutes),
        factors.data_ptr(), int(scale is not None), y.data_ptr(),
    )  # fmt: skip
    tasks = -(-planes.images // planes.together) * -(-planes.channels // (LANES * GROUP))
    share(_gather, arguments, tasks, y.numel())
    y = y if scale is not None else y.view(torch.int32)
    return y.permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=1024)
def _planes(size: tuple[int, ...], kernel: tuple[int, int], geometry: Geometry, fill: int) -> tuple[Planes, Tensor]:
    """The planes for maps (N, C, H, W) = ``size``, and how far every tap of the kernel reaches in them (taps,) int64."""
    images, channels, height, width = size
    (down, along), (top, left), (far, gap) = geometry.stride, geometry.padding, geometry.dilation
    outputs, pixels = geometry.output_size((height, width), kernel)
    # With a stride of 1 the padding on one side of a row, or an image, is that of the next one, too.
    row = width + left if (down, along) == (1, 1) else -(-(width + 2 * left) // along)
    rows = height + top if (down, along) == (1, 1) else -(-(height + 2 * top) // down)
    together = min(images, max(1, _POSITIONS // (rows * row)))
    seen = -(-((together - 1) * rows * row + (outputs - 1) * row + pixels) // CODES) * CODES
    taps_down, taps_along = np.arange(kernel[0]) * far, np.arange(kernel[1]) * gap
    within = (taps_down // down * row)[:, None] + taps_along // along
    held = together * rows * row + top * row + left
    part = -(-max(held, seen + int(within.max())) // CODES) * CODES
    offsets = (taps_down % down * along)[:, None] * part + taps_along % along * part + within
    return Planes(
        images, height, width, channels, outputs, pixels, down, along, top, left,
        row, rows * row, part, seen, together, fill, offsets.size,
    ), torch.from_numpy(offsets.ravel().astype(np.int64))  # fmt: skip


# -- loops -------------------------------------------------------------------------------------------------------------

_part = njit(inline="always")  # of a loop: so that LLVM sees it once, and not at each level of calls again


@_part
def _lay_images_out(x, planes, task, channel, lanes, pixels):
    """Images as pixels of 16 codes each, in the order of a plane."""
    for number in range(min(planes.together, planes.images - task * planes.together)):
        for y in range(planes.height):
            row, source = y + planes.top, ((task * planes.together + number) * planes.height + y) * planes.width
            at = (
                row % planes.down * planes.along * planes.part + number * planes.image + row // planes.down * planes.row
            )
            for begin in range(min(planes.along, planes.width)):
                column = begin + planes.left
                target = at + column % planes.along * planes.part + column // planes.along
                count = (planes.width - begin + planes.along - 1) // planes.along
                start = (source + begin) * planes.channels + channel
                between = planes.along * planes.channels
                lay_out_bytes(x, start, between, count, lanes, pixels, target * LANES, LANES)


@_part
def _write_images(results, planes, task, first, blocks, y):
    """The outputs among the positions of a plane, of 16 channels each in so many ``blocks``."""
    for number in range(min(planes.together, planes.images - task * planes.together)):
        for row in range(planes.outputs):
            start = (number * planes.image + row * planes.row) * LANES
            at = ((task * planes.together + number) * planes.outputs + row) * planes.pixels * planes.channels
            for block in range(blocks):
                channel = first + block * LANES
                source, lanes = start + block * planes.seen * LANES, min(LANES, planes.channels - channel)
                write_floats(results, source, LANES, planes.pixels, lanes, y, at + channel, planes.channels)


@_part
def _sum_block(
    codes, length, planes, offsets, weights, constant, columns, permutes, channel, scale, scaled, sums, results
):
    """The sums of 16 channels, position by position (seen, 16)."""
    for start in range(0, planes.seen, _CHUNK):
        count = min(_CHUNK, planes.seen - start)
        for lane in range(min(LANES, planes.channels - channel)):
            own, seen, target = weights + (channel + lane) * planes.taps, codes + lane * length + start, lane * _CHUNK
            if permutes:
                added = number_at(constant, channel + lane)
                sum_products(seen, offsets, columns, own, planes.taps, added, sums + 4 * target, count // CODES)
            else:
                sum_each(seen, offsets, columns, own, planes.taps, sums + 4 * target, count)
        for at in range(0, count, LANES):
            target = results + 4 * (start + at) * LANES
            transpose_sums(target, sums + 4 * at, _CHUNK, scale + 4 * channel, scaled)


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(x, planes, offsets, weights, constant, columns, permutes, scale, scaled, y, begin, end):
    """The sums (N, H', W', C) of codes x (N, H, W, C), for tasks from ``begin`` to ``end``: some channels of a few images."""
    groups = (planes.channels + GROUP * LANES - 1) // (GROUP * LANES)
    length = planes.part * planes.down * planes.along
    floats = (GROUP * planes.seen + _CHUNK) * LANES
    memory = np.empty(floats + length * LANES // 2 + LANES, dtype=np.float32)
    results = (memory.ctypes.data + LINE - 1) // LINE * LINE
    sums = results + 4 * GROUP * planes.seen * LANES
    pixels = results + 4 * floats
    codes = pixels + length * LANES
    set_floats(sums, _CHUNK * LANES)
    set_bytes(pixels, planes.fill, length * LANES)
    for task in range(begin, end):
        first = task % groups * GROUP * LANES
        blocks = min(GROUP, (planes.channels - first + LANES - 1) // LANES)
        for block in range(blocks):
            channel = first + block * LANES
            _lay_images_out(x, planes, task // groups, channel, min(LANES, planes.channels - channel), pixels)
            for at in range(0, length, LANES):
                transpose_codes(codes + at, length, pixels + at * LANES)
            target = results + 4 * block * planes.seen * LANES
            _sum_block(
                codes,
                length,
                planes,
                offsets,
                weights,
                constant,
                columns,
                permutes,
                channel,
                scale,
                scaled,
                sums,
                target,
            )
        _write_images(results, planes, task // groups, first, blocks, y)
    memory[0] = 0  # to here it must be kept
