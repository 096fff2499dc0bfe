"""Loops over depthwise convolutions whose products are Σ_r u_r(x̂)·v_r(ŵ), and over their gradients; sixteen channels at a time.

An input row is laid out beside its padding, expanded into its features, and meets each kernel row: what it adds to
an output row is added up there and then, so that all of this stays in the first-level cache. Arrays are flat, maps
(N, H, W, C): the memory of channels-last tensors. Plain numbers and loops keep numba's compilation short.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from spaces.arithmetic.engines.cpu.depthwise_simd import (
    CODES,
    LANES,
    TAPS,
    ask_for,
    copy_lanes,
    correlate,
    look_up_floats,
    row_multiplier,
    scale_lanes,
    set_lanes,
)

GROUP = 4  # blocks of 16 channels that are written side by side: whole pages of memory, one after the other
IMAGES = 8  # whose gradients of the weights are added up by one task, however many threads there are
_LINE = 64  # bytes of a line of the cache

_multiply_every, _multiply_some = row_multiplier(LANES), row_multiplier(None)  # pixels: with a stride of 1, or any

_part = njit(inline="always")  # of a loop: so that LLVM sees it once, and not at each level of calls again
_loop = njit(cache=True, nogil=True, error_model="numpy")
_loop_together = njit(cache=True, nogil=True, error_model="numpy", parallel=True)


class Layer(NamedTuple):
    """The numbers of one depthwise convolution of maps (N, H, W, C); ``wide``, ``tiles``: of a row as it is laid out."""

    images: int
    height: int
    width: int
    channels: int
    outputs: int  # rows
    pixels: int  # of an output row
    rank: int
    rows: int  # of the kernel
    columns: int
    down: int  # strides
    along: int
    top: int  # padding
    left: int
    far: int  # dilations
    gap: int
    wide: int  # pixels of a laid-out row, as many as its windows see; whole look-ups
    tiles: int  # of eight pixels of an output row
    fill: int  # the code of padded positions
    adds: bool  # whether that code has features other than zero


@_part
def aligned(count):
    """Memory for so many float32 numbers that begins with a line of the cache."""
    memory = np.empty(count + LANES, dtype=np.float32)
    skipped = (-memory.ctypes.data % _LINE) // 4
    return memory[skipped : skipped + count]


@_part
def set_all(target, value):
    """All of an array of whole vectors."""
    for at in range(0, target.size, LANES):
        set_lanes(target, at, value)


@_part
def lay_out(source, start, between, count, lanes, target, first, apart):
    """target[first + i·apart + l] = source[start + i·between + l] for ``count`` pixels i and l < ``lanes``."""
    for i in range(count):
        if lanes == LANES:
            copy_lanes(target, first + i * apart, source, start + i * between)
        else:
            for lane in range(lanes):
                target[first + i * apart + lane] = source[start + i * between + lane]


@_part
def _expand(codes, u, planes, permutes, rank, features):
    """features[r·n + i] = u[256r + codes[i]] for the n codes."""
    count = codes.size
    for r in range(rank):
        if permutes:
            look_up_floats(codes, planes, r * 1024, features, r * count, count // CODES)
        else:
            for i in range(count):
                features[r * count + i] = u[r * 256 + codes[i]]


@_part
def _finish(sums, own, live, scale, constant, first, blocks, y, n, row, layer):
    """An output row of so many ``blocks``: sums·scale + constant, rounded twice. The sums become zeros for another row."""
    channels = layer.channels
    for block in range(blocks):
        source, channel = (block * live + own) * layer.tiles * 8 * LANES, first + block * LANES
        start = (n * layer.outputs + row) * layer.pixels * channels + channel
        if channel + LANES <= channels:
            for j in range(layer.pixels):
                ask_for(y, start + (layer.pixels + j) * channels)
                scale_lanes(y, start + j * channels, sums, source + j * LANES, scale, constant, channel)
        else:
            for j in range(layer.pixels):
                for lane in range(channels - channel):
                    value = sums[source + j * LANES + lane] * scale[channel + lane]
                    y[start + j * channels + lane] = value + constant[channel + lane]
        for j in range(layer.tiles * 8):
            set_lanes(sums, source + j * LANES, 0)


@_part
def _output_row(row, k, layer):
    """The output row that sees the padded row through the kernel's row k, or −1."""
    first = row - k * layer.far
    seen = first >= 0 and first % layer.down == 0 and first // layer.down < layer.outputs
    return first // layer.down if seen else -1


