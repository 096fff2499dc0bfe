"""Loops over depthwise convolutions whose products are Σ_r u_r(x̂)·v_r(ŵ), and over their gradients; sixteen channels at a time.

An input row is laid out beside its padding, expanded into its features, and meets each kernel row: what it adds to
an output row is added up there and then, so that all of this stays in the first-level cache. Which rows meet is looked up
in a plan. Maps are (N, H, W, C), the memory of channels-last tensors; all memory is told by its address.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from spaces.arithmetic.engines.cpu.depthwise_products import PIXELS, correlate, multiply_numbers, multiply_words
from spaces.arithmetic.engines.cpu.depthwise_simd import (
    finish_integers,
    finish_row,
    lay_out_bytes,
    lay_out_floats,
    look_up_bytes,
    look_up_each,
    look_up_halves,
    set_bytes,
    set_floats,
)
from spaces.arithmetic.engines.memory import CODES, LANES, bytes_at, floats_at, number_at
from spaces.arithmetic.engines.quantise_loops import extent_of

ONE_BY_ONE, BY_BYTES, BY_HALVES, AS_NUMBERS = range(4)  # how codes are looked up; numbers are no codes
OF_MAP, OF_PADDING = 1, 2  # rows; 0: one that adds nothing
NUMBERS, WORDS, WORDS_SCALED = range(3)  # what features are: float32, or four bytes of which the sums may be scaled
GROUP = 4  # blocks of 16 channels that are written side by side: whole pages of memory, one after the other
IMAGES = 8  # whose gradients of the weights are added up by one task, however many threads there are
LINE = 64  # bytes of a line of the cache

_part = njit(inline="always")  # of a loop: so that LLVM sees it once, and not at each level of calls again
_loop = njit(cache=True, nogil=True, error_model="numpy")


class Layer(NamedTuple):
    """The numbers of one depthwise convolution."""

    images: int
    height: int  # of the input
    width: int
    channels: int
    outputs: int  # rows
    pixels: int  # of an output row
    rank: int
    rows: int  # of the kernel
    columns: int
    along: int  # stride and dilation, between columns
    gap: int
    window: int  # the number of columns, along and gap, as ``depthwise_products`` has them
    wide: int  # pixels of a laid-out row, as many as its windows see; whole look-ups
    tiles: int  # of eight pixels of an output row
    seen: int  # pixels of an input row that are laid out
    skipped: int  # of those before them
    left: int  # where they begin
    apart: int  # where the next one is
    live: int  # output rows at a time
    steps: int  # of the plan
    fill: int  # the code of padded positions


# What a step of the plan holds: which kind of row, which row of the map, which output row is done then (or −1) and where its
# sums are; then for each kernel row the output row that sees it so (or −1), and where the sums of that one are.
KIND, ROW, DONE, SUMS_DONE, SEEN_BY = range(5)


@_part
def _expand(codes, features, count, u, planes, halves, how, layer):
    """``count`` codes, 64 times so many, as R features."""
    size = layer.wide * LANES
    if how == BY_HALVES:
        look_up_halves(codes, halves, layer.rank, features, size, count // LANES)
    elif how == BY_BYTES:
        for r in range(layer.rank):
            look_up_bytes(codes, planes + 1024 * r, features + 4 * size * r, count // CODES)
    elif how == ONE_BY_ONE:
        for r in range(layer.rank):
            look_up_each(codes, u + 1024 * r, features + 4 * size * r, count)


@_part
def _features_of_row(x, kind, start, lanes, codes, features, u, planes, halves, how, layer):
    """A row of the map, of which only that part changes that lies within the map; or one of the padding."""
    begin, size = layer.left * LANES, layer.wide * LANES
    if kind == OF_PADDING:
        set_bytes(codes, layer.fill, size)
        _expand(codes, features, size, u, planes, halves, how, layer)
    elif how == AS_NUMBERS:
        lay_out_floats(x, start, layer.channels, layer.seen, lanes, features, begin, layer.apart * LANES)
    else:
        lay_out_bytes(x, start, layer.channels, layer.seen, lanes, codes, begin, LANES)
        count = (layer.seen * LANES + CODES - 1) // CODES * CODES
        _expand(codes + begin, features + 4 * begin, count, u, planes, halves, how, layer)


@_part
def _add_row(step, features, layer, weights, sums, words):
    """What a row of features adds to all output rows that see it."""
    size, pitch = layer.rank * layer.columns * LANES, layer.tiles * PIXELS * LANES
    for k in range(layer.rows):
        if number_at(step, SEEN_BY + 2 * k) >= 0:
            own, taps = sums + 4 * pitch * number_at(step, SEEN_BY + 1 + 2 * k), weights + 4 * size * k
            plane, stride, gap = layer.wide * LANES, layer.along * LANES, layer.gap * LANES
            shape = (layer.rank, layer.columns, stride, gap, layer.tiles)
            if words != NUMBERS:
                multiply_words(layer.window, own, features, plane, taps, *shape)
            else:
                multiply_numbers(layer.window, own, features, plane, taps, *shape)


@_loop
def convolve(x, u, planes, halves, how, plan, layer, weights, words, scale, constant, y, extents, begin, end):
    """y = scale·Σ u_r(x̂)·v_r(ŵ) + constant (N, H', W', C), for tasks from ``begin`` to ``end``: some channels of an image.

    x (N, H, W, C) are codes, ``u`` (R, 256), ``planes`` and ``halves`` what is looked up; or x are float32 numbers.
    ``weights`` (blocks, kH, R, kW, 16), ``scale`` and ``constant`` (C,). With ``words`` other than NUMBERS, features and
    weights are four bytes each, and the sums and the constant 32-bit integers. ``extents`` (2, N), or 0: the smallest and
    the largest number of y in each image, which is a task of its own.
    """
    groups = (layer.channels + GROUP * LANES - 1) // (GROUP * LANES)
    size, pitch = layer.wide * LANES, layer.tiles * PIXELS * LANES
    held, taps = layer.live * pitch, layer.rows * layer.rank * layer.columns * LANES
    memory = np.empty(layer.rank * size + GROUP * held + size // 4 + LANES, dtype=np.float32)
    features = (memory.ctypes.data + LINE - 1) // LINE * LINE
    sums = features + 4 * layer.rank * size
    codes = sums + 4 * GROUP * held
    set_floats(features, layer.rank * size)
    set_floats(sums, GROUP * held)
    set_bytes(codes, layer.fill, size)
    _expand(codes, features, size, u, planes, halves, how, layer)
    for task in range(begin, end):
        n, first = task // groups, task % groups * GROUP
        blocks = min(GROUP, (layer.channels + LANES - 1) // LANES - first)
        for number in range(layer.steps):
            step = plan + 8 * number * (SEEN_BY + 2 * layer.rows)
            kind, done = number_at(step, KIND), number_at(step, DONE)
            row = ((n * layer.height + number_at(step, ROW)) * layer.width + layer.skipped) * layer.channels
            for block in range(blocks if kind > 0 else 0):
                channel = (first + block) * LANES
                lanes = min(LANES, layer.channels - channel)
                _features_of_row(x, kind, row + channel, lanes, codes, features, u, planes, halves, how, layer)
                _add_row(step, features, layer, weights + 4 * taps * (first + block), sums + 4 * held * block, words)
            for block in range(blocks if done >= 0 else 0):
                channel, own = (first + block) * LANES, sums + 4 * (held * block + pitch * number_at(step, SUMS_DONE))
                start = (n * layer.outputs + done) * layer.pixels * layer.channels + channel
                lanes = min(LANES, layer.channels - channel)
                if words == NUMBERS:
                    finish_row(own, scale, constant, channel, y, start, layer.channels, layer.pixels, lanes)
                else:
                    scaled = words == WORDS_SCALED
                    finish_integers(
                        own, scale, constant, channel, y, start, layer.channels, layer.pixels, lanes, scaled
                    )
                set_floats(own, pitch)
        if extents:
            found, count = floats_at(extents), layer.outputs * layer.pixels * layer.channels
            found[n], found[layer.images + n] = extent_of(y + 4 * n * count, count)
    memory[0] = 0  # to here it must be kept


@_part
def _correlate_row(step, features, layer, g, n, channel, lanes, line, sums):
    """What a row of features meets in the gradients of all output rows that see it."""
    plane, stride, gap = layer.wide * LANES, layer.along * LANES, layer.gap * LANES
    for k in range(layer.rows):
        seen_by = number_at(step, SEEN_BY + 2 * k)
        if seen_by >= 0:
            start, between = (n * layer.outputs + seen_by) * layer.pixels * layer.channels + channel, layer.channels
            grads, own = g + 4 * start, sums + 4 * LANES * k * layer.rank * layer.columns
            if lanes < LANES or layer.pixels % PIXELS:  # beside zeros, for whole vectors and tiles
                lay_out_floats(g, start, between, layer.pixels, lanes, line, 0, LANES)
                grads, between = line, LANES
            shape = (layer.rank, layer.columns, stride, gap)
            correlate(layer.window, own, features, plane, *shape, grads, between, layer.tiles)


@_loop
def weight_gradient(x, g, u, planes, halves, how, plan, layer, sums, begin, end):
    """Σ over pixels of u_r(x̂)·gradient, sums (groups, blocks, kH, R, kW, 16), for tasks from ``begin`` to ``end``.

    A task is 16 channels of a group of images. x (N, H, W, C) are codes, g (N, H', W', C) gradients.
    """
    blocks, size = (layer.channels + LANES - 1) // LANES, layer.wide * LANES
    count, across = layer.rows * layer.rank * layer.columns * LANES, layer.tiles * PIXELS * LANES
    memory = np.empty(layer.rank * size + across + size // 4 + LANES, dtype=np.float32)
    features = (memory.ctypes.data + LINE - 1) // LINE * LINE
    line = features + 4 * layer.rank * size
    codes = line + 4 * across
    set_floats(line, across)
    set_bytes(codes, layer.fill, size)
    _expand(codes, features, size, u, planes, halves, how, layer)
    for task in range(begin, end):
        channel, own = task % blocks * LANES, sums + 4 * count * task
        lanes = min(LANES, layer.channels - channel)
        set_floats(own, count)
        for n in range(task // blocks * IMAGES, min(layer.images, (task // blocks + 1) * IMAGES)):
            for number in range(layer.steps):
                step = plan + 8 * number * (SEEN_BY + 2 * layer.rows)
                kind = number_at(step, KIND)
                if kind > 0:
                    start = (n * layer.height + number_at(step, ROW)) * layer.width * layer.channels + channel
                    _features_of_row(x, kind, start, lanes, codes, features, u, planes, halves, how, layer)
                    _correlate_row(step, features, layer, g, n, channel, lanes, line, own)
    memory[0] = 0  # to here it must be kept


@_loop
def add_groups(sums, groups, layer, step, gradient):
    """gradient[c, r, k, m] = step · Σ of what ``weight_gradient`` found for each group of images, (C, R, kH, kW)."""
    found, results = floats_at(sums), floats_at(gradient)
    count = layer.rows * layer.rank * layer.columns * LANES
    pitch = (layer.channels + LANES - 1) // LANES * count  # between groups
    place = 0
    for c in range(layer.channels):
        for r in range(layer.rank):
            for k in range(layer.rows):
                for m in range(layer.columns):
                    own = c // LANES * count + ((k * layer.rank + r) * layer.columns + m) * LANES + c % LANES
                    total = np.float32(0)
                    for group in range(groups):
                        total += found[group * pitch + own]
                    results[place] = total * step
                    place += 1


@njit(cache=True, nogil=True)
def decode(index, values, scale, flipped, blocks):
    """Weights (C, 1, kH, kW) by index as ``convolve`` wants them: ``blocks`` (blocks, kH, R, kW, 16), full of zeros.

    ``values`` (256, R); ``scale`` (C,), or of one number, which then is 1.
    """
    channels, _, rows, columns = index.shape
    for c in range(channels):
        for k in range(rows):
            for m in range(columns):
                code = index[c, 0, rows - 1 - k, columns - 1 - m] if flipped else index[c, 0, k, m]
                for r in range(values.shape[1]):
                    value = values[code, r]
                    blocks[c // LANES, k, r, m, c % LANES] = value * scale[c] if scale.size > 1 else value


@njit(cache=True, nogil=True)
def decode_words(index, channels, values, constants, blocks, sums):
    """The same of whole numbers: weights (C, kH, kW) at an address, ``values`` (256, R) int32; sums[c] = Σ of ``constants``."""
    codes, place = bytes_at(index), 0
    for c in range(channels):
        total = 0
        for k in range(blocks.shape[1]):
            for m in range(blocks.shape[3]):
                code = codes[place]
                place += 1
                total += constants[code]
                for r in range(values.shape[1]):
                    blocks[c // LANES, k, r, m, c % LANES] = values[code, r]
        sums[c] = total
