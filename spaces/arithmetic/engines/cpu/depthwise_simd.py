"""What the loops over depthwise convolutions do with sixteen neighbouring channels at a time, for numba.

Arrays are flat and contiguous, and nothing is checked. The vectors are LLVM's own, which it translates for every
processor; only the look-up by permutes needs instructions that not every one has.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 16  # channels
PIXELS = 8  # that ``multiply_row`` adds up side by side
TAPS = 8  # that ``correlate`` adds up side by side
CODES = 64  # that are looked up at a time
PLANES = 4  # bytes of a number
_HALF = 128  # bytes that one permute reaches

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
BYTES = ir.VectorType(ir.IntType(8), CODES)


def has_permutes() -> bool:
    """Whether this processor looks bytes up in registers (AVX-512 VBMI)."""
    return "+avx512vbmi," in cpu_target.target_context.codegen().magic_tuple()[2] + ","


class Arrays:
    """The memory behind an intrinsic's array arguments."""

    def __init__(self, context: BaseContext, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]):
        self.builder, self.arguments = builder, arguments
        self.first = {
            number: make_array(kind)(context, builder, arguments[number]).data
            for number, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }

    def place(self, array: int, at: ir.Value, vector: ir.Type) -> ir.Value:
        """The address of the vector that begins at an element of the argument ``array``."""
        return self.builder.bitcast(self.builder.gep(self.first[array], [at]), vector.as_pointer())

    def load(self, array: int, at: ir.Value, vector: ir.Type) -> ir.Value:
        return self.builder.load(self.place(array, at, vector), align=1 if vector == BYTES else 4)

    def store(self, value: ir.Value, array: int, at: ir.Value) -> None:
        self.builder.store(value, self.place(array, at, value.type), align=4 if value.type == _FLOATS else 1)


def splat(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of ``count`` times the same value."""
    vector, integer = ir.VectorType(value.type, count), ir.IntType(32)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(integer, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(integer, count), [0] * count))


def prefetch(builder: ir.IRBuilder, place: ir.Value) -> None:
    """Ask for a line of memory, to write to it."""
    integer = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, integer, integer, integer])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [place, ir.Constant(integer, 1), ir.Constant(integer, 3), ir.Constant(integer, 1)])


def _multiply_add(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
    return builder.fadd(builder.fmul(left, right, flags=("contract",)), total, flags=("contract",))


@intrinsic
def copy_lanes(typing, target, at, source, start):  # noqa: ARG001
    """target[at : at + 16] = source[start : start + 16], of one type."""

    def build(context, builder, signature, arguments):
        arrays = Arrays(context, builder, signature, arguments)
        vector = ir.VectorType(context.get_data_type(signature.args[0].dtype), LANES)
        value = builder.load(arrays.place(2, arguments[3], vector), align=1)
        builder.store(value, arrays.place(0, arguments[1], vector), align=1)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), build


@intrinsic
def ask_for(typing, target, at):  # noqa: ARG001
    """Have the line of memory around target[at] ready, which will be written to; it may lie beyond the array."""

    def build(context, builder, signature, arguments):
        prefetch(builder, Arrays(context, builder, signature, arguments).place(0, arguments[1], ir.IntType(8)))
        return context.get_dummy_value()

    return types.void(target, types.intp), build


@intrinsic
def set_lanes(typing, target, at, value):  # noqa: ARG001
    """target[at : at + 16] = value, of the array's type."""

    def build(context, builder, signature, arguments):
        arrays = Arrays(context, builder, signature, arguments)
        value = splat(builder, arguments[2], LANES)
        builder.store(value, arrays.place(0, arguments[1], value.type), align=1)
        return context.get_dummy_value()

    return types.void(target, types.intp, target.dtype), build


@intrinsic
def scale_lanes(typing, target, at, source, start, scale, constant, channel):  # noqa: ARG001
    """target[at + l] = source[start + l]·scale[channel + l] + constant[channel + l], rounded twice, for 16 channels l."""

    def build(context, builder, signature, arguments):
        arrays = Arrays(context, builder, signature, arguments)
        source, scale, constant = (arrays.load(array, arguments[at], _FLOATS) for array, at in ((2, 3), (4, 6), (5, 6)))
        arrays.store(builder.fadd(builder.fmul(source, scale), constant), 0, arguments[1])
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, scale, constant, types.intp), build


