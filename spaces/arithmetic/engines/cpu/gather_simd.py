"""What the look-ups of depthwise layers do with 16 channels or 64 pixels at a time, for numba.

Arrays are flat and contiguous, and nothing is checked.
"""

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.cpu.depthwise_simd import (
    BYTES,
    CODES,
    LANES,
    Arrays,
    has_permutes,
    interleaved,
    permuted,
    splat,
)

COLUMN = 512  # bytes of a weight's column of products: the low ones of all 256, then the high ones
MOST_TAPS = 257  # of which the bytes' sums fit into 16 bits
_WORDS = ir.VectorType(ir.IntType(16), CODES // 2)
_CODES = ir.VectorType(ir.IntType(8), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def sum_products(typing, codes, start, offsets, columns, weights, first, taps, constant, sums, at, blocks):  # noqa: ARG001
    """sums[at + i] = constant + Σ_t column_t[codes[start + offsets[t] + i]] for i < 64·``blocks``.

    column_t begins at columns[512·weights[first + t]]; ``taps`` t. Does nothing where the processor has no permutes of bytes.
    """

    def build(context, builder, signature, arguments):
        if not has_permutes():
            return context.get_dummy_value()
        arrays = Arrays(context, builder, signature, arguments)
        _, start, _, _, _, first, taps, constant, _, at, blocks = arguments
        add, times, number = builder.add, builder.mul, lambda value: ir.Constant(start.type, value)
        zero, eight = ir.Constant(_WORDS, [0] * (CODES // 2)), ir.Constant(_WORDS, [8] * (CODES // 2))
        totals = [
            cgutils.alloca_once(builder, _WORDS) for _ in range(4)
        ]  # of low and of high bytes: whole words, odd bytes
        constants = splat(builder, constant, CODES)
        with cgutils.for_range(builder, blocks) as block:
            place = times(block.index, number(CODES))
            for total in totals:
                builder.store(zero, total)
            with cgutils.for_range(builder, taps) as tap:
                offset = builder.load(builder.gep(arrays.first[2], [tap.index]))
                index = arrays.load(0, add(add(start, place), offset), BYTES)
                weight = builder.load(builder.gep(arrays.first[4], [add(first, tap.index)]))
                column = times(builder.zext(weight, start.type), number(COLUMN))
                for plane in range(2):
                    quarters = [
                        arrays.load(3, add(column, number((plane * 4 + part) * CODES)), BYTES) for part in range(4)
                    ]
                    words = builder.bitcast(permuted(builder, quarters, index), _WORDS)
                    for total, part in zip(totals[2 * plane :], (words, builder.lshr(words, eight))):
                        builder.store(builder.add(builder.load(total), part), total)
            low, high = (
                _joined(builder, *(builder.load(total) for total in pair)) for pair in (totals[:2], totals[2:])
            )
            shift = ir.Constant(low.type, [8] * CODES)
            sums_ = builder.add(builder.add(low, builder.shl(high, shift)), constants)
            builder.store(sums_, arrays.place(8, add(at, place), sums_.type), align=4)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(
        codes, whole, offsets, columns, weights, whole, whole, types.int32, sums, whole, whole
    ), build  # fmt: skip


def _joined(builder: ir.IRBuilder, words: ir.Value, odd: ir.Value) -> ir.Value:
    """The sums of 64 bytes as 32-bit numbers, from those of words (modulo 2^16) and of the words' upper bytes."""
    even = builder.sub(words, builder.shl(odd, ir.Constant(_WORDS, [8] * (CODES // 2))))
    order = [side + i for i in range(CODES // 2) for side in (0, CODES // 2)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), CODES), order)
    return builder.zext(builder.shuffle_vector(even, odd, mask), ir.VectorType(ir.IntType(32), CODES))


@intrinsic
def transpose_codes(typing, target, at, pitch, source, start):  # noqa: ARG001
    """target[at + pitch·c + i] = source[start + 16i + c], for 16 channels c and 16 pixels i; bytes."""

    def build(context, builder, signature, arguments):
        arrays = Arrays(context, builder, signature, arguments)
        _, at, pitch, _, start = arguments
        number = lambda value: ir.Constant(at.type, value)  # noqa: E731
        rows = [arrays.place(3, builder.add(start, number(i * LANES)), _CODES) for i in range(LANES)]
        for c, value in enumerate(_transposed(builder, [builder.load(row, align=1) for row in rows])):
            place = builder.add(at, builder.mul(pitch, number(c)))
            builder.store(value, arrays.place(0, place, _CODES), align=1)
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, source, types.intp), build


@intrinsic
def transpose_sums(typing, target, at, source, start, pitch, scale, channel, scaled):  # noqa: ARG001
    """target[at + 16i + c] = source[start + pitch·c + i], for 16 channels c and 16 pixels i.

    If ``scaled``, the 32-bit integers are rounded to float32 and multiplied by scale[channel + c]; else they stay what they
    are in the array of float32 numbers.
    """

    def build(context, builder, signature, arguments):
        arrays = Arrays(context, builder, signature, arguments)
        _, at, _, start, pitch, _, channel, scaled = arguments
        number = lambda value: ir.Constant(at.type, value)  # noqa: E731
        rows = [arrays.load(2, builder.add(start, builder.mul(pitch, number(c))), _INTEGERS) for c in range(LANES)]
        factors = arrays.load(5, channel, _FLOATS)
        scaled = builder.trunc(scaled, ir.IntType(1)) if scaled.type != ir.IntType(1) else scaled
        for i, value in enumerate(_transposed(builder, rows)):
            product = builder.fmul(builder.sitofp(value, _FLOATS), factors)
            result = builder.select(scaled, product, builder.bitcast(value, _FLOATS))
            arrays.store(result, 0, builder.add(at, number(i * LANES)))
        return context.get_dummy_value()

    whole = types.intp
    return types.void(target, whole, source, whole, whole, scale, whole, types.boolean), build


def _transposed(builder: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Sixteen vectors of sixteen values, transposed: four rounds in which halves are shuffled like cards."""
    for _ in range(4):
        pairs = zip(rows[: LANES // 2], rows[LANES // 2 :])
        rows = [half for pair in pairs for half in interleaved(builder, pair, LANES)]
    return list(rows)
