"""The loop over small dense convolutions of byte factors, on the CPU's dot-product instructions (VNNI).

Codes of an image are laid out beside their padding, looked up 64 at a time, and meet the weights while all of it is in the
nearest cache: eight pixels side by side, sixteen outputs to a vector, four products to a word. Maps are (N, H, W, C), the
memory of channels-last tensors; all memory is told by its address.
"""

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.cpu.depthwise_simd import lay_out_bytes, lay_out_floats, set_bytes
from spaces.arithmetic.engines.memory import (
    BYTE,
    BYTES,
    CODES,
    FLOATS,
    INTEGER,
    INTEGERS,
    LANES,
    WHOLE,
    Memory,
    has_dot_products,
    has_permutes,
    number_at,
    permuted,
    splat,
    written,
)

PIXELS = 8  # that are added up side by side
WORD = 4  # bytes whose products are added up by one instruction
LINE = 64  # bytes of a line of the cache

# The numbers of a layer, in the order in which ``convolve`` is told them: of the input the rows, pixels of a row and
# channels; its channels in whole words; pixels of a laid-out row, and bytes of a laid-out image, in whole look-ups; where
# the first one lies; rows, pixels of a row and channels of the output; strides; features; words of a window; and the
# code of padded positions.
(
    HEIGHT, WIDTH, CHANNELS, HELD, WIDE, SIZE, FIRST, ROWS, COLUMNS, OUTPUTS, DOWN, ALONG, FEATURES, WORDS, FILL,
) = range(15)  # fmt: skip