def row_multiplier(step: int | None) -> Callable[..., Any]:
    """multiply(sums, first, features, start, plane, weights, by, rank, taps, step, gap, tiles): what a row adds to another.

    sums[first + 16p + l] += Σ_rk features[start + r·plane + p·step + k·gap + l] · weights[by + (r·taps + k)·16 + l]
    for ``tiles``·8 pixels p, ``rank`` values r, ``taps`` taps k and 16 channels l, all float32. A ``step`` that is known
    beforehand makes it faster.
    """

    @intrinsic
    def multiply(typing, sums, first, features, start, plane, weights, by, rank, taps, step_, gap, tiles):  # noqa: ARG001
        def build(context, builder, signature, arguments):
            arrays = Arrays(context, builder, signature, arguments)
            number = lambda value: ir.Constant(arguments[1].type, value)  # noqa: E731
            given = arguments[9] if step is None else number(step)
            _multiply_row(builder, arrays, number, (*arguments[:9], given, *arguments[10:]))
            return context.get_dummy_value()

        whole = types.intp
        return types.void(
            sums, whole, features, whole, whole, weights, whole, whole, whole, whole, whole, whole
        ), build  # fmt: skip

    return multiply


def _multiply_row(
    builder: ir.IRBuilder, arrays: Arrays, number: Callable[[int], ir.Constant], arguments: Sequence[ir.Value]
) -> None:
    _, first, _, start, plane, _, by, rank, taps, step, gap, tiles = arguments
    add, times = builder.add, builder.mul
    totals = [cgutils.alloca_once(builder, _FLOATS) for _ in range(PIXELS)]
    with cgutils.for_range(builder, tiles) as tile:
        own = add(first, times(tile.index, number(PIXELS * LANES)))
        seen = add(start, times(tile.index, times(step, number(PIXELS))))
        for pixel, total in enumerate(totals):
            builder.store(arrays.load(0, add(own, number(pixel * LANES)), _FLOATS), total)
        with cgutils.for_range(builder, rank) as feature, cgutils.for_range(builder, taps) as tap:
            place = times(add(times(feature.index, taps), tap.index), number(LANES))
            weight = arrays.load(5, add(by, place), _FLOATS)
            at = add(seen, add(times(feature.index, plane), times(tap.index, gap)))
            for pixel, total in enumerate(totals):
                value = arrays.load(2, add(at, times(step, number(pixel))), _FLOATS)
                builder.store(_multiply_add(builder, value, weight, builder.load(total)), total)
        for pixel, total in enumerate(totals):
            arrays.store(builder.load(total), 0, add(own, number(pixel * LANES)))


@intrinsic
def correlate(typing, sums, first, features, start, offsets, chosen, step, grads, begin, stride, pixels):  # noqa: ARG001
    """sums[first + 16t + l] += Σ_p features[start + offsets[chosen + t] + p·step + l] · grads[begin + p·stride + l].

    For ``pixels`` pixels p, eight taps t and 16 channels l; ``offsets`` are intp, the other arrays float32.
    """

    def build(context, builder, signature, arguments):
        arrays = Arrays(context, builder, signature, arguments)
        _, first, _, start, _, chosen, step, _, begin, stride, pixels = arguments
        add, times, number = builder.add, builder.mul, lambda value: ir.Constant(first.type, value)
        totals = [cgutils.alloca_once(builder, _FLOATS) for _ in range(TAPS)]
        places = []
        for tap, total in enumerate(totals):
            builder.store(arrays.load(0, add(first, number(tap * LANES)), _FLOATS), total)
            places.append(add(start, builder.load(builder.gep(arrays.first[4], [add(chosen, number(tap))]))))
        with cgutils.for_range(builder, pixels) as pixel:
            grad = arrays.load(7, add(begin, times(pixel.index, stride)), _FLOATS)
            for place, total in zip(places, totals):
                value = arrays.load(2, add(place, times(pixel.index, step)), _FLOATS)
                builder.store(_multiply_add(builder, value, grad, builder.load(total)), total)
        for tap, total in enumerate(totals):
            arrays.store(builder.load(total), 0, add(first, number(tap * LANES)))
        return context.get_dummy_value()

    whole = types.intp
    return types.void(sums, whole, features, whole, offsets, whole, whole, grads, whole, whole, whole), build


