"""Sums through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients, without a map of features.

Everywhere x is (N, H, W, C) uint8; u, v and span (257, RANK) float32, RANK a power of two, zero in row 256. In dense layers,
codes are expanded into their features u_r, tile by tile. Depthwise ones, in which an activation meets few weights, look every
product up in a table of the 256 that a weight may have. The gradient of u, which lies in a span of few columns, is found
along these. Sums of a program come in a fixed order, and each has a place of its own.
"""

import triton.language as tl

from .indexing import inside, jit, window_corners

# Factors as sums of two in TF32: nearly the precision of fp32, and exact for the integers of a single multiplier.
_PRECISION = tl.constexpr("tf32x3")


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
def _lines(code, RANK: tl.constexpr):
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
            feature = tl.load(u + _lines(tl.where(known, code, 256), RANK))
            source = (tap * outputs + out)[None, :] * (channels * RANK) + (start * RANK + lane)[:, None]
            held = (start + lane // RANK < channels)[:, None] & (out < outputs)[None, :]
            weight = tl.load(weights + source, mask=held, other=0.0)
            sums = tl.dot(feature, weight, sums, input_precision=_PRECISION)
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


# -- gradients ---------------------------------------------------------------------------------------------------------


@jit
def _reader(place, tap, STRIDE: tl.constexpr, padding, dilation, size):
    """The row (or column) of the output that reads a row of the input by this tap of its window, and whether there is one."""
    corner = place + padding - tap * dilation
    return corner // STRIDE, (corner >= 0) & (corner % STRIDE == 0) & (corner < size * STRIDE)


@jit
def blend_matrix_table_kernel(
    x, grad, scale, weights, span, sums,
    pixels: int, height: int, width: int, out_height: int, out_width: int, channels: int, outputs: int, kernel_width: int,
    chunks: int, blocks: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    RANK: tl.constexpr, PITCH: tl.constexpr, SPAN: tl.constexpr, BLOCK_K: tl.constexpr, CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):  # fmt: skip
    """What CHANNELS × OUTPUTS weights of one tap find in one of ``chunks`` of ``blocks`` times BLOCK_K output pixels.

    Each column of ``span`` (256, SPAN) as activations has a gradient of the weights, which meets their features, ``weights``
    (taps, O, C, PITCH), in the table's: sums (RANK, SPAN, programs). x (N, H, W, C), grad (N, H', W', O), scale (O,) of them.
    """
    tile, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    columns, rows = tl.cdiv(outputs, OUTPUTS), tl.cdiv(channels, CHANNELS)
    out = tile % columns * OUTPUTS + tl.arange(0, OUTPUTS)
    first, tap = tile // columns % rows * CHANNELS, tile // columns // rows
    channel, column = first + tl.arange(0, CHANNELS), tl.arange(0, SPAN)
    met = tl.zeros((CHANNELS * SPAN, OUTPUTS), dtype=tl.float32)
    for block in range(blocks):
        pixel = (chunk * blocks + block) * BLOCK_K + tl.arange(0, BLOCK_K)
        image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
        row, place = top + tap // kernel_width * dilation_h, left + tap % kernel_width * dilation_w
        known = (inside(row, place, height, width) & (pixel < pixels))[:, None] & (channel < channels)[None, :]
        corner = ((image.to(tl.int64) * height + row) * width + place) * channels
        code = tl.load(x + (corner[:, None] + channel[None, :]), mask=known, other=0).to(tl.int32)
        activation = tl.load(span + _lines(tl.where(known, code, 256), SPAN))
        real = (pixel < pixels)[:, None] & (out < outputs)[None, :]
        pull = tl.load(grad + (pixel.to(tl.int64)[:, None] * outputs + out[None, :]), mask=real, other=0.0)
        met = tl.dot(tl.trans(activation), pull, met, input_precision=_PRECISION)
    met *= tl.load(scale + out, mask=out < outputs, other=0.0)[None, :]
    # By column, so that all that is added up for one lies in few threads
    by_column = tl.permute(tl.reshape(met, (CHANNELS, SPAN, OUTPUTS)), (1, 0, 2))
    by_column = tl.reshape(by_column, (SPAN, CHANNELS * OUTPUTS))
    pair = tl.arange(0, CHANNELS * OUTPUTS)
    own, out = first + pair // OUTPUTS, tile % columns * OUTPUTS + pair % OUTPUTS
    source = weights + ((tap * outputs + out) * channels + own) * PITCH
    programs = tl.num_programs(0)
    target = sums + column * programs + tl.program_id(0)
    for rank in tl.static_range(RANK):
        weight = tl.load(source + rank, mask=(own < channels) & (out < outputs), other=0.0)
        tl.store(target + rank * SPAN * programs, tl.sum(by_column * weight[None, :], axis=1))


@jit
def _pulled(sums, pull, features, channels, known, r: tl.constexpr, RANK: tl.constexpr):
    """Add what pulls at feature r of RANK, by the weight of every channel."""
    if r < RANK:
        sums += pull * tl.load(features + r * channels, mask=known, other=0.0)[None, :]
    return sums


@jit
def _store_sum(found, share, target, step, r: tl.constexpr, RANK: tl.constexpr):
    """The sum of what was found for feature r, each by its share."""
    if r < RANK:
        tl.store(target + r * step, tl.sum(found * share))


@jit
def blend_depthwise_gradient_kernel(
    grad, scale, features, x, clamped, span, grad_x, sums, border, border_h: int, border_w: int,
    pixels: int, height: int, width: int, out_height: int, out_width: int, channel_units: int, kernel_height: int,
    feature_step: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    UNIT: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    RANK: tl.constexpr, SPAN: tl.constexpr, PITCH: tl.constexpr, FIRST: tl.constexpr, CLAMPS: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """PIXELS × CHANNELS of the input, of which up to 8 features' gradients are transposed convolutions.

    grad (N, H', W', C), scale (C,): what the outputs were multiplied by; ``features`` (taps, …, C): v_r(ŵ) for the RANK r at
    hand. With ``border_h`` rows and ``border_w`` columns around every image, whose code is ``border`` (1,) uint8: ``pixels``
    counts theirs, too. With FIRST, that of feature 0 is grad_x (N, H, W, C), with CLAMPS zero where ``clamped``; sums (RANK,
    SPAN, programs) are all of them, times each column of ``span`` (256, PITCH) at their codes.
    """
    channels = channel_units * UNIT
    tiles = tl.cdiv(channels, CHANNELS)
    channel = tl.program_id(0) % tiles * CHANNELS + tl.arange(0, CHANNELS)
    pixel = tl.program_id(0) // tiles * PIXELS + tl.arange(0, PIXELS)
    all_rows, all_columns = height + 2 * border_h, width + 2 * border_w
    image, row, column = window_corners(pixel, pixels, all_rows, all_columns, 1, 1, border_h, border_w)
    grads = grad + (image.to(tl.int64) * (out_height * out_width * channels))[:, None]
    held = channel < channels
    f0 = tl.zeros((PIXELS, CHANNELS), dtype=tl.float32)
    f1, f2, f3, f4, f5, f6, f7 = f0, f0, f0, f0, f0, f0, f0
    for row_tap in range(kernel_height):
        out_row, in_rows = _reader(row, row_tap, STRIDE_H, pad_h, dilation_h, out_height)
        in_rows &= pixel < pixels
        for column_tap in tl.static_range(KERNEL_WIDTH):
            out_column, in_columns = _reader(column, column_tap, STRIDE_W, pad_w, dilation_w, out_width)
            seen = (in_rows & in_columns)[:, None] & held[None, :]
            place = ((out_row * out_width + out_column) * channels)[:, None] + channel[None, :]
            pull = tl.load(grads + place, mask=seen, other=0.0)
            here = features + (row_tap * KERNEL_WIDTH + column_tap) * feature_step + channel
            f0 = _pulled(f0, pull, here, channels, held, 0, RANK)
            f1 = _pulled(f1, pull, here, channels, held, 1, RANK)
            f2 = _pulled(f2, pull, here, channels, held, 2, RANK)
            f3 = _pulled(f3, pull, here, channels, held, 3, RANK)
            f4 = _pulled(f4, pull, here, channels, held, 4, RANK)
            f5 = _pulled(f5, pull, here, channels, held, 5, RANK)
            f6 = _pulled(f6, pull, here, channels, held, 6, RANK)
            f7 = _pulled(f7, pull, here, channels, held, 7, RANK)
    factor = tl.load(scale + channel, mask=held, other=0.0)[None, :]
    counts = (pixel < pixels)[:, None] & held[None, :]
    known = counts & inside(row, column, height, width)[:, None]
    place = ((image.to(tl.int64) * height + row) * width + column)[:, None] * channels + channel[None, :]
    if FIRST:
        found = f0 * factor
        if CLAMPS:
            found = tl.where(tl.load(clamped + place, mask=known, other=0) == 0, found, 0.0)
        tl.store(grad_x + place, found, mask=known)
    code = tl.zeros((PIXELS, CHANNELS), dtype=tl.int32)
    if SPAN > 0:
        code = tl.where(known, tl.load(x + place, mask=known, other=0), tl.load(border)).to(tl.int32)
    programs = tl.num_programs(0)
    step = SPAN * programs
    for at in tl.static_range(SPAN):
        share = tl.load(span + (code * PITCH + at), mask=counts, other=0.0) * factor
        target = sums + at * programs + tl.program_id(0)
        _store_sum(f0, share, target, step, 0, RANK)
        _store_sum(f1, share, target, step, 1, RANK)
        _store_sum(f2, share, target, step, 2, RANK)
        _store_sum(f3, share, target, step, 3, RANK)
        _store_sum(f4, share, target, step, 4, RANK)
        _store_sum(f5, share, target, step, 5, RANK)
        _store_sum(f6, share, target, step, 6, RANK)
        _store_sum(f7, share, target, step, 7, RANK)


@jit
def depthwise_weight_gradient_kernel(
    grad, x, values, sums,
    pixels: int, height: int, width: int, out_height: int, out_width: int, channel_units: int, kernel_height: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    LINE: tl.constexpr, UNIT: tl.constexpr, KERNEL_WIDTH: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """sums (C, taps, blocks): products of grad (N, H', W', C) and the ``values`` (256,) of the codes x that a tap reads.

    With LINE, each value is larger by 1 than the one before, 0 among them, and need not be looked up. A program takes PIXELS outputs of
    CHANNELS; padded positions add nothing.
    """
    channels = channel_units * UNIT
    tiles = tl.cdiv(channels, CHANNELS)
    block, blocks = tl.program_id(0) // tiles, tl.num_programs(0) // tiles
    channel, pixel = tl.program_id(0) % tiles * CHANNELS + tl.arange(0, CHANNELS), block * PIXELS + tl.arange(0, PIXELS)
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    held, images = channel < channels, image.to(tl.int64) * (height * width * channels)
    real = (pixel < pixels)[:, None] & held[None, :]
    pull = tl.load(grad + (pixel.to(tl.int64)[:, None] * channels + channel[None, :]), mask=real, other=0.0)
    target = sums + (channel * (kernel_height * KERNEL_WIDTH)).to(tl.int64) * blocks + block
    lowest = tl.load(values)
    nothing = (-lowest).to(tl.int32).to(tl.uint8)  # the code of zero, on a line
    for row_tap in range(kernel_height):
        row = top + row_tap * dilation_h
        for column_tap in tl.static_range(KERNEL_WIDTH):
            column = left + column_tap * dilation_w
            seen = inside(row, column, height, width)[:, None] & held[None, :]
            place = (images + (row * width + column) * channels)[:, None] + channel[None, :]
            if LINE:
                met = (tl.load(x + place, mask=seen, other=nothing).to(tl.int32).to(tl.float32) + lowest) * pull
            else:
                code = tl.load(x + place, mask=seen, other=0).to(tl.int32)
                met = tl.load(values + code, mask=seen, other=0.0) * pull
            tl.store(target + (row_tap * KERNEL_WIDTH + column_tap) * blocks, tl.sum(met, axis=0), mask=held)


@jit
def table_gradient_kernel(sums, step, table, programs: int, BLOCK: tl.constexpr):
    """table (n,) = the sums (n, programs) over all programs, times ``step`` (0-dimensional)."""
    lane = tl.arange(0, BLOCK)
    own = sums + tl.program_id(0).to(tl.int64) * programs
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, programs, BLOCK):
        total += tl.load(own + (first + lane), mask=first + lane < programs, other=0.0)
    tl.store(table + tl.program_id(0), tl.sum(total) * tl.load(step))
