"""Codes of 64 activations at a time, for numba's loops.

Written out, since lines of the codes' memory have to be asked for early: where they are not in the cache, storing codes took
three times as long as computing them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import BYTE, CODES, FLOATS, INTEGERS, LANES, Memory, splat

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
