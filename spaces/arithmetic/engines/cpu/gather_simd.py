"""What the look-ups of depthwise layers do with 16 channels or 64 pixels at a time, for numba.

Memory is told by its address, as ``memory`` says.
"""

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import (
    BYTE,
    BYTES,
    CODES,
    FLOATS,
    INTEGER,
    INTEGERS,
    LANES,
    WHOLE,
    has_permutes,
    permuted,
    shuffled,
    splat,
    transposed,
    written,
)
from spaces.multipliers.multiplier import SIZE

COLUMN = 512  # bytes of a weight's column of products: the low ones of all 256, then the high ones
MOST_TAPS = 257  # of which the bytes' sums fit into 16 bits
_WORDS = ir.VectorType(ir.IntType(16), CODES // 2)
_CODES = ir.VectorType(BYTE, LANES)
_SUMS = ir.VectorType(INTEGER, CODES)


@intrinsic
def sum_products(typing, codes, offsets, columns, weights, taps, constant, sums, blocks):  # noqa: ARG001
    """sums[i] = constant + Σ_t column_t[codes[offsets[t] + i]] for i < 64·``blocks``.

    column_t begins at columns[512·weights[t]]; ``taps`` t. Does nothing where the processor has no permutes of bytes.
    """
    return written(8, _sum_products)


def _sum_products(memory, codes, offsets, columns, weights, taps, constant, sums, blocks):
    if not has_permutes():
        return
    builder = memory.builder
    zeros, eight = ir.Constant(_WORDS, [0] * (CODES // 2)), ir.Constant(_WORDS, [8] * (CODES // 2))
    totals = [
        cgutils.alloca_once(builder, _WORDS) for _ in range(4)
    ]  # of low and of high bytes: whole words, odd bytes
    constants = splat(builder, builder.trunc(constant, INTEGER), CODES)
    with cgutils.for_range(builder, blocks) as block:
        place = memory.product(block.index, CODES)
        for total in totals:
            builder.store(zeros, total)
        with cgutils.for_range(builder, taps) as tap:
            index = memory.load(codes, memory.sum(place, memory.load(offsets, tap.index, WHOLE)), BYTES)
            weight = builder.zext(memory.load(weights, tap.index, BYTE), WHOLE)
            for plane in range(2):
                first = memory.sum(memory.product(weight, COLUMN), plane * SIZE)
                quarters = [memory.load(columns, memory.sum(first, part * CODES), BYTES) for part in range(4)]
                words = builder.bitcast(permuted(builder, quarters, index), _WORDS)
                for total, part in zip(totals[2 * plane :], (words, builder.lshr(words, eight))):
                    builder.store(builder.add(builder.load(total), part), total)
        low, high = (_joined(builder, *(builder.load(total) for total in pair)) for pair in (totals[:2], totals[2:]))
        whole = builder.add(low, builder.shl(high, ir.Constant(_SUMS, [8] * CODES)))
        memory.store(builder.add(whole, constants), sums, place)


def _joined(builder: ir.IRBuilder, words: ir.Value, odd: ir.Value) -> ir.Value:
    """The sums of 64 bytes as 32-bit numbers, from those of words (modulo 2^16) and of the words' upper bytes."""
    even = builder.sub(words, builder.shl(odd, ir.Constant(_WORDS, [8] * (CODES // 2))))
    order = [side + i for i in range(CODES // 2) for side in (0, CODES // 2)]
    return builder.zext(shuffled(builder, even, odd, order), _SUMS)


@intrinsic
def sum_each(typing, codes, offsets, columns, weights, taps, sums, count):  # noqa: ARG001
    """sums[i] = Σ_t column_t[codes[offsets[t] + i]] for i < ``count``; column_t at columns[256·weights[t]], 32-bit numbers."""

    def write(memory, codes, offsets, columns, weights, taps, sums, count):
        builder = memory.builder
        with cgutils.for_range(builder, count) as position:
            memory.store(ir.Constant(INTEGER, 0), sums, position.index)
        with cgutils.for_range(builder, taps) as tap:
            offset = memory.load(offsets, tap.index, WHOLE)
            column = memory.product(builder.zext(memory.load(weights, tap.index, BYTE), WHOLE), SIZE)
            with cgutils.for_range(builder, count) as position:
                code = builder.zext(memory.load(codes, memory.sum(position.index, offset), BYTE), WHOLE)
                product = memory.load(columns, memory.sum(column, code), INTEGER)
                total = builder.add(memory.load(sums, position.index, INTEGER), product)
                memory.store(total, sums, position.index)

    return written(7, write)


@intrinsic
def transpose_codes(typing, target, pitch, source):  # noqa: ARG001
    """target[pitch·c + i] = source[16i + c], for 16 channels c and 16 pixels i; bytes."""

    def write(memory, target, pitch, source):
        rows = [memory.load(source, memory.number(i * LANES), _CODES) for i in range(LANES)]
        for c, value in enumerate(transposed(memory.builder, rows)):
            memory.store(value, target, memory.product(pitch, c))

    return written(3, write)


@intrinsic
def transpose_sums(typing, target, source, pitch, scale, scaled):  # noqa: ARG001
    """target[16i + c] = source[pitch·c + i], for 16 channels c and 16 pixels i.

    If ``scaled``, the 32-bit integers are rounded to float32 and multiplied by scale[c]; else they stay what they are in the
    memory of float32 numbers.
    """

    def write(memory, target, source, pitch, scale, scaled):
        builder = memory.builder
        rows = [memory.load(source, memory.product(pitch, c), INTEGERS) for c in range(LANES)]
        factors, chosen = memory.load(scale, memory.number(0), FLOATS), builder.trunc(scaled, ir.IntType(1))
        for i, value in enumerate(transposed(builder, rows)):
            product = builder.fmul(builder.sitofp(value, FLOATS), factors)
            result = builder.select(chosen, product, builder.bitcast(value, FLOATS))
            memory.store(result, target, memory.number(i * LANES))

    return written(5, write)
