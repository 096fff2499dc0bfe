"""What the loops over weighted sums of normalised maps do with 128 neighbouring numbers at a time, for numba.

A map (N, H, W, C) is read as one row of numbers, in which every channel comes back after a ``period``, a multiple of 128
and of C; so no loop has to know how many channels there are. Memory is told by its address, as ``memory`` says.
"""

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import FLOATS, LANES, Memory, written

_VECTORS = 8
TOGETHER = _VECTORS * LANES  # numbers

# What is computed of sixteen numbers: those at an offset of maps, and those at another of what is known of each channel.
Term = Callable[[Memory, ir.Value, ir.Value], ir.Value]


def _reduced(term: Callable[..., Term]) -> Callable[..., None]:
    """(totals, periods, period, *addresses): totals[j] += Σ_p term(*addresses) at p·period + j, for j below ``period``."""

    def write(memory: Memory, totals: ir.Value, periods: ir.Value, period: ir.Value, *addresses: ir.Value) -> None:
        builder, own = memory.builder, term(*addresses)
        sums = [cgutils.alloca_once(builder, FLOATS) for _ in range(_VECTORS)]
        with cgutils.for_range(builder, builder.sdiv(period, memory.number(TOGETHER))) as group:
            first = memory.product(group.index, TOGETHER)
            places = [memory.sum(first, vector * LANES) for vector in range(_VECTORS)]
            for place, total in zip(places, sums):
                builder.store(memory.load(totals, place, FLOATS), total)
            with cgutils.for_range(builder, periods) as number:
                start = memory.product(number.index, period)
                for place, total in zip(places, sums):
                    added = own(memory, memory.sum(start, place), place)
                    builder.store(builder.fadd(builder.load(total), added, flags=("contract",)), total)
            for place, total in zip(places, sums):
                memory.store(builder.load(total), totals, place)

    return write


def _mapped(term: Callable[..., Term]) -> Callable[..., None]:
    """(y, periods, period, *addresses): y = term(y, *addresses) at every place."""

    def write(memory: Memory, y: ir.Value, periods: ir.Value, period: ir.Value, *addresses: ir.Value) -> None:
        builder, own = memory.builder, term(y, *addresses)
        with cgutils.for_range(builder, periods) as number:
            start = memory.product(number.index, period)
            with cgutils.for_range(builder, builder.sdiv(period, memory.number(TOGETHER))) as group:
                first = memory.product(group.index, TOGETHER)
                for vector in range(_VECTORS):
                    place = memory.sum(first, vector * LANES)
                    at = memory.sum(start, place)
                    memory.store(own(memory, at, place), y, at)

    return write


def _off(memory: Memory, x: ir.Value, at: ir.Value, mean: ir.Value, place: ir.Value) -> ir.Value:
    return memory.builder.fsub(memory.load(x, at, FLOATS), memory.load(mean, place, FLOATS))


@intrinsic
def add_up(typing, totals, periods, period, x):  # noqa: ARG001
    """totals[j] += Σ_p x[p·period + j]."""
    return written(4, _reduced(lambda x: lambda memory, at, place: memory.load(x, at, FLOATS)))  # noqa: ARG005


@intrinsic
def add_squares(typing, totals, periods, period, x, mean):  # noqa: ARG001
    """totals[j] += Σ_p (x[p·period + j] − mean[j])²."""

    def term(x: ir.Value, mean: ir.Value) -> Term:
        def square(memory: Memory, at: ir.Value, place: ir.Value) -> ir.Value:
            off = _off(memory, x, at, mean, place)
            return memory.builder.fmul(off, off, flags=("contract",))

        return square

    return written(5, _reduced(term))


@intrinsic
def add_products(typing, totals, periods, period, g, x, mean):  # noqa: ARG001
    """totals[j] += Σ_p g[p·period + j]·(x[p·period + j] − mean[j])."""

    def term(g: ir.Value, x: ir.Value, mean: ir.Value) -> Term:
        def product(memory: Memory, at: ir.Value, place: ir.Value) -> ir.Value:
            off = _off(memory, x, at, mean, place)
            return memory.builder.fmul(memory.load(g, at, FLOATS), off, flags=("contract",))

        return product

    return written(6, _reduced(term))


@intrinsic
def add_scaled(typing, y, periods, period, x, mean, factor):  # noqa: ARG001
    """y[p·period + j] += (x[p·period + j] − mean[j])·factor[j]."""

    def term(y: ir.Value, x: ir.Value, mean: ir.Value, factor: ir.Value) -> Term:
        def scaled(memory: Memory, at: ir.Value, place: ir.Value) -> ir.Value:
            off = _off(memory, x, at, mean, place)
            return memory.multiply_add(off, memory.load(factor, place, FLOATS), memory.load(y, at, FLOATS))

        return scaled

    return written(6, _mapped(term))


@intrinsic
def set_scaled(typing, y, periods, period, g, factor):  # noqa: ARG001
    """y[p·period + j] = g[p·period + j]·factor[j]."""

    def term(y: ir.Value, g: ir.Value, factor: ir.Value) -> Term:  # noqa: ARG001
        def scaled(memory: Memory, at: ir.Value, place: ir.Value) -> ir.Value:
            return memory.builder.fmul(memory.load(g, at, FLOATS), memory.load(factor, place, FLOATS))

        return scaled

    return written(5, _mapped(term))


@intrinsic
def set_gradient(typing, y, periods, period, g, x, mean, factor, slope, constant):  # noqa: ARG001
    """y[i] = g[i]·factor[j] + (x[i] − mean[j])·slope[j] + constant[j], where i is p·period + j."""

    def term(y: ir.Value, g: ir.Value, x: ir.Value, *known: ir.Value) -> Term:  # noqa: ARG001
        def gradient(memory: Memory, at: ir.Value, place: ir.Value) -> ir.Value:
            off = _off(memory, x, at, known[0], place)
            factor, slope, constant = (memory.load(each, place, FLOATS) for each in known[1:])
            return memory.multiply_add(memory.load(g, at, FLOATS), factor, memory.multiply_add(off, slope, constant))

        return gradient

    return written(9, _mapped(term))
