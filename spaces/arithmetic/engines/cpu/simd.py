"""Additions of a few neighbouring numbers at a time, for numba's loops.

A loop over so few numbers, whose arrays might overlap for all that the compiler knows, is several times slower. The
vectors are LLVM's own, which it translates for every processor.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


def window_adder(lanes: int, lines: int) -> Callable[..., Any]:
    """add(target, start, source, first, step): adds ``lines`` stretches of ``source``, a step apart, side by side.

    target[start + i·lanes + k] += source[first + i·step + k] for i < lines, k < lanes; for flat contiguous float32 arrays
    that do not overlap. Nothing is checked.
    """

    @intrinsic
    def add(typing, target, start, source, first, step):  # noqa: ARG001
        def build(context, builder, signature, arguments):
            target, start, source, first, step = arguments
            for line in range(lines):
                seen = builder.add(first, builder.mul(step, ir.Constant(step.type, line)))
                part = builder.load(_place(context, builder, signature.args[2], source, seen, lanes), align=4)
                row = builder.add(start, ir.Constant(start.type, line * lanes))
                _add_to(builder, _place(context, builder, signature.args[0], target, row, lanes), part)
            return context.get_dummy_value()

        return types.void(target, types.intp, source, types.intp, types.intp), build

    return add


def _place(
    context: BaseContext, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, start: ir.Value, lanes: int
) -> ir.Value:
    """Where array[start] begins, as the address of a vector."""
    first = builder.gep(make_array(kind)(context, builder, array).data, [start])
    return builder.bitcast(first, ir.VectorType(ir.FloatType(), lanes).as_pointer())


def _add_to(builder: ir.IRBuilder, place: ir.Value, part: ir.Value) -> None:
    builder.store(builder.fadd(builder.load(place, align=4), part), place, align=4)