@_part
def _sees(row, layer):
    """Whether an output row sees the padded row, and the row adds anything."""
    seen = False
    for k in range(layer.rows):
        seen = seen or _output_row(row, k, layer) >= 0
    return seen and (layer.adds or layer.top <= row < layer.top + layer.height)


@_part
def _lay_out_codes(x, n, row, first, lanes, layer, codes):
    """The codes of a padded row, of which only those within the map change."""
    if layer.top <= row < layer.top + layer.height:
        start = ((n * layer.height + row - layer.top) * layer.width) * layer.channels + first
        count = max(0, min(layer.width, layer.wide - layer.left))
        lay_out(x, start, layer.channels, count, lanes, codes, layer.left * LANES, LANES)
    else:
        set_all(codes, layer.fill)


@_part
def _add_row(row, features, layer, weights, block, first, sums, live):
    """What a padded row adds to all output rows that see it; the first of ``live`` rows of sums is ``first``."""
    by = block * layer.rows * layer.rank * layer.columns * LANES
    step, gap, plane = layer.along * LANES, layer.gap * LANES, layer.wide * LANES
    for k in range(layer.rows):
        seen_by = _output_row(row, k, layer)
        if seen_by >= 0:
            own, at = (first + seen_by % live) * layer.tiles * 8 * LANES, by + k * layer.rank * layer.columns * LANES
            if layer.along == 1:
                _multiply_every(
                    sums, own, features, 0, plane, weights, at, layer.rank, layer.columns, step, gap, layer.tiles
                )
            else:
                _multiply_some(
                    sums, own, features, 0, plane, weights, at, layer.rank, layer.columns, step, gap, layer.tiles
                )


