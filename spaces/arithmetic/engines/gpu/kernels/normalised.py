"""Weighted sums of normalised maps, Σ_i w_i·(x_i − mean_i) / √(var_i + ε), and their gradients, for up to 8 maps at a time.

Every map is (rows, C) float32, a row for each pixel; a program reads ROWS rows of CHANNELS channels. Means and sums of blocks
of rows have places of their own, and are put together in a fixed order.
"""

import triton.language as tl

from .indexing import jit


@jit
def _one_of(number, m0, m1, m2, m3, m4, m5, m6, m7):
    """The map of a number."""
    found = tl.where(number == 1, m1, m0)
    found = tl.where(number == 2, m2, found)
    found = tl.where(number == 3, m3, found)
    found = tl.where(number == 4, m4, found)
    found = tl.where(number == 5, m5, found)
    found = tl.where(number == 6, m6, found)
    return tl.where(number == 7, m7, found)


@jit
def _tile(blocks, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """This program's number of the map, block and channels (CHANNELS,), which of these there are, where its rows of them lie in
    a map, and which of those there are.
    """
    columns = tl.cdiv(channels, CHANNELS)
    channel = tl.program_id(0) % columns * CHANNELS + tl.arange(0, CHANNELS)
    block, held = tl.program_id(0) // columns % blocks, channel < channels
    row = block * ROWS + tl.arange(0, ROWS)[:, None]
    place, known = row.to(tl.int64) * channels + channel[None, :], (row < rows) & held[None, :]
    return tl.program_id(0) // columns // blocks, block, channel, held, place, known


@jit
def map_statistics_kernel(
    m0, m1, m2, m3, m4, m5, m6, m7, found, rows: int, units: int, blocks: int,
    UNIT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The mean of every channel of a block, and the sum of squares around it: found (maps, blocks, 2, C)."""
    channels = units * UNIT
    number, block, channel, held, place, known = _tile(blocks, rows, channels, ROWS, CHANNELS)
    values = tl.load(_one_of(number, m0, m1, m2, m3, m4, m5, m6, m7) + place, mask=known, other=0.0)
    mean = tl.sum(values, axis=0) / tl.minimum(rows - block * ROWS, ROWS)
    apart = tl.where(known, values - mean[None, :], 0.0)
    target = found + (number * blocks + block) * 2 * channels + channel
    tl.store(target, mean, mask=held)
    tl.store(target + channels, tl.sum(apart * apart, axis=0), mask=held)


@jit
def finish_statistics_kernel(
    found, statistics, normalised: int, rows: int, channels: int, blocks: int,
    EPSILON: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """statistics (maps, 3, C): the mean, 1/√(var + ε), and the unbiased variance; of maps whose bit is not set in
    ``normalised``, 0, 1 and 0. Blocks are put together as Chan, Golub and LeVeque (1983) do.
    """
    columns = tl.cdiv(channels, CHANNELS)
    number, channel = tl.program_id(0) // columns, tl.program_id(0) % columns * CHANNELS + tl.arange(0, CHANNELS)
    own, lane, held = found + number * blocks * 2 * channels, tl.arange(0, BLOCKS), (channel < channels)[None, :]
    total = tl.zeros((CHANNELS,), dtype=tl.float32)
    for first in range(0, blocks, BLOCKS):
        block = first + lane
        known = (block < blocks)[:, None] & held
        mean = tl.load(own + (block[:, None] * 2 * channels + channel[None, :]), mask=known, other=0.0)
        total += tl.sum(mean * tl.minimum(rows - block * ROWS, ROWS).to(tl.float32)[:, None], axis=0)
    middle = total / rows
    squares = tl.zeros((CHANNELS,), dtype=tl.float32)
    for first in range(0, blocks, BLOCKS):
        block = first + lane
        known = (block < blocks)[:, None] & held
        place = own + (block[:, None] * 2 * channels + channel[None, :])
        apart = tl.where(known, tl.load(place, mask=known, other=0.0) - middle[None, :], 0.0)
        inside = tl.load(place + channels, mask=known, other=0.0)
        squares += tl.sum(
            inside + apart * apart * tl.minimum(rows - block * ROWS, ROWS).to(tl.float32)[:, None], axis=0
        )
    counts = (normalised >> number & 1) == 1
    target = statistics + number * 3 * channels + channel
    tl.store(target, tl.where(counts, middle, 0.0), mask=channel < channels)
    tl.store(target + channels, tl.where(counts, tl.rsqrt(squares / rows + EPSILON), 1.0), mask=channel < channels)
    tl.store(target + 2 * channels, tl.where(counts, squares / (rows - 1), 0.0), mask=channel < channels)


@jit
def weighted_sum_kernel(
    m0, m1, m2, m3, m4, m5, m6, m7, statistics, weights, y, maps: int, rows: int, units: int,
    ADDS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y (rows, C) = the weighted sum of so many maps; with ADDS, that is added to it."""
    channels = units * UNIT
    _, _, channel, held, place, known = _tile(tl.cdiv(rows, ROWS), rows, channels, ROWS, CHANNELS)
    total = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    if ADDS:
        total = tl.load(y + place, mask=known, other=0.0)
    for number in range(maps):
        x = _one_of(number, m0, m1, m2, m3, m4, m5, m6, m7)
        own = statistics + number * 3 * channels + channel
        mean, factor = tl.load(own, mask=held, other=0.0), tl.load(own + channels, mask=held, other=0.0)
        apart = tl.load(x + place, mask=known, other=0.0) - mean[None, :]
        total += apart * (factor * tl.load(weights + number))[None, :]
    tl.store(y + place, total, mask=known)


@jit
def gradient_sums_kernel(
    m0, m1, m2, m3, m4, m5, m6, m7, grad, statistics, found, rows: int, units: int, blocks: int,
    UNIT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Of a block, the sums over grad (rows, C), and over its products with the normalised map: found (maps, blocks, 2, C)."""
    channels = units * UNIT
    number, block, channel, held, place, known = _tile(blocks, rows, channels, ROWS, CHANNELS)
    x = _one_of(number, m0, m1, m2, m3, m4, m5, m6, m7)
    own = statistics + number * 3 * channels + channel
    mean, factor = tl.load(own, mask=held, other=0.0), tl.load(own + channels, mask=held, other=0.0)
    pull = tl.load(grad + place, mask=known, other=0.0)
    apart = tl.load(x + place, mask=known, other=0.0) - mean[None, :]
    target = found + (number * blocks + block) * 2 * channels + channel
    tl.store(target, tl.sum(pull, axis=0), mask=held)
    tl.store(target + channels, tl.sum(tl.where(known, pull * apart, 0.0), axis=0) * factor, mask=held)


@jit
def finish_gradients_kernel(
    found, statistics, weights, terms, of_weights, normalised: int, rows: int, channels: int, blocks: int,
    BLOCKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """of_weights (maps,), and terms (maps, 3, C): what the gradient of a map is multiplied by, and what is taken off it
    before: a constant, and a share of the normalised map (through the mean and the variance, which depend on all rows).
    """
    number, lane = tl.program_id(0), tl.arange(0, BLOCKS)
    own, weight = found + number * blocks * 2 * channels, tl.load(weights + number)
    counts = (normalised >> number & 1) == 1
    total = 0.0
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        held = channel < channels
        pulls, products = tl.zeros((CHANNELS,), dtype=tl.float32), tl.zeros((CHANNELS,), dtype=tl.float32)
        for first in range(0, blocks, BLOCKS):
            block = first + lane
            known = (block < blocks)[:, None] & held[None, :]
            place = own + (block[:, None] * 2 * channels + channel[None, :])
            pulls += tl.sum(tl.load(place, mask=known, other=0.0), axis=0)
            products += tl.sum(tl.load(place + channels, mask=known, other=0.0), axis=0)
        factor = tl.load(statistics + number * 3 * channels + channels + channel, mask=held, other=0.0)
        target = terms + number * 3 * channels + channel
        tl.store(target, factor * weight, mask=held)
        tl.store(target + channels, tl.where(counts, pulls / rows, 0.0), mask=held)
        tl.store(target + 2 * channels, tl.where(counts, products / rows, 0.0), mask=held)
        total += tl.sum(products)
    tl.store(of_weights + number, total)


@jit
def map_gradients_kernel(
    m0, m1, m2, m3, m4, m5, m6, m7, grad, statistics, terms, out, rows: int, units: int, blocks: int,
    UNIT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out (maps, rows, C): the gradient of every map."""
    channels = units * UNIT
    number, _, channel, held, place, known = _tile(blocks, rows, channels, ROWS, CHANNELS)
    x = _one_of(number, m0, m1, m2, m3, m4, m5, m6, m7)
    own, term = statistics + number * 3 * channels + channel, terms + number * 3 * channels + channel
    mean, scale = tl.load(own, mask=held, other=0.0), tl.load(own + channels, mask=held, other=0.0)
    factor, constant = tl.load(term, mask=held, other=0.0), tl.load(term + channels, mask=held, other=0.0)
    share = tl.load(term + 2 * channels, mask=held, other=0.0) * scale
    pull = tl.load(grad + place, mask=known, other=0.0)
    apart = tl.load(x + place, mask=known, other=0.0) - mean[None, :]
    taken = tl.where(share[None, :] == 0.0, 0.0, apart * share[None, :])  # of an infinite number, too
    found = (pull - constant[None, :] - taken) * factor[None, :]
    tl.store(out + number.to(tl.int64) * rows * channels + place, found, mask=known)
