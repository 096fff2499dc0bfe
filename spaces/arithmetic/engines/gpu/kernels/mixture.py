"""Sums through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients, without a map of features.

Everywhere x is (N, H, W, C) uint8; u and v (256, RANK) float32, RANK a power of two. In dense layers, codes are expanded into
their features u_r in registers. Depthwise ones, in which an activation meets few weights, look every product up in a table of
the 256 that a weight may have. Backwards, the features' gradients are reduced to the table's where they arise. Sums of a
program come in a fixed order, and each has a place of its own.
"""

import triton.language as tl

from .indexing import inside, jit, window_corners

# Factors as sums of two in TF32: nearly the precision of fp32, and exact for the integers of a single multiplier.
_PRECISION = tl.constexpr("tf32x3")


@jit
def weight_features_kernel(
    w_index, v, features, outputs: int, inputs: int, size: int, out_step: int, in_step: int, tap_step: int,
    RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """features (taps, O, C/groups, RANK) = v[w_index], whose steps in memory are given; ``size`` is taps · O · C/groups."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known, rank = place < size, tl.arange(0, RANK)[None, :]
    row = place // inputs
    source = row // outputs * tap_step + row % outputs * out_step + place % inputs * in_step
    code = tl.load(w_index + source, mask=known, other=0).to(tl.int32)
    values = tl.load(v + (code[:, None] * RANK + rank))
    tl.store(features + (place.to(tl.int64)[:, None] * RANK + rank), values, mask=known[:, None])


@jit
def blend_matrix_kernel(
    x, u, weights, scale, y,
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
    lane, rank = tl.arange(0, CHANNELS * RANK), tl.arange(0, RANK)
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
            rows = tl.where(known, code, 256)[:, :, None] * RANK + rank[None, None, :]
            rows = tl.reshape(rows, (BLOCK_M, CHANNELS * RANK))  # features themselves, reshaped, crash Triton 3.2
            feature = tl.load(u + rows, mask=rows < 256 * RANK, other=0.0)
            source = (tap * outputs + out)[None, :] * (channels * RANK) + (start * RANK + lane)[:, None]
            held = (start + lane // RANK < channels)[:, None] & (out < outputs)[None, :]
            weight = tl.load(weights + source, mask=held, other=0.0)
            sums = tl.dot(feature, weight, sums, input_precision=_PRECISION)
    factor = tl.load(scale + out, mask=out < outputs, other=0.0)[None, :]
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
    x, tables, scale, y, border,
    pixels: int, height: int, width: int, out_height: int, out_width: int, words: int, kernel_height: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    UNIT: tl.constexpr, ADDS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """PIXELS of UNIT channels of y (N, H', W', C): the 4 codes of a word of x (int32), or 1 of a byte.

    With ADDS, padded positions have the code ``border`` (1,) uint8, and else add nothing. Programs of the same channels follow
    each other, so that they find the tables (C, taps, 256) nearby.
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
    factors, real = scale + word * UNIT, pixel < pixels
    if UNIT == 4:
        sums = tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (PIXELS, 4))
        channel = tl.arange(0, 4)[None, :]
        tl.store(targets[:, None] + channel, sums * tl.load(factors + channel), mask=real[:, None])
    else:
        tl.store(targets, first * tl.load(factors), mask=real)


# -- gradients ---------------------------------------------------------------------------------------------------------


@jit
def _reader(place, tap, STRIDE: tl.constexpr, padding, dilation, size):
    """The row (or column) of the output that reads a row of the input by this tap of its window, and whether there is one."""
    corner = place + padding - tap * dilation
    return corner // STRIDE, (corner >= 0) & (corner % STRIDE == 0) & (corner < size * STRIDE)


@jit
def _store_gradients(features, x, span, grad_x, sums, border, place, known, counts, SPAN: tl.constexpr):
    """Gradients for the features of pixels × channels (×RANK) → that of feature 0, and all of them projected.

    ``known`` are at ``place`` in x; others that count have the code ``border`` (1,) uint8. sums (programs, SPAN, RANK): the
    gradients' sums over this program's pixels and channels, times each column of ``span`` (256, SPAN) at their codes.
    """
    RANK: tl.constexpr = features.shape[2]
    rank = tl.arange(0, RANK)
    tl.store(grad_x + place, tl.sum(tl.where((rank == 0)[None, None, :], features, 0.0), axis=2), mask=known)
    code = tl.where(known, tl.load(x + place, mask=known, other=0), tl.load(border)).to(tl.int32)
    target = sums + tl.program_id(0) * (SPAN * RANK) + rank
    for column in tl.static_range(SPAN):
        share = tl.load(span + (code * SPAN + column), mask=counts, other=0.0)
        projected = tl.reshape(features * share[:, :, None], (features.shape[0] * features.shape[1], RANK))
        tl.store(target + column * RANK, tl.sum(projected, axis=0))