@_loop
def convolve(x, u, planes, permutes, layer, weights, scale, constant, y, begin, end):
    """y = scale·Σ u_r(x̂)·v_r(ŵ) + constant (N, H', W', C) of codes x (N, H, W, C), for tasks from ``begin`` to ``end``.

    A task is some channels of an image. ``u`` (R·256), ``planes`` its bytes as ``look_up_floats`` wants them; ``weights``
    (blocks·kH·R·kW·16); ``scale`` and ``constant`` (C,).
    """
    groups = (layer.channels + GROUP * LANES - 1) // (GROUP * LANES)
    reach = (layer.rows - 1) * layer.far
    live = reach // layer.down + 1
    codes = np.empty(layer.wide * LANES, dtype=np.uint8)
    features = aligned(layer.rank * layer.wide * LANES)
    sums = aligned(GROUP * live * layer.tiles * 8 * LANES)
    set_all(sums, 0)
    for task in range(begin, end):
        n, first = task // groups, task % groups * GROUP
        blocks = min(GROUP, (layer.channels + LANES - 1) // LANES - first)
        set_all(codes, layer.fill)
        for row in range((layer.outputs - 1) * layer.down + reach + 1):
            if _sees(row, layer):
                for block in range(blocks):
                    channel = (first + block) * LANES
                    _lay_out_codes(x, n, row, channel, min(LANES, layer.channels - channel), layer, codes)
                    _expand(codes, u, planes, permutes, layer.rank, features)
                    _add_row(row, features, layer, weights, first + block, block * live, sums, live)
            done = _output_row(row, layer.rows - 1, layer)
            if done >= 0:
                _finish(sums, done % live, live, scale, constant, first * LANES, blocks, y, n, done, layer)


@_loop_together
def convolve_together(x, u, planes, permutes, layer, weights, scale, constant, y, begin, end):
    for task in prange(begin, end):
        convolve(x, u, planes, permutes, layer, weights, scale, constant, y, task, task + 1)


# -- gradients ---------------------------------------------------------------------------------------------------------


@_loop
def input_gradient(g, rows, columns, down, along, layer, weights, ones, zeros, x, begin, end):
    """The gradient (N, H, W, C) of a depthwise convolution for its input, from that of its output g (N, rows, columns, C).

    ``layer`` and ``weights`` are those of the convolution that takes g, ``down`` and ``along`` apart with zeros between,
    to ``x``. A task is some channels of an image.
    """
    groups = (layer.channels + GROUP * LANES - 1) // (GROUP * LANES)
    reach = (layer.rows - 1) * layer.far
    live = reach + 1
    line, sums = aligned(layer.wide * LANES), aligned(GROUP * live * layer.tiles * 8 * LANES)
    set_all(line, 0)
    set_all(sums, 0)
    skipped = max(0, -(layer.left // along))  # columns whose window lies in the padding
    left = skipped * along + layer.left
    count = max(0, min(columns - skipped, (layer.wide - left + along - 1) // along))
    for task in range(begin, end):
        n, first = task // groups, task % groups * GROUP
        blocks = min(GROUP, (layer.channels + LANES - 1) // LANES - first)
        for row in range(layer.outputs + reach):
            inside = row - layer.top
            if inside >= 0 and inside % down == 0 and inside // down < rows:
                for block in range(blocks):
                    channel = (first + block) * LANES
                    lanes = min(LANES, layer.channels - channel)
                    start = ((n * rows + inside // down) * columns + skipped) * layer.channels + channel
                    lay_out(g, start, layer.channels, count, lanes, line, left * LANES, along * LANES)
                    _add_row(row, line, layer, weights, first + block, block * live, sums, live)
            if row >= reach:
                own = (row - reach) % live
                _finish(sums, own, live, ones, zeros, first * LANES, blocks, x, n, row - reach, layer)


@_loop_together
def input_gradient_together(g, rows, columns, down, along, layer, weights, ones, zeros, x, begin, end):
    for task in prange(begin, end):
        input_gradient(g, rows, columns, down, along, layer, weights, ones, zeros, x, task, task + 1)


@_part
def _correlate_row(row, features, offsets, layer, g, n, first, lanes, line, sums, at):
    """What a padded row of features meets in the gradients of all output rows that see it."""
    for k in range(layer.rows):
        seen_by = _output_row(row, k, layer)
        if seen_by >= 0:
            start = (n * layer.outputs + seen_by) * layer.pixels * layer.channels + first
            grads, between = g, layer.channels
            if lanes < LANES:
                lay_out(g, start, between, layer.pixels, lanes, line, 0, LANES)
                grads, start, between = line, 0, LANES
            for tap in range(0, offsets.size, TAPS):
                own = at + (k * offsets.size + tap) * LANES
                correlate(
                    sums, own, features, 0, offsets, tap, layer.along * LANES, grads, start, between, layer.pixels
                )


@_loop
def weight_gradient(x, g, u, planes, permutes, layer, offsets, sums, begin, end):
    """Σ over pixels of u_r(x̂)·gradient, for groups of images and blocks of channels: sums (groups·blocks·kH·T·16).

    ``offsets`` (T,): where the features of a tap (r, column) begin in a row's; some more of them for whole calls. A task is
    16 channels of a group of images.
    """
    blocks = (layer.channels + LANES - 1) // LANES
    codes = np.empty(layer.wide * LANES, dtype=np.uint8)
    features, line = aligned(layer.rank * layer.wide * LANES), aligned(layer.pixels * LANES)
    size = layer.rows * offsets.size * LANES
    for i in range(begin * size, end * size):
        sums[i] = 0
    for task in range(begin, end):
        first = task % blocks * LANES
        lanes = min(LANES, layer.channels - first)
        set_all(line, 0)
        set_all(codes, layer.fill)
        for n in range(task // blocks * IMAGES, min(layer.images, (task // blocks + 1) * IMAGES)):
            for row in range((layer.outputs - 1) * layer.down + (layer.rows - 1) * layer.far + 1):
                if _sees(row, layer):
                    _lay_out_codes(x, n, row, first, lanes, layer, codes)
                    _expand(codes, u, planes, permutes, layer.rank, features)
                    _correlate_row(row, features, offsets, layer, g, n, first, lanes, line, sums, task * size)


@_loop_together
def weight_gradient_together(x, g, u, planes, permutes, layer, offsets, sums, begin, end):
    for task in prange(begin, end):
        weight_gradient(x, g, u, planes, permutes, layer, offsets, sums, task, task + 1)
