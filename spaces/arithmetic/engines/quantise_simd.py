"""Ranges and codes of 64 activations at a time, for numba's loops.

Written out, since lines of the codes' memory have to be asked for early: where they are not in the cache, storing codes took
three times as long as computing them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import BYTE, CODES, FLOATS, INTEGERS, LANES, Memory, shuffled, splat

_FLAGS, _BYTES = ir.VectorType(ir.IntType(1), LANES), ir.VectorType(BYTE, LANES)
_AHEAD = 512  # codes


@intrinsic
def quantise_lines(typing, x, scale, low, high, zero, out, lines):  # noqa: ARG001
    """out = clamp(round(x / scale), low, high) + zero for 64·``lines`` numbers; whether one was outside, and one a NaN.

    A NaN counts as 0. ``x`` float32 and ``out`` uint8 are addresses; ``scale``, ``low`` and ``high`` float32, ``zero`` int32.
    """

    def build(context, builder, signature, arguments):
        memory, x, out, lines = Memory(builder), arguments[0], arguments[5], arguments[6]
        scale, low, high, zero = (splat(builder, value, LANES) for value in arguments[1:5])
        none, nought = ir.Constant(_FLAGS, [0] * LANES), ir.Constant(FLOATS, [0.0] * LANES)
        kind = ir.FunctionType(FLOATS, [FLOATS])
        rounded = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.v{LANES}f32")
        outside, nan = (cgutils.alloca_once_value(builder, none) for _ in range(2))
        with cgutils.for_range(builder, lines) as line:
            start = memory.product(line.index, CODES)
            memory.ask_for(out, memory.sum(start, _AHEAD), BYTE)
            for part in range(CODES // LANES):
                at = memory.sum(start, part * LANES)
                code = builder.call(rounded, [builder.fdiv(memory.load(x, at, FLOATS), scale)])
                below, above = builder.fcmp_ordered("<", code, low), builder.fcmp_ordered(">", code, high)
                missing = builder.fcmp_unordered("uno", code, code)
                for flag, met in ((outside, builder.or_(below, above)), (nan, missing)):
                    builder.store(builder.or_(builder.load(flag), met), flag)
                clamped = builder.select(above, high, builder.select(below, low, code))
                index = builder.fptosi(builder.select(missing, nought, clamped), INTEGERS)
                memory.store(builder.trunc(builder.add(index, zero), _BYTES), out, at)
        whole = ir.IntType(LANES)
        met = [
            builder.icmp_unsigned("!=", builder.bitcast(builder.load(flag), whole), ir.Constant(whole, 0))
            for flag in (outside, nan)
        ]
        return context.make_tuple(builder, signature.return_type, met)

    numbers = types.float32, types.float32, types.float32, types.int32
    return types.UniTuple(types.boolean, 2)(types.intp, *numbers, types.intp, types.intp), build


@intrinsic
def extend(typing, x, lines, first):  # noqa: ARG001
    """The smallest and the largest of ``first`` and of 64·``lines`` float32 numbers at an address, and whether one is a NaN."""

    def build(context, builder, signature, arguments):
        memory, (x, lines, first) = Memory(builder), arguments
        parts = range(CODES // LANES)
        one = splat(builder, first, LANES)
        lows, highs = ([cgutils.alloca_once_value(builder, one) for _ in parts] for _ in range(2))
        nan = cgutils.alloca_once_value(builder, builder.fcmp_unordered("uno", one, one))
        with cgutils.for_range(builder, lines) as line:
            for part, low, high in zip(parts, lows, highs):
                value = memory.load(x, memory.sum(memory.product(line.index, CODES), part * LANES), FLOATS)
                for extreme, comparison in ((low, "<"), (high, ">")):  # single instructions, which pass a NaN over
                    known = builder.load(extreme)
                    more = builder.fcmp_ordered(comparison, value, known)
                    builder.store(builder.select(more, value, known), extreme)
                builder.store(builder.or_(builder.load(nan), builder.fcmp_unordered("uno", value, value)), nan)
        found = [_extreme(builder, lows, "<"), _extreme(builder, highs, ">")]
        whole = ir.IntType(LANES)
        found.append(builder.icmp_unsigned("!=", builder.bitcast(builder.load(nan), whole), ir.Constant(whole, 0)))
        return context.make_tuple(builder, signature.return_type, found)

    result = types.Tuple((types.float32, types.float32, types.boolean))
    return result(types.intp, types.intp, types.float32), build


def _extreme(builder: ir.IRBuilder, vectors: list[ir.Value], comparison: str) -> ir.Value:
    """The smallest or the largest number of some vectors in memory."""
    numbers = [builder.load(vector) for vector in vectors]
    for offset in (8, 4, 2, 1, None):
        while len(numbers) > 1:
            left, right = numbers.pop(), numbers.pop()
            numbers.append(builder.select(builder.fcmp_ordered(comparison, left, right), left, right))
        if offset:
            order = [(lane + offset) % LANES for lane in range(LANES)]
            numbers.append(shuffled(builder, numbers[0], numbers[0], order))
    return builder.extract_element(numbers[0], ir.Constant(ir.IntType(32), 0))
