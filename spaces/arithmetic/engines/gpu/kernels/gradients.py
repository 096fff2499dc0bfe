"""Gradients of mixtures and of depthwise layers, straight from the codes x (N, H, W, C) uint8.

What a mixture's features u_r pull at lies in a span of few columns, and is found along these: span (257, SPAN) float32, zero in
row 256. Sums of a program have a place of their own and are added up in a fixed order.
"""

import triton.language as tl

from .indexing import inside, jit, window_corners
from .mixture import PRECISION, lines


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
        activation = tl.load(span + lines(tl.where(known, code, 256), SPAN))
        real = (pixel < pixels)[:, None] & (out < outputs)[None, :]
        pull = tl.load(grad + (pixel.to(tl.int64)[:, None] * outputs + out[None, :]), mask=real, other=0.0)
        met = tl.dot(tl.trans(activation), pull, met, input_precision=PRECISION)
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

    With LINE, each value is larger by 1 than the one before, 0 among them, and need not be looked up. A program takes PIXELS
    outputs of CHANNELS; padded positions add nothing.
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
def add_up_kernel(sums, step, total, programs: int, BLOCK: tl.constexpr):
    """total (n,) = the sums (n, programs) over all programs, times ``step`` (0-dimensional)."""
    lane = tl.arange(0, BLOCK)
    own = sums + tl.program_id(0).to(tl.int64) * programs
    found = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, programs, BLOCK):
        found += tl.load(own + (first + lane), mask=first + lane < programs, other=0.0)
    tl.store(total + tl.program_id(0), tl.sum(found) * tl.load(step))
