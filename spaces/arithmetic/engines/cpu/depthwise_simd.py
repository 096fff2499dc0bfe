"""What the loops over depthwise convolutions do with sixteen neighbouring channels at a time, for numba.

Memory is told by its address, as ``memory`` says; offsets count float32 numbers, or codes of a byte.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import (
    BYTE,
    BYTES,
    CODES,
    FLOAT,
    FLOATS,
    INTEGER,
    INTEGERS,
    LANES,
    WHOLE,
    Memory,
    has_dot_products,
    has_permutes,
    interleaved,
    permuted,
    shuffled,
    written,
)

PIXELS = 8  # that ``row_multiplier``'s functions add up side by side
TAPS = 8  # that ``correlate`` adds up side by side
PLANES = 4  # bytes of a number


@intrinsic
def set_floats(typing, target, count):  # noqa: ARG001
    """target[:count] = 0, for whole vectors of float32 numbers."""

    def write(memory: Memory, target: ir.Value, count: ir.Value) -> None:
        with cgutils.for_range(memory.builder, memory.builder.sdiv(count, memory.number(LANES))) as vector:
            zeros = ir.Constant(FLOATS, [0.0] * LANES)
            memory.store(zeros, target, memory.product(vector.index, LANES))

    return written(2, write)


@intrinsic
def set_bytes(typing, target, value, count):  # noqa: ARG001
    """target[:count] = value, bytes."""

    def write(memory: Memory, target: ir.Value, value: ir.Value, count: ir.Value) -> None:
        place = memory.place(target, memory.number(0), BYTE)
        cgutils.memset(memory.builder, place, count, memory.builder.trunc(value, BYTE))

    return written(3, write)


@intrinsic
def lay_out_floats(typing, source, start, between, count, lanes, target, first, apart):  # noqa: ARG001
    """target[first + i·apart + l] = source[start + i·between + l] for ``count`` pixels i and ``lanes`` channels l."""
    return written(8, _layer_out(FLOAT, asks=False))


@intrinsic
def lay_out_bytes(typing, source, start, between, count, lanes, target, first, apart):  # noqa: ARG001
    """The same with bytes."""
    return written(8, _layer_out(BYTE, asks=False))


@intrinsic
def write_floats(typing, source, start, between, count, lanes, target, first, apart):  # noqa: ARG001
    """As ``lay_out_floats``; the lines of memory for as many more pixels are asked for."""
    return written(8, _layer_out(FLOAT, asks=True))


def _layer_out(element: ir.Type, asks: bool) -> Callable[..., None]:
    def write(memory, source, start, between, count, lanes, target, first, apart):
        def copy(lane: ir.Value, kind: ir.Type) -> None:
            value = memory.load(source, memory.sum(seen, lane), kind)
            memory.store(value, target, memory.sum(own, lane))

        with cgutils.for_range(memory.builder, count) as pixel:
            seen = memory.sum(start, memory.product(pixel.index, between))
            own = memory.sum(first, memory.product(pixel.index, apart))
            if asks:
                memory.ask_for(target, memory.sum(own, memory.product(count, apart)), element)
            memory.for_lanes(lanes, element, copy)

    return write


@intrinsic
def finish_row(typing, sums, scale, constant, channel, y, start, between, pixels, lanes):  # noqa: ARG001
    """y[start + i·between + l] = sums[16i + l]·scale[channel + l] + constant[channel + l], rounded twice.

    For ``pixels`` i and ``lanes`` channels l; the lines of memory for as many more pixels are asked for.
    """

    def write(memory, sums, scale, constant, channel, y, start, between, pixels, lanes):
        def finish(lane: ir.Value, kind: ir.Type) -> None:
            own = memory.sum(channel, lane)
            value = memory.load(sums, memory.sum(memory.product(pixel.index, LANES), lane), kind)
            scaled = memory.builder.fmul(value, memory.load(scale, own, kind))
            result = memory.builder.fadd(scaled, memory.load(constant, own, kind))
            memory.store(result, y, memory.sum(at, lane))

        with cgutils.for_range(memory.builder, pixels) as pixel:
            at = memory.sum(start, memory.product(pixel.index, between))
            memory.ask_for(y, memory.sum(at, memory.product(pixels, between)), FLOAT)
            memory.for_lanes(lanes, FLOAT, finish)

    return written(9, write)


@intrinsic
def finish_integers(typing, sums, scale, constant, channel, y, start, between, pixels, lanes, scaled):  # noqa: ARG001
    """The same with integers: rounded to float32 after the constant, and scaled; or if not ``scaled`` left as they are."""

    def write(memory, sums, scale, constant, channel, y, start, between, pixels, lanes, scaled):
        builder = memory.builder

        def finish(lane: ir.Value, kind: ir.Type) -> None:
            own, whole = memory.sum(channel, lane), INTEGERS if isinstance(kind, ir.VectorType) else INTEGER
            value = memory.load(sums, memory.sum(memory.product(pixel.index, LANES), lane), whole)
            value = builder.add(value, memory.load(constant, own, whole))
            product = builder.fmul(builder.sitofp(value, kind), memory.load(scale, own, kind))
            chosen = builder.select(builder.trunc(scaled, ir.IntType(1)), product, builder.bitcast(value, kind))
            memory.store(chosen, y, memory.sum(at, lane))

        with cgutils.for_range(builder, pixels) as pixel:
            at = memory.sum(start, memory.product(pixel.index, between))
            memory.ask_for(y, memory.sum(at, memory.product(pixels, between)), FLOAT)
            memory.for_lanes(lanes, FLOAT, finish)

    return written(10, write)


# -- products ----------------------------------------------------------------------------------------------------------


def row_multiplier(step: int | None, words: bool = False) -> Callable[..., Any]:
    """multiply(sums, features, plane, weights, rank, taps, step, gap, tiles): what a row of features adds to one of sums.

    sums[16p + l] += Σ_rk features[r·plane + p·step + k·gap + l] · weights[(r·taps + k)·16 + l] for 8·``tiles`` pixels p,
    ``rank`` values r, ``taps`` taps k and 16 channels l. A ``step`` that is known beforehand makes it faster. With
    ``words``, features and weights are four bytes each, unsigned and signed, and the sums those of their products.
    """

    @intrinsic
    def multiply(typing, sums, features, plane, weights, rank, taps, step_, gap, tiles):  # noqa: ARG001
        def write(memory, sums, features, plane, weights, rank, taps, step_, gap, tiles):
            given = step_ if step is None else memory.number(step)
            if not words:
                kind, add = FLOATS, memory.multiply_add
            elif has_dot_products():
                kind, add = INTEGERS, memory.dot_products
            else:
                return
            _multiply_row(memory, kind, add, sums, features, plane, weights, rank, taps, given, gap, tiles)

        return written(9, write)

    return multiply


def _multiply_row(memory, kind, add, sums, features, plane, weights, rank, taps, step, gap, tiles):
    builder = memory.builder
    totals = [cgutils.alloca_once(builder, kind) for _ in range(PIXELS)]
    with cgutils.for_range(builder, tiles) as tile:
        own = memory.product(tile.index, PIXELS * LANES)
        seen = memory.product(tile.index, memory.product(step, PIXELS))
        for pixel, total in enumerate(totals):
            builder.store(memory.load(sums, memory.sum(own, pixel * LANES), kind), total)
        with cgutils.for_range(builder, rank) as feature, cgutils.for_range(builder, taps) as tap:
            place = memory.sum(memory.product(feature.index, taps), tap.index)
            weight = memory.load(weights, memory.product(place, LANES), kind)
            offset = memory.sum(memory.product(feature.index, plane), memory.product(tap.index, gap))
            at = memory.sum(seen, offset)
            for pixel, total in enumerate(totals):
                value = memory.load(features, memory.sum(at, memory.product(step, pixel)), kind)
                builder.store(add(value, weight, builder.load(total)), total)
        for pixel, total in enumerate(totals):
            memory.store(builder.load(total), sums, memory.sum(own, pixel * LANES))


@intrinsic
def correlate(typing, sums, features, offsets, step, grads, stride, pixels):  # noqa: ARG001
    """sums[16t + l] += Σ_p features[offsets[t] + p·step + l] · grads[p·stride + l].

    For ``pixels`` pixels p, eight taps t and 16 channels l; ``offsets`` are of eight bytes each.
    """

    def write(memory, sums, features, offsets, step, grads, stride, pixels):
        builder = memory.builder
        totals = [cgutils.alloca_once(builder, FLOATS) for _ in range(TAPS)]
        starts = [memory.load(offsets, memory.number(tap), WHOLE) for tap in range(TAPS)]
        for tap, total in enumerate(totals):
            builder.store(memory.load(sums, memory.number(tap * LANES), FLOATS), total)
        with cgutils.for_range(builder, pixels) as pixel:
            grad = memory.load(grads, memory.product(pixel.index, stride), FLOATS)
            at = memory.product(pixel.index, step)
            for start, total in zip(starts, totals):
                value = memory.load(features, memory.sum(start, at), FLOATS)
                builder.store(memory.multiply_add(value, grad, builder.load(total)), total)
        for tap, total in enumerate(totals):
            memory.store(builder.load(total), sums, memory.number(tap * LANES))

    return written(7, write)


# -- features ----------------------------------------------------------------------------------------------------------


@intrinsic
def look_up_each(typing, codes, table, features, count):  # noqa: ARG001
    """features[i] = table[codes[i]] for i < ``count``."""

    def write(memory, codes, table, features, count):
        with cgutils.for_range(memory.builder, count) as code:
            index = memory.builder.zext(memory.load(codes, code.index, BYTE), WHOLE)
            memory.store(memory.load(table, index, FLOAT), features, code.index)

    return written(4, write)


@intrinsic
def look_up_bytes(typing, codes, tables, features, blocks):  # noqa: ARG001
    """features[i] = the float32 number codes[i] of a table, for i < 64·``blocks``.

    ``tables`` are the first bytes of all 256 numbers, the second ones and so on. Does nothing where the processor has no
    permutes of bytes.
    """
    return written(4, _look_up_bytes)


def _look_up_bytes(memory, codes, tables, features, blocks):
    if not has_permutes():
        return
    quarters = [
        [memory.load(tables, memory.number((plane * 4 + quarter) * CODES), BYTES) for quarter in range(4)]
        for plane in range(PLANES)
    ]
    with cgutils.for_range(memory.builder, blocks) as block:
        at = memory.product(block.index, CODES)
        index = _in_order_of_words(memory.builder, memory.load(codes, at, BYTES))
        planes = [permuted(memory.builder, quarter, index) for quarter in quarters]
        for part, floats in enumerate(_joined(memory.builder, planes)):
            memory.store(floats, features, memory.sum(at, part * LANES))


@intrinsic
def look_up_halves(typing, codes, halves, rank, features, plane, pixels):  # noqa: ARG001
    """features[r·plane + i] = halves[32r + codes[i] // 16] + halves[32r + 16 + codes[i] % 16].

    For ``rank`` values r and 16·``pixels`` codes i; the numbers are float32. As ``look_up_bytes``, it does nothing where it
    cannot.
    """
    return written(6, _look_up_halves)


def _look_up_halves(memory, codes, halves, rank, features, plane, pixels):
    if not has_permutes():
        return
    builder = memory.builder
    kind = ir.FunctionType(FLOATS, [FLOATS, INTEGERS])
    permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512")
    with cgutils.for_range(builder, pixels) as pixel:
        at = memory.product(pixel.index, LANES)
        code = builder.zext(memory.load(codes, at, ir.VectorType(BYTE, LANES)), INTEGERS)
        upper = builder.lshr(code, ir.Constant(INTEGERS, [4] * LANES))
        with cgutils.for_range(builder, rank) as feature:
            first = memory.product(feature.index, 2 * LANES)
            parts = [
                builder.call(permute, [memory.load(halves, memory.sum(first, half), FLOATS), index])
                for half, index in ((0, upper), (LANES, code))  # of which the lower four bits count
            ]
            memory.store(builder.fadd(*parts), features, memory.sum(memory.product(feature.index, plane), at))


def _in_order_of_words(builder: ir.IRBuilder, index: ir.Value) -> ir.Value:
    """Codes so that ``_joined`` gives back sixteen neighbours at a time: the quarters of quarters change places."""
    order = [16 * part + 4 * quarter + i for quarter in range(4) for part in range(4) for i in range(4)]
    return shuffled(builder, index, index, order)


def _joined(builder: ir.IRBuilder, planes: Sequence[ir.Value]) -> list[ir.Value]:
    """Four planes of 64 bytes as four vectors of 16 float32 numbers, interleaved within every 16 bytes."""
    words = [interleaved(builder, pair, 16) for pair in (planes[:2], planes[2:])]  # the low bytes, the high ones
    joined = []
    for low, high in zip(*words):
        pair = [builder.bitcast(word, ir.VectorType(ir.IntType(16), 32)) for word in (low, high)]
        joined += [builder.bitcast(part, FLOATS) for part in interleaved(builder, pair, 8)]
    return joined
