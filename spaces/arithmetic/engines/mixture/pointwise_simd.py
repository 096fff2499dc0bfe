"""What the loops over pointwise layers do with sixteen outputs at a time, for numba.

A row has what one activation code adds to sixteen neighbouring outputs; a channel has 256 of them, one after the other.
Memory is told by its address, as ``memory`` says.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import (
    BYTE,
    FLOAT,
    FLOATS,
    LANES,
    NOTHING,
    WHOLE,
    shuffled,
    splat,
    transposed,
    written,
)
from spaces.multipliers.multiplier import SIZE

ROWS = SIZE * LANES  # numbers of a channel's rows
TOGETHER = 4  # channels whose additions do not wait for each other
SPREAD = 8  # rows that share the additions of the most frequent code, so that one need not wait for the one before
SUMS = ROWS + SPREAD * LANES  # numbers of a channel's rows with these
_SIDE_BY_SIDE = 8  # rows


@intrinsic
def make_rows(typing, u, v, rank, rows):  # noqa: ARG001
    """rows[16a + l] = Σ_r u[256r + a]·v[16r + l] for all 256 codes a."""

    def write(memory, u, v, rank, rows):
        builder = memory.builder
        totals = [cgutils.alloca_once(builder, FLOATS) for _ in range(_SIDE_BY_SIDE)]
        with cgutils.for_range(builder, memory.number(SIZE // _SIDE_BY_SIDE)) as block:
            first = memory.product(block.index, _SIDE_BY_SIDE)
            for total in totals:
                builder.store(NOTHING, total)
            with cgutils.for_range(builder, rank) as feature:
                values = memory.load(v, memory.product(feature.index, LANES), FLOATS)
                place = memory.sum(memory.product(feature.index, SIZE), first)
                for number, total in enumerate(totals):
                    factor = splat(builder, memory.load(u, memory.sum(place, number), FLOAT), LANES)
                    builder.store(memory.multiply_add(factor, values, builder.load(total)), total)
            for number, total in enumerate(totals):
                memory.store(builder.load(total), rows, memory.product(memory.sum(first, number), LANES))

    return written(4, write)


@intrinsic
def add_rows(typing, x, pixels, channels, some, rows, scale, constant, y, between, lanes, first, last):  # noqa: ARG001
    """y[p·between + l] = scale[l]·(Σ_c rows of channel c at code x[p·channels + c])[l] + constant[l], for ``lanes`` l.

    For ``some`` of all ``channels``: unless these are the ``first``, sums go on from what y holds; after the ``last`` they are
    scaled.
    """

    def write(memory, x, pixels, channels, some, rows, scale, constant, y, between, lanes, first, last):
        builder = memory.builder
        mask = memory.first_lanes(lanes)
        ends, begins = (builder.trunc(flag, ir.IntType(1)) for flag in (last, first))
        before = builder.select(begins, memory.first_lanes(memory.number(0)), mask)
        factor, added = (
            builder.select(
                ends, memory.load_some(part, memory.number(0), mask), ir.Constant(FLOATS, [otherwise] * LANES)
            )
            for part, otherwise in ((scale, 1.0), (constant, 0.0))
        )
        totals = [cgutils.alloca_once(builder, FLOATS) for _ in range(TOGETHER)]

        def add(code_at: ir.Value, channel: ir.Value, total: ir.Value) -> None:
            row = memory.load(rows, _row_of(memory, memory.load(x, code_at, BYTE), channel), FLOATS)
            builder.store(builder.fadd(builder.load(total), row), total)

        whole = builder.sdiv(some, memory.number(TOGETHER))
        rest = builder.srem(some, memory.number(TOGETHER))
        with cgutils.for_range(builder, pixels) as pixel:
            start, at = memory.product(pixel.index, channels), memory.product(pixel.index, between)
            builder.store(memory.load_some(y, at, before), totals[0])
            for total in totals[1:]:
                builder.store(NOTHING, total)
            with cgutils.for_range(builder, whole) as four:
                for number, total in enumerate(totals):
                    channel = memory.sum(memory.product(four.index, TOGETHER), number)
                    add(memory.sum(start, channel), channel, total)
            with cgutils.for_range(builder, rest) as one:
                channel = memory.sum(memory.product(whole, TOGETHER), one.index)
                add(memory.sum(start, channel), channel, totals[0])
            sums = _sum(builder, [builder.load(total) for total in totals])
            result = builder.fadd(builder.fmul(sums, factor), added)
            memory.ask_for(y, memory.sum(at, memory.product(between, _AHEAD)), FLOAT)
            memory.store_some(result, y, at, mask)

    return written(12, write)


_AHEAD = 16  # pixels, whose lines of memory are asked for


def add_by_code(together: int) -> Callable[..., Any]:
    """add(x, pixels, channels, often, g, between, lanes, rows): the gradients of outputs, added to the rows of codes.

    The row of channel c at code x[p·channels + c] += g[p·between + l], for ``together`` channels c, pixels p and ``lanes`` l.
    A channel has ``SUMS`` numbers: the code ``often`` is added to the last rows, by turns.
    """

    @intrinsic
    def add(typing, x, pixels, channels, often, g, between, lanes, rows):  # noqa: ARG001
        def write(memory, x, pixels, channels, often, g, between, lanes, rows):
            builder = memory.builder
            mask, frequent = memory.first_lanes(lanes), builder.trunc(often, BYTE)
            with cgutils.for_range(builder, pixels) as pixel:
                gradients = memory.load_some(g, memory.product(pixel.index, between), mask)
                start = memory.product(pixel.index, channels)
                turn = memory.sum(builder.and_(pixel.index, memory.number(SPREAD - 1)), SIZE)
                codes = [memory.load(x, memory.sum(start, channel), BYTE) for channel in range(together)]
                for channel, code in enumerate(codes):
                    own = builder.select(builder.icmp_unsigned("==", code, frequent), turn, builder.zext(code, WHOLE))
                    row = memory.sum(memory.product(own, LANES), channel * SUMS)
                    memory.store(builder.fadd(memory.load(rows, row, FLOATS), gradients), rows, row)

        return written(8, write)

    return add


@intrinsic
def gather_turns(typing, rows, often):  # noqa: ARG001
    """What ``add_by_code`` added by turns, as the row of the code ``often``."""

    def write(memory, rows, often):
        places = [memory.number(ROWS + turn * LANES) for turn in range(SPREAD)]
        turns = [memory.load(rows, place, FLOATS) for place in places]
        memory.store(_sum(memory.builder, turns), rows, memory.product(often, LANES))

    return written(2, write)


@intrinsic
def meet_weights(typing, rows, v, scale, lanes, rank, totals):  # noqa: ARG001
    """totals[(256r + a)·16 + l] += rows[16a + l]·v[16r + l]·scale[l] for ``rank`` values r, all codes a, ``lanes`` l."""

    def write(memory, rows, v, scale, lanes, rank, totals):
        builder = memory.builder
        factor = memory.load_some(scale, memory.number(0), memory.first_lanes(lanes))
        with cgutils.for_range(builder, rank) as feature:
            first = memory.product(feature.index, LANES)
            values = builder.fmul(memory.load(v, first, FLOATS), factor)
            with cgutils.for_range(builder, memory.number(SIZE)) as code:
                row = memory.load(rows, memory.product(code.index, LANES), FLOATS)
                place = memory.sum(memory.product(first, SIZE), memory.product(code.index, LANES))
                total = memory.load(totals, place, FLOATS)
                memory.store(memory.multiply_add(row, values, total), totals, place)

    return written(6, write)


@intrinsic
def add_lanes(typing, totals, sums, count):  # noqa: ARG001
    """sums[i] = Σ_l totals[16i + l] for 16·``count`` numbers i."""

    def write(memory, totals, sums, count):
        builder = memory.builder
        with cgutils.for_range(builder, count) as block:
            first = memory.product(block.index, LANES * LANES)
            lines = [memory.load(totals, memory.sum(first, line * LANES), FLOATS) for line in range(LANES)]
            memory.store(_sum(builder, transposed(builder, lines)), sums, memory.product(block.index, LANES))

    return written(3, write)


# -- few pixels: without rows ------------------------------------------------------------------------------------------


def product_adder(pixels: int) -> Callable[..., Any]:
    """add(x, channels, u, v, rank, scale, constant, y, between, lanes): as ``add_rows``, for so many pixels, by products.

    Of channel c: Σ_r u[256r + x[p·channels + c]]·v[(c·rank + r)·16 + l].
    """

    @intrinsic
    def add(typing, x, channels, u, v, rank, scale, constant, y, between, lanes):  # noqa: ARG001
        def write(memory, x, channels, u, v, rank, scale, constant, y, between, lanes):
            builder = memory.builder
            totals = [cgutils.alloca_once_value(builder, NOTHING) for _ in range(pixels)]
            with cgutils.for_range(builder, channels) as channel:
                places = [memory.sum(channel.index, memory.product(channels, pixel)) for pixel in range(pixels)]
                codes = [builder.zext(memory.load(x, place, BYTE), WHOLE) for place in places]
                with cgutils.for_range(builder, rank) as feature:
                    place = memory.sum(memory.product(channel.index, rank), feature.index)
                    values, table = (
                        memory.load(v, memory.product(place, LANES), FLOATS),
                        memory.product(feature.index, SIZE),
                    )
                    for code, total in zip(codes, totals):
                        factor = splat(builder, memory.load(u, memory.sum(table, code), FLOAT), LANES)
                        builder.store(memory.multiply_add(factor, values, builder.load(total)), total)
            mask = memory.first_lanes(lanes)
            factor, added = (memory.load_some(part, memory.number(0), mask) for part in (scale, constant))
            for pixel, total in enumerate(totals):
                result = builder.fadd(builder.fmul(builder.load(total), factor), added)
                memory.store_some(result, y, memory.product(between, pixel), mask)

        return written(10, write)

    return add


HALF = LANES // 2  # features of a code side by side
_PAIR = ir.VectorType(FLOAT, HALF)


def feature_adder(pixels: int) -> Callable[..., Any]:
    """add(x, channels, g, outputs, weights, sums): the gradients of the features of codes, added up by code.

    sums[8·x[p·channels + c] + r] += Σ_o g[p·outputs + o]·weights[(o·C + c)·8 + r] for so many pixels p, all channels c and
    8 features r, where C is the next even number of channels.
    """

    @intrinsic
    def add(typing, x, channels, g, outputs, weights, sums):  # noqa: ARG001
        def write(memory, x, channels, g, outputs, weights, sums):
            builder = memory.builder
            totals = [cgutils.alloca_once(builder, FLOATS) for _ in range(pixels)]
            pairs = builder.sdiv(memory.sum(channels, 1), memory.number(2))
            with cgutils.for_range(builder, pairs) as pair:
                for total in totals:
                    builder.store(NOTHING, total)
                with cgutils.for_range(builder, outputs) as output:
                    place = memory.sum(memory.product(output.index, pairs), pair.index)
                    values = memory.load(weights, memory.product(place, LANES), FLOATS)
                    for pixel, total in enumerate(totals):
                        at = memory.sum(output.index, memory.product(outputs, pixel))
                        factor = splat(builder, memory.load(g, at, FLOAT), LANES)
                        builder.store(memory.multiply_add(factor, values, builder.load(total)), total)
                first = memory.product(pair.index, 2)
                last = builder.sub(channels, memory.number(1))
                second = memory.sum(first, 1)
                second = builder.select(builder.icmp_signed("<", second, last), second, last)  # adds zeros, if missing
                for pixel, total in enumerate(totals):
                    both = builder.load(total)
                    for half, channel in enumerate((first, second)):
                        part = shuffled(builder, both, both, range(half * HALF, (half + 1) * HALF))
                        code = memory.load(x, memory.sum(channel, memory.product(channels, pixel)), BYTE)
                        row = memory.product(builder.zext(code, WHOLE), HALF)
                        memory.store(builder.fadd(memory.load(sums, row, _PAIR), part), sums, row)

        return written(6, write)

    return add


def _sum(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    """Of a power of two of vectors, in pairs."""
    while len(vectors) > 1:
        vectors = [builder.fadd(left, right) for left, right in zip(vectors[::2], vectors[1::2])]
    return vectors[0]


def _row_of(memory, code: ir.Value, channel: ir.Value) -> ir.Value:
    """Where a channel's row for a code begins."""
    return memory.sum(memory.product(memory.builder.zext(code, WHOLE), LANES), memory.product(channel, ROWS))