@intrinsic
def look_up_floats(typing, codes, tables, first, features, start, blocks):  # noqa: ARG001
    """features[start + i] = the float32 number codes[i] of a table, for i < 64·``blocks``.

    ``tables[first : first + 1024]`` are the first bytes of all 256 numbers, the second ones and so on. Does nothing where
    the processor has no permutes of bytes.
    """

    def build(context, builder, signature, arguments):
        if not has_permutes():
            return context.get_dummy_value()
        arrays = Arrays(context, builder, signature, arguments)
        _, _, first, _, start, blocks = arguments
        add, times, number = builder.add, builder.mul, lambda value: ir.Constant(first.type, value)
        quarters = [
            [arrays.load(1, add(first, number((plane * 4 + quarter) * CODES)), BYTES) for quarter in range(4)]
            for plane in range(PLANES)
        ]
        with cgutils.for_range(builder, blocks) as block:
            at = times(block.index, number(CODES))
            index = _in_order_of_words(builder, arrays.load(0, at, BYTES))
            planes = [permuted(builder, quarter, index) for quarter in quarters]
            for part, floats in enumerate(_joined(builder, planes)):
                arrays.store(floats, 3, add(add(start, at), number(part * LANES)))
        return context.get_dummy_value()

    return types.void(codes, tables, types.intp, features, types.intp, types.intp), build


def permuted(builder: ir.IRBuilder, quarters: Sequence[ir.Value], index: ir.Value) -> ir.Value:
    """The bytes that 64 codes select from 256."""
    kind = ir.FunctionType(BYTES, [BYTES, BYTES, BYTES])
    permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.qi.512")
    low, high = (builder.call(permute, [pair[0], index, pair[1]]) for pair in (quarters[:2], quarters[2:]))
    above = builder.icmp_signed("<", index, ir.Constant(BYTES, [0] * CODES))
    return builder.select(above, high, low)


def _shuffled(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, order: Sequence[int]) -> ir.Value:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
    return builder.shuffle_vector(left, right, mask)


def _in_order_of_words(builder: ir.IRBuilder, index: ir.Value) -> ir.Value:
    """Codes so that ``_joined`` gives back sixteen neighbours at a time: the quarters of quarters change places."""
    order = [16 * part + 4 * quarter + i for quarter in range(4) for part in range(4) for i in range(4)]
    return _shuffled(builder, index, index, order)


def _joined(builder: ir.IRBuilder, planes: Sequence[ir.Value]) -> list[ir.Value]:
    """Four planes of 64 bytes as four vectors of 16 float32 numbers, interleaved within every 16 bytes."""
    words = [interleaved(builder, pair, 16) for pair in (planes[:2], planes[2:])]  # the low bytes, the high ones
    joined = []
    for low, high in zip(*words):
        pair = [builder.bitcast(word, ir.VectorType(ir.IntType(16), 32)) for word in (low, high)]
        joined += [builder.bitcast(part, _FLOATS) for part in interleaved(builder, pair, 8)]
    return joined


def interleaved(builder: ir.IRBuilder, pair: Sequence[ir.Value], width: int) -> list[ir.Value]:
    """The lower and the upper halves of every ``width`` neighbours of two vectors, turn by turn."""
    left, right = pair
    count = left.type.count
    return [
        _shuffled(
            builder, left, right,
            [side + group + half + i for group in range(0, count, width) for i in range(width // 2) for side in (0, count)],
        )
        for half in (0, width // 2)
    ]  # fmt: skip
