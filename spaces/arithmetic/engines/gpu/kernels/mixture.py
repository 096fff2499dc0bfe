"""Sums through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), without a map of features.

Everywhere x is (N, H, W, C) uint8; u and v (257, RANK) float32, RANK a power of two, zero in row 256. In dense layers, codes
are expanded into their features u_r, tile by tile. Depthwise ones, in which an activation meets few weights, look every
product up in a table of the 256 that a weight may have.
"""

import triton.language as tl

from .indexing import inside, jit, window_corners

# Factors as sums of two in TF32: nearly the precision of fp32, and exact for the integers of a single multiplier.
PRECISION = tl.constexpr("tf32x3")


@jit
def _store_features(
    w_index, v, features, place, outputs, inputs, size, out_step, in_step, tap_step, apart, RANK: tl.constexpr
):
    """features (taps, O, C/groups, RANK) = v[w_index], whose steps in memory are given; ``size`` is taps · O · C/groups.

    Where they are ``apart``, with one input per group: (taps, RANK, O).
    """
    known, rank = place < size, tl.arange(0, RANK)[None, :]
    row = place // inputs
    source = row // outputs * tap_step + row % outputs * out_step + place % inputs * in_step
    code = tl.load(w_index + source, mask=known, other=0).to(tl.int32)
    values = tl.load(v + (code[:, None] * RANK + rank))
    separate = (row // outputs)[:, None] * RANK * outputs + rank * outputs + (row % outputs)[:, None]
    tl.store(features + tl.where(apart > 0, separate, place[:, None] * RANK + rank), values, mask=known[:, None])


@jit
def weight_features_kernel(
    w_index, v, features, outputs: int, inputs: int, size: int, out_step: int, in_step: int, tap_step: int, apart: int,
    RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The features of a layer's weights."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    _store_features(w_index, v, features, place, outputs, inputs, size, out_step, in_step, tap_step, apart, RANK)


@jit
def all_weight_features_kernel(plan, w_index, v, features, RANK: tl.constexpr, BLOCK: tl.constexpr):
    """Those of many layers; plan (programs, 10) int64: where a layer's codes and features begin, its first place at hand,
    and what is told of a layer alone.
    """
    own = plan + tl.program_id(0) * 10
    place = tl.load(own + 2).to(tl.int32) + tl.arange(0, BLOCK)
    outputs, inputs, size = tl.load(own + 3).to(tl.int32), tl.load(own + 4).to(tl.int32), tl.load(own + 5).to(tl.int32)
    out_step, in_step = tl.load(own + 6).to(tl.int32), tl.load(own + 7).to(tl.int32)
    tap_step, apart = tl.load(own + 8).to(tl.int32), tl.load(own + 9).to(tl.int32)
    codes, target = w_index + tl.load(own), features + tl.load(own + 1)
    _store_features(codes, v, target, place, outputs, inputs, size, out_step, in_step, tap_step, apart, RANK)


@jit
def lines(code, RANK: tl.constexpr):
    """Where the RANK features of codes (rows, columns) are in a table of features by code: (rows, columns · RANK)."""
    places = code[:, :, None] * RANK + tl.arange(0, RANK)[None, None, :]
    # Features themselves, reshaped, crash Triton 3.2. What follows from that is lost on the way, and told again.
    places = tl.reshape(places, (code.shape[0], code.shape[1] * RANK))
    return tl.multiple_of(tl.max_contiguous(places, (1, RANK)), (1, RANK))


@jit
def blend_matrix_kernel(
    x, u, weights, scale, step, y,
    pixels: int, height: int, width: int, out_height: int, out_width: int,
    channels: int, outputs: int, taps: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    RANK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A tile of pixels × outputs of y (N, H', W', O), CHANNELS codes of a pixel at a time; padded positions add nothing.

    ``weights`` (taps, O, C, RANK) holds v_r(ŵ).
    """
    columns = tl.cdiv(outputs, BLOCK_N)
    out = tl.program_id(0) % columns * BLOCK_N + tl.arange(0, BLOCK_N)
    pixel = tl.program_id(0) // columns * BLOCK_M + tl.arange(0, BLOCK_M)
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    images = x + (image.to(tl.int64) * (height * width * channels))[:, None]
    lane = tl.arange(0, CHANNELS * RANK)
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for tap in range(taps):
        row = top + tap // kernel_width * dilation_h
        column = left + tap % kernel_width * dilation_w
        seen = inside(row, column, height, width)[:, None]
        place = ((row * width + column) * channels)[:, None]
        for start in range(0, channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            known = seen & (channel < channels)[None, :]
            code = tl.load(images + (place + channel[None, :]), mask=known, other=0).to(tl.int32)
            feature = tl.load(u + lines(tl.where(known, code, 256), RANK))
            source = (tap * outputs + out)[None, :] * (channels * RANK) + (start * RANK + lane)[:, None]
            held = (start + lane // RANK < channels)[:, None] & (out < outputs)[None, :]
            weight = tl.load(weights + source, mask=held, other=0.0)
            sums = tl.dot(feature, weight, sums, input_precision=PRECISION)
    factor = (tl.load(scale + out, mask=out < outputs, other=0.0) * tl.load(step))[None, :]
    real = (pixel < pixels)[:, None] & (out < outputs)[None, :]
    tl.store(y + (pixel.to(tl.int64)[:, None] * outputs + out[None, :]), sums * factor, mask=real)


# -- depthwise ---------------------------------------------------------------------------------------------------------


@jit
def depthwise_tables_kernel(w_index, u, v, tables, RANK: tl.constexpr):
    """tables (C · taps, 256): what each weight makes of every code."""
    rank, code = tl.arange(0, RANK)[None, :], tl.arange(0, 256)
    weight = tl.load(w_index + tl.program_id(0)).to(tl.int32)
    products = tl.load(u + (code[:, None] * RANK + rank)) * tl.load(v + (weight * RANK + rank))
    tl.store(tables + (tl.program_id(0) * 256 + code), tl.sum(products, axis=1))


@jit
def blend_depthwise_kernel(
    x, tables, scale, step, y, lows, highs, border,
    pixels: int, height: int, width: int, out_height: int, out_width: int, words: int, kernel_height: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    UNIT: tl.constexpr, ADDS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """PIXELS of UNIT channels of y (N, H', W', C): the 4 codes of a word of x (int32), or 1 of a byte.

    With ADDS, padded positions have the code ``border`` (1,) uint8, and else add nothing. Programs of the same channels follow
    each other, so that they find the tables (C, taps, 256) nearby. lows and highs (programs,) are the ranges of what each
    finds, NaN where there is one.
    """
    blocks = tl.cdiv(pixels, PIXELS)
    word = tl.program_id(0) // blocks
    pixel = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    codes = x + (image.to(tl.int64) * (height * width * words) + word)
    padding = tl.load(border).to(tl.int32)
    if UNIT == 4:
        padding = padding | padding << 8 | padding << 16 | padding << 24
    own = tables + word * (UNIT * 256 * KERNEL_WIDTH) * kernel_height
    apart = 256 * KERNEL_WIDTH * kernel_height
    first = tl.zeros((PIXELS,), dtype=tl.float32)
    second, third, fourth = first, first, first
    for row_tap in range(kernel_height):
        row = top + row_tap * dilation_h
        for column_tap in tl.static_range(KERNEL_WIDTH):
            column = left + column_tap * dilation_w
            seen = inside(row, column, height, width)
            packed = tl.load(codes + (row * width + column) * words, mask=seen, other=0).to(tl.int32)
            if ADDS:
                packed, seen = tl.where(seen, packed, padding), pixel < pixels
            here = own + (row_tap * KERNEL_WIDTH + column_tap) * 256
            first += tl.load(here + (packed & 255), mask=seen, other=0.0)
            if UNIT == 4:
                second += tl.load(here + apart + (packed >> 8 & 255), mask=seen, other=0.0)
                third += tl.load(here + 2 * apart + (packed >> 16 & 255), mask=seen, other=0.0)
                fourth += tl.load(here + 3 * apart + (packed >> 24 & 255), mask=seen, other=0.0)
    targets = y + (pixel.to(tl.int64) * words + word) * UNIT
    factors, real, whole = scale + word * UNIT, pixel < pixels, tl.load(step)
    if UNIT == 4:
        sums = tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (PIXELS, 4))
        channel = tl.arange(0, 4)[None, :]
        found = sums * (tl.load(factors + channel) * whole)
        tl.store(targets[:, None] + channel, found, mask=real[:, None])
        _store_range(found, real[:, None], lows, highs)
    else:
        found = first * (tl.load(factors) * whole)
        tl.store(targets, found, mask=real)
        _store_range(found, real, lows, highs)


@jit
def _store_range(found, real, lows, highs):
    """The range of what a program found and is ``real``."""
    number, nothing = found == found, tl.full((), float("nan"), tl.float32)
    lost = tl.max((~number & real).to(tl.int32)) > 0
    least = tl.min(tl.where(number & real, found, float("inf")))
    most = tl.max(tl.where(number & real, found, float("-inf")))
    tl.store(lows + tl.program_id(0), tl.where(lost, nothing, least))
    tl.store(highs + tl.program_id(0), tl.where(lost, nothing, most))
