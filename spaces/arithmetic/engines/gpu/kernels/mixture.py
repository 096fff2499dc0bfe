"""Sums through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients, without a map of features.

Codes are expanded into their features u_r in registers: forwards as they are loaded; backwards the features' gradients are
reduced to the table's where they arise. Everywhere x is (N, H, W, C) uint8, u (256, RANK) float32, RANK a power of two, and
``weights`` (taps, O, C/groups, RANK) holds v_r(ŵ). Sums of a program come in a fixed order, and each has a place of its own.
"""

import triton.language as tl

from .indexing import inside, jit, window_corners

# Factors as sums of two in TF32: nearly the precision of fp32, and exact for the integers of a single multiplier.
_PRECISION = tl.constexpr("tf32x3")


@jit
def blend_matrix_kernel(
    x, u, weights, scale, y,
    pixels: int, height: int, width: int, out_height: int, out_width: int,
    channels: int, outputs: int, taps: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    RANK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of pixels × outputs of y (N, H', W', O), BLOCK_K features at a time; padded positions add nothing."""
    columns = tl.cdiv(outputs, BLOCK_N)
    out = tl.program_id(0) % columns * BLOCK_N + tl.arange(0, BLOCK_N)
    pixel = tl.program_id(0) // columns * BLOCK_M + tl.arange(0, BLOCK_M)
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    images = x + (image.to(tl.int64) * (height * width * channels))[:, None]
    lane = tl.arange(0, BLOCK_K)
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for tap in range(taps):
        row = top + tap // kernel_width * dilation_h
        column = left + tap % kernel_width * dilation_w
        seen = inside(row, column, height, width)[:, None]
        place = ((row * width + column) * channels)[:, None]
        for start in range(0, channels, BLOCK_K // RANK):
            channel = start + lane // RANK
            known = seen & (channel < channels)[None, :]
            code = tl.load(images + (place + channel[None, :]), mask=known, other=0).to(tl.int32)
            feature = tl.load(u + (code * RANK + (lane % RANK)[None, :]), mask=known, other=0.0)
            source = (tap * outputs + out)[None, :] * (channels * RANK) + (start * RANK + lane)[:, None]
            held = (channel < channels)[:, None] & (out < outputs)[None, :]
            sums = tl.dot(feature, tl.load(weights + source, mask=held, other=0.0), sums, input_precision=_PRECISION)
    factor = tl.load(scale + out, mask=out < outputs, other=0.0)[None, :]
    real = (pixel < pixels)[:, None] & (out < outputs)[None, :]
    tl.store(y + (pixel.to(tl.int64)[:, None] * outputs + out[None, :]), sums * factor, mask=real)


@jit
def blend_depthwise_kernel(
    x, u, weights, scale, y,
    pixels: int, height: int, width: int, out_height: int, out_width: int, channels: int, taps: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    RANK: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The same where each channel is a group with one output."""
    tiles = tl.cdiv(channels, CHANNELS)
    channel = tl.program_id(0) % tiles * CHANNELS + tl.arange(0, CHANNELS)
    pixel = tl.program_id(0) // tiles * PIXELS + tl.arange(0, PIXELS)
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    images = x + (image.to(tl.int64) * (height * width * channels))[:, None]
    rank, held = tl.arange(0, RANK), channel < channels
    sums = tl.zeros((PIXELS, CHANNELS, RANK), dtype=tl.float32)
    for tap in range(taps):
        row = top + tap // kernel_width * dilation_h
        column = left + tap % kernel_width * dilation_w
        known = inside(row, column, height, width)[:, None] & held[None, :]
        place = ((row * width + column) * channels)[:, None] + channel[None, :]
        code = tl.load(images + place, mask=known, other=0).to(tl.int32)
        feature = tl.load(u + (code[:, :, None] * RANK + rank[None, None, :]), mask=known[:, :, None], other=0.0)
        source = (tap * channels + channel)[:, None] * RANK + rank[None, :]
        sums += feature * tl.load(weights + source, mask=held[:, None], other=0.0)[None, :, :]
    factor = tl.load(scale + channel, mask=held, other=0.0)[None, :]
    targets = y + (pixel.to(tl.int64)[:, None] * channels + channel[None, :])
    tl.store(targets, tl.sum(sums, axis=2) * factor, mask=(pixel < pixels)[:, None] & held[None, :])


# -- gradients ---------------------------------------------------------------------------------------------------------


@jit
def _reader(place, tap, stride, padding, dilation, size):
    """The row (or column) of the output that reads a row of the input by this tap of its window, and whether there is one."""
    corner = place + padding - tap * dilation
    return corner // stride, (corner >= 0) & (corner % stride == 0) & (corner < size * stride)


@jit
def _store_gradients(
    features, x, span, grad_x, sums, pixel, pixels, channel, channels, RANK: tl.constexpr, SPAN: tl.constexpr
):
    """Gradients for the features of pixels × channels (×RANK) → that of feature 0, and all of them projected.

    sums (programs, SPAN, RANK): their sums over the pixels and channels of this program, times each column of ``span``
    (256, SPAN) at their codes.
    """
    known = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    rank = tl.arange(0, RANK)
    first = tl.sum(tl.where((rank == 0)[None, None, :], features, 0.0), axis=2)
    tl.store(grad_x + place, first, mask=known)
    code = tl.load(x + place, mask=known, other=0).to(tl.int32)
    target = sums + tl.program_id(0) * (SPAN * RANK) + rank
    for column in range(SPAN):
        share = tl.load(span + (code * SPAN + column))
        tl.store(target + column * RANK, tl.sum(tl.sum(features * share[:, :, None], axis=0), axis=0))


@jit
def blend_matrix_gradient_kernel(
    grad, scale, weights, x, span, grad_x, sums,
    pixels: int, height: int, width: int, out_height: int, out_width: int,
    channels: int, outputs: int, taps: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    RANK: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of pixels × channels of the input, of which every feature's gradient is a transposed convolution.

    grad (N, H', W', O), scale (O,): what the outputs were multiplied by. grad_x (N, H, W, C).
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
        out_row, in_rows = _reader(row, tap // kernel_width, stride_h, pad_h, dilation_h, out_height)
        out_column, in_columns = _reader(column, tap % kernel_width, stride_w, pad_w, dilation_w, out_width)
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
    _store_gradients(by_channel, x, span, grad_x, sums, pixel, pixels, channel, channels, RANK, SPAN)


@jit
def blend_depthwise_gradient_kernel(
    grad, scale, weights, x, span, grad_x, sums,
    pixels: int, height: int, width: int, out_height: int, out_width: int, channels: int, taps: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    RANK: tl.constexpr, SPAN: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The same where each channel is a group with one output."""
    tiles = tl.cdiv(channels, CHANNELS)
    channel = tl.program_id(0) % tiles * CHANNELS + tl.arange(0, CHANNELS)
    pixel = tl.program_id(0) // tiles * PIXELS + tl.arange(0, PIXELS)
    image, row, column = window_corners(pixel, pixels, height, width, 1, 1, 0, 0)
    grads = grad + (image.to(tl.int64) * (out_height * out_width * channels))[:, None]
    rank, held = tl.arange(0, RANK), channel < channels
    factor = tl.load(scale + channel, mask=held, other=0.0)[None, :]
    features = tl.zeros((PIXELS, CHANNELS, RANK), dtype=tl.float32)
    for tap in range(taps):
        out_row, in_rows = _reader(row, tap // kernel_width, stride_h, pad_h, dilation_h, out_height)
        out_column, in_columns = _reader(column, tap % kernel_width, stride_w, pad_w, dilation_w, out_width)
        seen = ((pixel < pixels) & in_rows & in_columns)[:, None] & held[None, :]
        place = ((out_row * out_width + out_column) * channels)[:, None] + channel[None, :]
        pull = tl.load(grads + place, mask=seen, other=0.0) * factor
        source = (tap * channels + channel)[:, None] * RANK + rank[None, :]
        features += pull[:, :, None] * tl.load(weights + source, mask=held[:, None], other=0.0)[None, :, :]
    _store_gradients(features, x, span, grad_x, sums, pixel, pixels, channel, channels, RANK, SPAN)