@intrinsic
def copy_bytes(typing, source, target, count):  # noqa: ARG001
    """target[:count] = source[:count], bytes."""

    def write(memory: Memory, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
        begin, end = (memory.place(address, memory.number(0), BYTE) for address in (target, source))
        cgutils.raw_memcpy(memory.builder, begin, end, count, memory.number(1))

    return written(3, write)


@intrinsic
def look_up_features(typing, codes, table, features, blocks):  # noqa: ARG001
    """features[i] = table[codes[i]] for i < 64·``blocks``, all bytes. Does nothing without permutes of bytes."""

    def write(memory: Memory, codes: ir.Value, table: ir.Value, features: ir.Value, blocks: ir.Value) -> None:
        if not has_permutes():
            return
        quarters = [memory.load(table, memory.number(quarter * CODES), BYTES) for quarter in range(4)]
        with cgutils.for_range(memory.builder, blocks) as block:
            at = memory.product(block.index, CODES)
            index = memory.load(codes, at, BYTES)
            memory.store(permuted(memory.builder, quarters, index), features, at)

    return written(4, write)


@intrinsic
def add_up_tile(typing, features, step, offsets, words, weights, scale, constant, y, between, pixels, lanes, scaled):  # noqa: ARG001
    """y[p·between + l] = scale[l]·float32(constant[l] + Σ_t features[offsets[t] + p·step]·weights[t, l]) for ``pixels`` p.

    At most eight pixels, and ``lanes`` outputs of sixteen; a product is that of four bytes, unsigned and signed ones, and
    ``step`` and ``offsets`` count bytes. Without ``scaled``, y gets the 32-bit sums.
    """
    return written(12, _add_up_tile)


def _add_up_tile(memory, features, step, offsets, words, weights, scale, constant, y, between, pixels, lanes, scaled):
    if not has_dot_products():
        return
    builder, nought = memory.builder, memory.number(0)
    totals = [cgutils.alloca_once(builder, INTEGERS) for _ in range(PIXELS)]
    starts = [memory.sum(features, memory.product(step, pixel)) for pixel in range(PIXELS)]
    first = memory.load(constant, nought, INTEGERS)
    for total in totals:
        builder.store(first, total)
    with cgutils.for_range(builder, words) as word:
        offset = memory.load(offsets, word.index, WHOLE)
        weight = memory.load(weights, memory.product(word.index, LANES), INTEGERS)
        for start, total in zip(starts, totals):
            four = memory.load(memory.sum(start, offset), nought, INTEGER)
            builder.store(memory.dot_products(splat(builder, four, LANES), weight, builder.load(total)), total)
    factors, wanted = memory.load(scale, nought, FLOATS), memory.first_lanes(lanes)
    for pixel, total in enumerate(totals):
        with builder.if_then(builder.icmp_signed("<", memory.number(pixel), pixels)):
            sums = builder.load(total)
            product = builder.fmul(builder.sitofp(sums, FLOATS), factors)
            chosen = builder.select(builder.trunc(scaled, ir.IntType(1)), product, builder.bitcast(sums, FLOATS))
            memory.store_some(chosen, y, memory.product(between, pixel), wanted)


@njit(inline="always")
def _lay_out_image(image, codes, layer):
    """Where the padding is not."""
    height, width, channels = number_at(layer, HEIGHT), number_at(layer, WIDTH), number_at(layer, CHANNELS)
    held, wide = number_at(layer, HELD), number_at(layer, WIDE)
    if channels == held and width == wide:
        copy_bytes(image, codes + number_at(layer, FIRST), height * width * channels)
        return
    for row in range(height):
        begin = number_at(layer, FIRST) + row * wide * held
        if channels == held:
            copy_bytes(image + row * width * channels, codes + begin, width * channels)
        else:
            for channel in range(0, channels, LANES):
                lanes = min(LANES, channels - channel)
                start = row * width * channels + channel
                lay_out_bytes(image, start, channels, width, lanes, codes, begin + channel, held)


@njit(cache=True, nogil=True, error_model="numpy")
def convolve(x, tables, layer, offsets, weights, scale, constant, y, scaled, begin, end):
    """y = scale·float32(Σ_r u_r(x̂)·v_r(ŵ) + constant) (N, H', W', O) for images from ``begin`` to ``end``.

    x (N, H, W, C) codes; ``tables`` (R, 256) bytes by code; ``layer`` its numbers; ``offsets`` (T,) of the words of a
    window in a laid-out image's features; ``weights`` (blocks, T, 16, 4) signed bytes; ``scale`` (O,), ``constant``
    (blocks, 16) int32. Without ``scaled`` y are the sums, in 32 bits.
    """
    size, features, words = number_at(layer, SIZE), number_at(layer, FEATURES), number_at(layer, WORDS)
    rows, columns, outputs = number_at(layer, ROWS), number_at(layer, COLUMNS), number_at(layer, OUTPUTS)
    held, along = number_at(layer, HELD), number_at(layer, ALONG)
    down = number_at(layer, DOWN) * number_at(layer, WIDE) * held
    image = number_at(layer, HEIGHT) * number_at(layer, WIDTH) * number_at(layer, CHANNELS)
    blocks = (outputs + LANES - 1) // LANES
    # The last tile may look beyond the last row, by less than its own width.
    memory = np.empty((features + 1) * size + PIXELS * along * held + 4 * LANES * blocks + 2 * LINE, dtype=np.uint8)
    codes = (memory.ctypes.data + LINE - 1) // LINE * LINE
    looked_up = codes + size
    scales = looked_up + (features * size + PIXELS * along * held + LINE - 1) // LINE * LINE
    for block in range(blocks if scaled else 0):
        lay_out_floats(scale, LANES * block, 0, 1, min(LANES, outputs - LANES * block), scales, LANES * block, 0)
    set_bytes(codes, number_at(layer, FILL), size)
    for n in range(begin, end):
        _lay_out_image(x + n * image, codes, layer)
        for r in range(features):
            look_up_features(codes, tables + 256 * r, looked_up + size * r, size // CODES)
        for row in range(rows):
            for block in range(blocks):
                lanes = min(LANES, outputs - LANES * block)
                for pixel in range(0, columns, PIXELS):
                    seen = looked_up + row * down + pixel * along * held
                    out = y + 4 * (((n * rows + row) * columns + pixel) * outputs + LANES * block)
                    add_up_tile(
                        seen, along * held, offsets, words, weights + 4 * LANES * words * block,
                        scales + 4 * LANES * block, constant + 4 * LANES * block, out, outputs,
                        min(PIXELS, columns - pixel), lanes, scaled,
                    )  # fmt: skip
    memory[0] = 0  # to here it must be kept


@njit(cache=True, nogil=True)
def pack(index, v, constant, weights, constants):
    """Weights (O, C, kH, kW) by index as ``convolve`` wants them, and the constant of every output.

    ``v`` (256, R) int8 and ``constant`` (256,) int64 by index; ``weights`` (blocks, R, kH, kW, words, 16, 4) int8 and
    ``constants`` (blocks, 16) int32, both full of zeros.
    """
    outputs, inputs, height, width = index.shape
    for o in range(outputs):
        block, lane, total = o // LANES, o % LANES, 0
        for c in range(inputs):
            for ky in range(height):
                for kx in range(width):
                    code = index[o, c, ky, kx]
                    total += constant[code]
                    for r in range(v.shape[1]):
                        weights[block, r, ky, kx, c // WORD, lane, c % WORD] = v[code, r]
        constants[block, lane] = total