@jit
def blend_matrix_gradient_kernel(
    grad, scale, weights, x, span, grad_x, sums,
    pixels: int, height: int, width: int, out_height: int, out_width: int,
    channels: int, outputs: int, taps: int, kernel_width: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, RANK: tl.constexpr, SPAN: tl.constexpr,
    BLOCK_M: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of pixels × channels of the input, of which every feature's gradient is a transposed convolution.

    grad (N, H', W', O), scale (O,): what the outputs were multiplied by. grad_x (N, H, W, C), sums (programs, SPAN, RANK).
    """
    tiles = tl.cdiv(channels, CHANNELS)
    first = tl.program_id(0) % tiles * CHANNELS
    pixel = tl.program_id(0) // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    image, row, column = window_corners(pixel, pixels, height, width, 1, 1, 0, 0)
    grads = grad + (image.to(tl.int64) * (out_height * out_width * outputs))[:, None]
    lane = tl.arange(0, CHANNELS * RANK)
    held = (first + lane // RANK < channels)[None, :]
    features = tl.zeros((BLOCK_M, CHANNELS * RANK), dtype=tl.float32)
    for tap in range(taps):
        out_row, in_rows = _reader(row, tap // kernel_width, STRIDE_H, pad_h, dilation_h, out_height)
        out_column, in_columns = _reader(column, tap % kernel_width, STRIDE_W, pad_w, dilation_w, out_width)
        seen = ((pixel < pixels) & in_rows & in_columns)[:, None]
        place = ((out_row * out_width + out_column) * outputs)[:, None]
        for start in range(0, outputs, BLOCK_K):
            out = start + tl.arange(0, BLOCK_K)
            real = out < outputs
            factor = tl.load(scale + out, mask=real, other=0.0)[None, :]
            pull = tl.load(grads + (place + out[None, :]), mask=seen & real[None, :], other=0.0) * factor
            source = (tap * outputs + out)[:, None] * (channels * RANK) + (first * RANK + lane)[None, :]
            weight = tl.load(weights + source, mask=real[:, None] & held, other=0.0)
            features = tl.dot(pull, weight, features, input_precision=_PRECISION)
    by_channel = tl.reshape(features, (BLOCK_M, CHANNELS, RANK))
    channel = first + tl.arange(0, CHANNELS)
    known = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    _store_gradients(by_channel, x, span, grad_x, sums, x, place, known, known, SPAN)


@jit
def blend_depthwise_gradient_kernel(
    grad, scale, w_index, v, x, span, grad_x, sums, border, border_h: int, border_w: int,
    pixels: int, height: int, width: int, out_height: int, out_width: int, channels: int, kernel_height: int,
    pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    RANK: tl.constexpr, SPAN: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The same of PIXELS × CHANNELS where each channel is a group with one output; w_index (C, taps).

    With ``border_h`` rows and ``border_w`` columns around every image, whose code is ``border`` (1,) uint8: ``pixels`` counts
    theirs, too.
    """
    tiles = tl.cdiv(channels, CHANNELS)
    channel = tl.program_id(0) % tiles * CHANNELS + tl.arange(0, CHANNELS)
    pixel = tl.program_id(0) // tiles * PIXELS + tl.arange(0, PIXELS)
    all_rows, all_columns = height + 2 * border_h, width + 2 * border_w
    image, row, column = window_corners(pixel, pixels, all_rows, all_columns, 1, 1, border_h, border_w)
    grads = grad + (image.to(tl.int64) * (out_height * out_width * channels))[:, None]
    rank, held = tl.arange(0, RANK), channel < channels
    factor = tl.load(scale + channel, mask=held, other=0.0)[None, :]
    weights = w_index + channel * (kernel_height * KERNEL_WIDTH)
    features = tl.zeros((PIXELS, CHANNELS, RANK), dtype=tl.float32)
    for row_tap in range(kernel_height):
        out_row, in_rows = _reader(row, row_tap, STRIDE_H, pad_h, dilation_h, out_height)
        for column_tap in tl.static_range(KERNEL_WIDTH):
            out_column, in_columns = _reader(column, column_tap, STRIDE_W, pad_w, dilation_w, out_width)
            seen = ((pixel < pixels) & in_rows & in_columns)[:, None] & held[None, :]
            place = ((out_row * out_width + out_column) * channels)[:, None] + channel[None, :]
            pull = tl.load(grads + place, mask=seen, other=0.0) * factor
            weight = tl.load(weights + (row_tap * KERNEL_WIDTH + column_tap), mask=held, other=0).to(tl.int32)
            features += pull[:, :, None] * tl.load(v + (weight[:, None] * RANK + rank[None, :]))[None, :, :]
    known = ((pixel < pixels) & inside(row, column, height, width))[:, None] & held[None, :]
    counts = (pixel < pixels)[:, None] & held[None, :]
    place = ((image.to(tl.int64) * height + row) * width + column)[:, None] * channels + channel[None, :]
    _store_gradients(features, x, span, grad_x, sums, border, place, known, counts, SPAN)
