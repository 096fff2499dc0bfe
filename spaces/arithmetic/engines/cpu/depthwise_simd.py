"""What the loops over depthwise convolutions do with sixteen neighbouring channels at a time, for numba.

Memory is told by its address, as ``memory`` says; offsets count float32 numbers, or codes of a byte.
"""

from collections.abc import Callable, Sequence

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
    has_permutes,
    interleaved,
    permuted,
    shuffled,
    written,
)

PLANES = 4  # bytes of a number
_AT_ONCE = CODES // LANES  # pixels that are looked up together


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
        mask = memory.first_lanes(lanes)
        with cgutils.for_range(memory.builder, count) as pixel:
            seen = memory.sum(start, memory.product(pixel.index, between))
            own = memory.sum(first, memory.product(pixel.index, apart))
            if asks:
                memory.ask_for(target, memory.sum(own, memory.product(count, apart)), element)
            memory.store_some(memory.load_some(source, seen, mask, element), target, own, mask)

    return write


@intrinsic
def finish_row(typing, sums, scale, constant, channel, y, start, between, pixels, lanes):  # noqa: ARG001
    """y[start + i·between + l] = sums[16i + l]·scale[channel + l] + constant[channel + l], rounded twice.

    For ``pixels`` i and ``lanes`` channels l; the lines of memory for as many more pixels are asked for.
    """

    def write(memory, sums, scale, constant, channel, y, start, between, pixels, lanes):
        mask = memory.first_lanes(lanes)
        factor, added = (memory.load_some(part, channel, mask) for part in (scale, constant))
        with cgutils.for_range(memory.builder, pixels) as pixel:
            at = memory.sum(start, memory.product(pixel.index, between))
            memory.ask_for(y, memory.sum(at, memory.product(pixels, between)), FLOAT)
            scaled = memory.builder.fmul(memory.load(sums, memory.product(pixel.index, LANES), FLOATS), factor)
            memory.store_some(memory.builder.fadd(scaled, added), y, at, mask)

    return written(9, write)


@intrinsic
def finish_integers(typing, sums, scale, constant, channel, y, start, between, pixels, lanes, scaled):  # noqa: ARG001
    """The same with integers: rounded to float32 after the constant, and scaled; or if not ``scaled`` left as they are."""

    def write(memory, sums, scale, constant, channel, y, start, between, pixels, lanes, scaled):
        builder, mask = memory.builder, memory.first_lanes(lanes)
        factor, added = memory.load_some(scale, channel, mask), memory.load_some(constant, channel, mask, INTEGER)
        with cgutils.for_range(builder, pixels) as pixel:
            at = memory.sum(start, memory.product(pixel.index, between))
            memory.ask_for(y, memory.sum(at, memory.product(pixels, between)), FLOAT)
            value = builder.add(memory.load(sums, memory.product(pixel.index, LANES), INTEGERS), added)
            product = builder.fmul(builder.sitofp(value, FLOATS), factor)
            chosen = builder.select(builder.trunc(scaled, ir.IntType(1)), product, builder.bitcast(value, FLOATS))
            memory.store_some(chosen, y, at, mask)

    return written(10, write)


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
    with cgutils.for_range(builder, builder.sdiv(pixels, memory.number(_AT_ONCE))) as block:
        start = memory.product(block.index, _AT_ONCE * LANES)
        places = [memory.sum(start, pixel * LANES) for pixel in range(_AT_ONCE)]
        lower = [builder.zext(memory.load(codes, at, ir.VectorType(BYTE, LANES)), INTEGERS) for at in places]
        upper = [builder.lshr(code, ir.Constant(INTEGERS, [4] * LANES)) for code in lower]
        with cgutils.for_range(builder, rank) as feature:
            first, target = memory.product(feature.index, 2 * LANES), memory.product(feature.index, plane)
            high, low = (memory.load(halves, memory.sum(first, half), FLOATS) for half in (0, LANES))
            for at, *index in zip(places, upper, lower):  # of which the lower four bits count
                parts = [builder.call(permute, pair) for pair in zip((high, low), index)]
                memory.store(builder.fadd(*parts), features, memory.sum(target, at))


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
