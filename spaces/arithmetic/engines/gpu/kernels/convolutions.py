"""Sums of products of one multiplier, exact: looked up in its table, or by its factors in bytes."""

import triton.language as tl

from .indexing import inside, jit, outputs_of_group, window_corners


@jit
def _finished(sums, scale, out, known, AXIS: tl.constexpr, SCALED: tl.constexpr):
    """Sums as they are stored: with SCALED, times the scale of their output, which is one number along AXIS."""
    if SCALED:
        factor = tl.load(scale + out, mask=known, other=0.0)
        sums = sums.to(tl.float32) * tl.expand_dims(factor, AXIS)
    return sums


@jit
def _tile_outputs(tile, outputs, group_inputs, group_outputs, SHARED: tl.constexpr, OUTPUTS: tl.constexpr):
    """A tile of the gather kernel → its outputs, which of them there are, and the first channel that they read."""
    if SHARED:
        group, out, known = outputs_of_group(tile, group_outputs, OUTPUTS)
        first = group * group_inputs
    else:
        out = tile * OUTPUTS + tl.arange(0, OUTPUTS)
        known = out < outputs
        first = (out // group_outputs * group_inputs)[:, None]
    return out, known, first


@jit
def _output_offsets(spot, out, area, outputs, CHANNELS_LAST: tl.constexpr):
    """Outputs × spots (pixels of an image) → where they are among the ``area * outputs`` values of the image."""
    if CHANNELS_LAST:
        offsets = spot[None, :] * outputs + out[:, None]
    else:
        offsets = out[:, None] * area + spot[None, :]
    return offsets


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
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    out, known, first = _tile_outputs(tile, outputs, group_inputs, group_outputs, SHARED, OUTPUTS)
    plane = height * width
    images = x + (image.to(tl.int64) * (inputs * plane))[None, :]
    fill = tl.load(border)
    sums = tl.zeros((OUTPUTS, PIXELS), dtype=tl.int32) + correction
    for tap in range(taps):
        row = (top + tap // kernel_width * dilation_h)[None, :]
        column = (left + tap % kernel_width * dilation_w)[None, :]
        seen = inside(row, column, height, width)
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
    area = out_height * out_width
    offsets = _output_offsets(pixel - image * area, out, area, outputs, CHANNELS_LAST)
    targets = y + (image.to(tl.int64) * (outputs * out_height * out_width))[None, :] + offsets
    values = _finished(sums, scale, out, known, 1, SCALED)
    tl.store(targets, values, mask=known[:, None] & real[None, :])


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
def _word(index, words, chunk, BITS: tl.constexpr):
    """What the features of indices are taken from: their words in the chunk; with BITS the indices themselves."""
    word = index
    if not BITS:
        word = tl.load(words + chunk * 256 + index.to(tl.int32))
    return word


@jit
def _store_factored(sums, constant, scale, y, pixel, pixels, out, known, pitch, SCALED: tl.constexpr):
    """Pixels × outputs: add the constant of each output and store, ``pitch`` values from one pixel to the next."""
    real = (pixel < pixels)[:, None] & known[None, :]
    sums += tl.load(constant + out, mask=known, other=0)[None, :]
    targets = y + (pixel.to(tl.int64)[:, None] * pitch + out[None, :])
    tl.store(targets, _finished(sums, scale, out, known, 0, SCALED), mask=real)


@jit
def _tap_of(k, channels, kernel_width):
    """Inputs of a window, numbered tap by tap → channel, and row and column of the tap in the window."""
    tap = k // channels
    return k - tap * channels, tap // kernel_width, tap % kernel_width


@jit
def _next_block(start, tap_row, tap_column, channels, kernel_width, BLOCK_K: tl.constexpr):
    """First channel, and row and column of the tap, of the block that follows: in the same tap, or the next one."""
    start += BLOCK_K
    tap_column += tl.where(start < channels, 0, 1)
    start = tl.where(start < channels, start, 0)
    tap_row += tl.where(tap_column < kernel_width, 0, 1)
    tap_column = tl.where(tap_column < kernel_width, tap_column, 0)
    return start, tap_row, tap_column


@jit
def _pixels_or_border(row, column, height, width, corner, pitch, away, UNIT: tl.constexpr):
    """Where the first channel of pixels lies, multiples of UNIT behind an image's corner; of those outside: ``away``.

    Outside the image, lanes read the border instead of a masked load's default: an address is chosen once per pixel,
    a default once per byte, and the compiler then also moves the bytes to the tensor cores' registers directly.
    """
    source = tl.where(inside(row, column, height, width), corner + (row * width + column) * pitch, away)
    return tl.multiple_of(source, (1, UNIT))


@jit
def _add_products(
    sums, index, word, tile, step, WIDTH: tl.constexpr, BITS: tl.constexpr, MASKS: tl.constexpr, FLIPS: tl.constexpr
):
    """Add features × weight features → sums, and the weights of the block that follows, ``step`` apart by feature.

    With BITS, MASKS and FLIPS hold a byte for each feature: constants, since the compiler then works on four bytes at
    once (for Hopper and four features, a fifth of the logic instructions).
    """
    for r in tl.static_range(WIDTH):
        feature = _feature(index, word, (MASKS >> 8 * r) & 255, (FLIPS >> 8 * r) & 255, r, BITS)
        sums = tl.dot(feature, tl.load(tile), sums, out_dtype=tl.int32)
        tile += step
    return sums, tile


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
    (chunks, 256); y (N, H', W', O). The 32-bit sums may wrap around on the way, the result fits.
    """
    # Sizes in units (powers of two) tell the compiler by what they divide, which decides how wide it loads and stores.
    channels, outputs = channel_units * UNIT, output_units * OUT_UNIT
    columns = groups * tl.cdiv(outputs, BLOCK_N)
    column = tl.program_id(0) % columns
    group, out, known = outputs_of_group(column, outputs, BLOCK_N)
    pixel = tl.program_id(0) // columns * BLOCK_M + tl.arange(0, BLOCK_M)
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    pitch = groups * channels
    corner = (image.to(tl.int64) * (height * width * pitch) + group * channels)[:, None]
    away = border.to(tl.int64) - x.to(tl.int64)
    lane = tl.arange(0, BLOCK_K)[None, :]
    tile = weights + (column * BLOCK_N + tl.arange(0, BLOCK_N))[None, :] * BLOCK_K + tl.arange(0, BLOCK_K)[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for chunk in range(CHUNKS):
        tap_row, tap_column, start = 0, 0, 0
        for block in range(blocks):
            if FLAT:  # few channels: a block of K holds several taps, else most of it would be padding
                channel, down, along = _tap_of(block * BLOCK_K + lane, channels, kernel_width)
            else:  # channels of one tap, so that a row of the tile is one stretch of memory
                channel, down, along = start + lane, tap_row, tap_column
            row = top[:, None] + down * dilation_h
            place = left[:, None] + along * dilation_w
            if not FLAT:
                start, tap_row, tap_column = _next_block(start, tap_row, tap_column, channels, kernel_width, BLOCK_K)
            source = _pixels_or_border(row, place, height, width, corner, pitch, away, UNIT)
            # beyond the last channel the weights are zero, whatever is loaded
            index = tl.load(x + (source + channel), mask=channel < channels, other=0)
            word = _word(index, words, chunk, BITS)
            sums, tile = _add_products(sums, index, word, tile, columns * BLOCK_N * BLOCK_K, WIDTH, BITS, MASKS, FLIPS)
        sums = sums << tl.load(shifts + chunk)
    _store_factored(sums, constant, scale, y, pixel, pixels, out, known, groups * outputs, SCALED)


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
    image, top, left = window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w)
    images = x + (image.to(tl.int64) * (height * width * pitch))[:, None]
    first = (out // GROUP_OUTPUTS * GROUP_INPUTS)[None, :]
    fill = tl.load(border)
    sums = tl.zeros((PIXELS, OUTPUTS), dtype=tl.int32)
    tile = weights + out
    for chunk in range(CHUNKS):
        for tap in range(taps):
            row = top[:, None] + tap // kernel_width * dilation_h
            place = left[:, None] + tap % kernel_width * dilation_w
            seen = inside(row, place, height, width)
            for channel in tl.static_range(GROUP_INPUTS):
                source = (row * width + place) * pitch + (first + channel)
                index = tl.load(images + source, mask=seen & known[None, :], other=fill)
                word = _word(index, words, chunk, BITS)
                for r in tl.static_range(WIDTH):
                    mask, flip = _byte(masks_low, masks_high, r), _byte(flips_low, flips_high, r)
                    feature = _feature(index, word, mask, flip, r, BITS)
                    weight = tl.load(tile, mask=known, other=0)
                    sums += feature.to(tl.int32) * weight.to(tl.int32)[None, :]
                    tile += outputs
        sums = sums << tl.load(shifts + chunk)
    _store_factored(sums, constant, scale, y, pixel, pixels, out, known, outputs, SCALED)
