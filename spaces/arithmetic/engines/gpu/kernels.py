"""The loops of the Triton engines. Triton must be installed to import this module."""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def jit(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``triton.jit``, but without recompiling where an ``int`` argument happens to be 1 or a multiple of 16."""
    numbers = [name for name, kind in kernel.__annotations__.items() if kind is int]
    return triton.jit(kernel, do_not_specialize=numbers)


@jit
def window_corners(pixel, out_height, out_width, stride_h, stride_w, pad_h, pad_w):
    """Output pixels, numbered over the batch → image, and row and column of the window's first tap in the input."""
    row = pixel // out_width
    top = row % out_height * stride_h - pad_h
    left = pixel % out_width * stride_w - pad_w
    return row // out_height, top, left


@jit
def gather_kernel(
    x, border, weights, table, scale, y,
    correction: int, pixels: int, height: int, width: int, out_height: int, out_width: int,
    inputs: int, outputs: int, group_inputs: int, group_outputs: int, taps: int, kernel_width: int, tiles: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    SHARED: tl.constexpr, SCALED: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    OUTPUTS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A tile of outputs × pixels: lanes run over pixels, so that a warp reads one row of the table (its weight's).

    x (N, C, H, W), border (one code) and weights (taps, C/g, O), all uint8; table (256, 256) by weight, then activation;
    y (N, O, H', W') in either memory format. With SHARED, a tile lies within one group and its outputs share the codes
    they read.
    """
    tile = tl.program_id(0) % tiles
    pixel = tl.program_id(0) // tiles * PIXELS + tl.arange(0, PIXELS)
    real = pixel < pixels
    image, top, left = window_corners(
        tl.minimum(pixel, pixels - 1), out_height, out_width, stride_h, stride_w, pad_h, pad_w
    )
    if SHARED:
        group_tiles = tl.cdiv(group_outputs, OUTPUTS)
        inner = tile % group_tiles * OUTPUTS + tl.arange(0, OUTPUTS)
        out = tile // group_tiles * group_outputs + inner
        known = inner < group_outputs
        first = tile // group_tiles * group_inputs
    else:
        out = tile * OUTPUTS + tl.arange(0, OUTPUTS)
        known = out < outputs
        first = (out // group_outputs * group_inputs)[:, None]
    plane = height * width
    images = x + (image.to(tl.int64) * (inputs * plane))[None, :]
    fill = tl.load(border)
    sums = tl.zeros((OUTPUTS, PIXELS), dtype=tl.int32) + correction
    for tap in range(taps):
        row = (top + tap // kernel_width * dilation_h)[None, :]
        column = (left + tap % kernel_width * dilation_w)[None, :]
        seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        if not SHARED:
            seen = seen & known[:, None]
        place = row * width + column
        for channel in range(group_inputs):
            codes = tl.load(images + ((first + channel) * plane + place), mask=seen, other=fill)
            weight = tl.load(weights + (tap * group_inputs + channel) * outputs + out, mask=known, other=0)
            # the table is what should stay in the first-level cache
            product = tl.load(
                table + (weight.to(tl.int32)[:, None] * 256 + codes.to(tl.int32)), eviction_policy="evict_last"
            )
            sums += product.to(tl.int32)
    spot = (pixel - image * (out_height * out_width))[None, :]
    if CHANNELS_LAST:
        spot = spot * outputs + out[:, None]
    else:
        spot = out[:, None] * (out_height * out_width) + spot
    targets = y + (image.to(tl.int64) * (outputs * out_height * out_width))[None, :] + spot
    if SCALED:
        factor = tl.load(scale + out, mask=known, other=0.0)
        tl.store(targets, sums.to(tl.float32) * factor[:, None], mask=known[:, None] & real[None, :])
    else:
        tl.store(targets, sums, mask=known[:, None] & real[None, :])


@jit
def _byte(low, high, r: tl.constexpr):
    """Byte r of eight, of which ``low`` holds the first four."""
    if r < 4:
        byte = low >> 8 * r
    else:
        byte = high >> 8 * (r - 4)
    return byte.to(tl.uint8)


@jit
def _feature(index, word, mask, flip, r: tl.constexpr, BITS: tl.constexpr):
    """Feature r (int8) of indices: bits of the index, some of them flipped, or a byte of a word."""
    if BITS:
        feature = ((index & mask) ^ flip).to(tl.int8, bitcast=True)
    else:
        feature = (word >> 8 * r).to(tl.int8)
    return feature


@jit
def matrix_kernel(
    x, border, weights, words, shifts, constant, scale, y,
    pixels: int, height: int, width: int, out_height: int, out_width: int, groups: int, channel_units: int,
    output_units: int, blocks: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    UNIT: tl.constexpr, OUT_UNIT: tl.constexpr, CHUNKS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr,
    MASKS: tl.constexpr, FLIPS: tl.constexpr, FLAT: tl.constexpr, SCALED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of pixels × outputs of one group, as products of features × weight features, BLOCK_K inputs at a time.

    x (N, H, W, C) uint8; weights (chunks, blocks, features of a chunk, groups, padded outputs, BLOCK_K) int8; words
    (chunks, 256); y (N, H', W', O). With BITS, MASKS and FLIPS hold a byte for each feature: constants,
    since the compiler then works on four bytes at once (for Hopper and four features, a fifth of the logic instructions).
    The 32-bit sums may wrap around on the way, the result fits.
    """
    # Sizes in units (powers of two) tell the compiler by what they divide, which decides how wide it loads and stores.
    channels = channel_units * UNIT
    outputs = output_units * OUT_UNIT
    tiles = tl.cdiv(outputs, BLOCK_N)
    column = tl.program_id(0) % (groups * tiles)
    group = column // tiles
    inner = column % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    out = group * outputs + inner
    pixel = tl.program_id(0) // (groups * tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    image, top, left = window_corners(
        tl.minimum(pixel, pixels - 1), out_height, out_width, stride_h, stride_w, pad_h, pad_w
    )
    pitch = groups * channels
    corner = (image.to(tl.int64) * (height * width * pitch) + group * channels)[:, None]
    # Outside the image, lanes read the border instead of a masked load's default: an address is chosen once per pixel,
    # a default once per byte, and the compiler then also moves the bytes to the tensor cores' registers directly.
    away = border.to(tl.int64) - x.to(tl.int64)
    lane = tl.arange(0, BLOCK_K)[None, :]
    tile = weights + (column * BLOCK_N + tl.arange(0, BLOCK_N))[None, :] * BLOCK_K + tl.arange(0, BLOCK_K)[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for chunk in range(CHUNKS):
        tap_row, tap_column, start = 0, 0, 0
        for block in range(blocks):
            if FLAT:  # few channels: a block of K holds several taps, else most of it would be padding
                k = block * BLOCK_K + lane
                tap = k // channels
                channel = k - tap * channels
                row = top[:, None] + tap // kernel_width * dilation_h
                place = left[:, None] + tap % kernel_width * dilation_w
            else:  # channels of one tap, so that a row of the tile is one stretch of memory
                channel = start + lane
                row = top[:, None] + tap_row * dilation_h
                place = left[:, None] + tap_column * dilation_w
                start += BLOCK_K
                tap_column += tl.where(start < channels, 0, 1)
                start = tl.where(start < channels, start, 0)
                tap_row += tl.where(tap_column < kernel_width, 0, 1)
                tap_column = tl.where(tap_column < kernel_width, tap_column, 0)
            seen = (row >= 0) & (row < height) & (place >= 0) & (place < width)
            source = tl.where(seen, corner + (row * width + place) * pitch, away)
            source = tl.multiple_of(source, (1, UNIT))
            # beyond the last channel the weights are zero, whatever is loaded
            index = tl.load(x + (source + channel), mask=channel < channels, other=0)
            word = index
            if not BITS:
                word = tl.load(words + chunk * 256 + index.to(tl.int32))
            for r in tl.static_range(WIDTH):
                feature = _feature(index, word, (MASKS >> 8 * r) & 255, (FLIPS >> 8 * r) & 255, r, BITS)
                sums = tl.dot(feature, tl.load(tile), sums, out_dtype=tl.int32)
                tile += groups * tiles * BLOCK_N * BLOCK_K
        sums = sums << tl.load(shifts + chunk)
    real = (pixel < pixels)[:, None] & (inner < outputs)[None, :]
    sums += tl.load(constant + out, mask=inner < outputs, other=0)[None, :]
    targets = y + (pixel.to(tl.int64)[:, None] * (groups * outputs) + out[None, :])
    if SCALED:
        factor = tl.load(scale + out, mask=inner < outputs, other=0.0)
        tl.store(targets, sums.to(tl.float32) * factor[None, :], mask=real)
    else:
        tl.store(targets, sums, mask=real)


@jit
def direct_kernel(
    x, border, weights, words, shifts, constant, scale, y,
    masks_low: int, masks_high: int, flips_low: int, flips_high: int,
    pixels: int, height: int, width: int, out_height: int, out_width: int, groups: int,
    taps: int, kernel_width: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    UNIT: tl.constexpr, CHUNKS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, SCALED: tl.constexpr,
    GROUP_INPUTS: tl.constexpr, GROUP_OUTPUTS: tl.constexpr, PIXELS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """The same for groups of very few channels, of which a tensor core's tile would be mostly padding.

    weights (chunks, taps, C/g, features of a chunk, O) int8; ``groups`` counts in units. Masks and flips are arguments, so
    that one compilation serves every circuit: here each byte is worked on alone, and it costs nothing.
    """
    outputs = groups * UNIT * GROUP_OUTPUTS
    pitch = groups * UNIT * GROUP_INPUTS
    tiles = tl.cdiv(outputs, OUTPUTS)
    out = tl.program_id(0) % tiles * OUTPUTS + tl.arange(0, OUTPUTS)
    known = out < outputs
    pixel = tl.program_id(0) // tiles * PIXELS + tl.arange(0, PIXELS)
    image, top, left = window_corners(
        tl.minimum(pixel, pixels - 1), out_height, out_width, stride_h, stride_w, pad_h, pad_w
    )
    images = x + (image.to(tl.int64) * (height * width * pitch))[:, None]
    first = (out // GROUP_OUTPUTS * GROUP_INPUTS)[None, :]
    fill = tl.load(border)
    sums = tl.zeros((PIXELS, OUTPUTS), dtype=tl.int32)
    tile = weights + out
    for chunk in range(CHUNKS):
        for tap in range(taps):
            row = top[:, None] + tap // kernel_width * dilation_h
            place = left[:, None] + tap % kernel_width * dilation_w
            seen = (row >= 0) & (row < height) & (place >= 0) & (place < width)
            for channel in tl.static_range(GROUP_INPUTS):
                source = (row * width + place) * pitch + (first + channel)
                index = tl.load(images + source, mask=seen & known[None, :], other=fill)
                word = index
                if not BITS:
                    word = tl.load(words + chunk * 256 + index.to(tl.int32))
                for r in tl.static_range(WIDTH):
                    mask, flip = _byte(masks_low, masks_high, r), _byte(flips_low, flips_high, r)
                    feature = _feature(index, word, mask, flip, r, BITS)
                    weight = tl.load(tile, mask=known, other=0)
                    sums += feature.to(tl.int32) * weight.to(tl.int32)[None, :]
                    tile += outputs
        sums = sums << tl.load(shifts + chunk)
    real = (pixel < pixels)[:, None] & known[None, :]
    sums += tl.load(constant + out, mask=known, other=0)[None, :]
    targets = y + (pixel.to(tl.int64)[:, None] * outputs + out[None, :])
    if SCALED:
        factor = tl.load(scale + out, mask=known, other=0.0)
        tl.store(targets, sums.to(tl.float32) * factor[None, :], mask=real)
    else:
        tl.store(targets, sums, mask=real)


INTERPRETED = not isinstance(gather_kernel, triton.JITFunction)  # by Triton's interpreter, on the CPU: for tests
