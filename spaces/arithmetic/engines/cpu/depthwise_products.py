"""What the loops over depthwise layers multiply and add up, sixteen channels at a time, for numba.

A row of features has sixteen numbers for each pixel. For the windows that networks have, the taps of a kernel's row are written
out one by one: eight neighbouring pixels then share the features that their windows have in common. Memory is told by its
address, as ``memory`` says.
"""

import itertools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from spaces.arithmetic.engines.memory import FLOATS, INTEGERS, LANES, NOTHING, WHOLE, has_dot_products, written

PIXELS = 8  # that are added up side by side
WINDOWS = tuple(itertools.product((3, 5), (1, 2), (1, 2)))  # columns, and stride and dilation between them, written out
ANY = len(WINDOWS)  # the number of all other windows
_ADDITIONS = 8  # to different sums, from which none waits for the one before


def window_number(columns: int, stride: int, dilation: int) -> int:
    """Where among ``WINDOWS`` a row of a kernel is, or ``ANY``."""
    shape = (columns, stride, dilation)
    return WINDOWS.index(shape) if shape in WINDOWS else ANY


def _row_multiplier(words: bool) -> Callable[..., Any]:
    """multiply(window, sums, features, plane, weights, rank, taps, step, gap, tiles): what a row of features adds to sums.

    sums[16p + l] += Σ_rk features[r·plane + p·step + k·gap + l] · weights[(r·taps + k)·16 + l] for 8·``tiles`` pixels p,
    ``rank`` values r, ``taps`` taps k and 16 channels l; ``window`` is the number of what taps, step and gap are. With
    ``words``, features and weights are four bytes each, unsigned and signed, and the sums those of their products.
    """

    @intrinsic
    def multiply(typing, window, sums, features, plane, weights, rank, taps, step, gap, tiles):  # noqa: ARG001
        def write(memory, window, sums, features, plane, weights, rank, taps, step, gap, tiles):
            if words and not has_dot_products():
                return
            kind, add = (INTEGERS, memory.dot_products) if words else (FLOATS, memory.multiply_add)

            def write_for(shape):
                known = None if shape is None else (shape[0], shape[1] * LANES, shape[2] * LANES)
                moves = (taps, step, gap) if known is None else tuple(memory.number(number) for number in known)
                _multiply_row(memory, kind, add, sums, features, plane, weights, rank, moves, tiles, known)

            _for_each_window(memory.builder, window, write_for)

        return written(10, write)

    return multiply


multiply_numbers, multiply_words = _row_multiplier(words=False), _row_multiplier(words=True)


def _multiply_row(memory, kind, add, sums, features, plane, weights, rank, moves, tiles, known):
    """``moves``: taps, step and gap; ``known``: the same as plain numbers, if they are written out."""
    builder, (taps, step, gap) = memory.builder, moves
    totals = [cgutils.alloca_once(builder, kind) for _ in range(PIXELS)]

    def add_tap(weight: ir.Value, values: list[ir.Value]) -> None:
        for value, total in zip(values, totals):
            builder.store(add(value, weight, builder.load(total)), total)

    with cgutils.for_range(builder, tiles) as tile:
        own = memory.product(tile.index, PIXELS * LANES)
        seen = memory.product(memory.product(tile.index, PIXELS), step)
        for pixel, total in enumerate(totals):
            builder.store(memory.load(sums, memory.sum(own, pixel * LANES), kind), total)
        with cgutils.for_range(builder, rank) as feature:
            first = memory.sum(seen, memory.product(feature.index, plane))
            place = memory.product(memory.product(feature.index, taps), LANES)
            if known:
                loaded = _Loaded(memory, features, first, kind)
                for tap in range(known[0]):
                    weight = memory.load(weights, memory.sum(place, tap * LANES), kind)
                    add_tap(weight, [loaded.at(pixel * known[1] + tap * known[2]) for pixel in range(PIXELS)])
            else:
                with cgutils.for_range(builder, taps) as tap:
                    weight = memory.load(weights, memory.sum(place, memory.product(tap.index, LANES)), kind)
                    start = memory.sum(first, memory.product(tap.index, gap))
                    places = [memory.sum(start, memory.product(step, pixel)) for pixel in range(PIXELS)]
                    add_tap(weight, [memory.load(features, at, kind) for at in places])
        for pixel, total in enumerate(totals):
            memory.store(builder.load(total), sums, memory.sum(own, pixel * LANES))


@intrinsic
def correlate(typing, window, sums, features, plane, rank, taps, step, gap, grads, between, tiles):  # noqa: ARG001
    """sums[(r·taps + k)·16 + l] += Σ_p features[r·plane + p·step + k·gap + l] · grads[p·between + l].

    For 8·``tiles`` pixels p, ``rank`` values r, ``taps`` taps k and 16 channels l; ``window`` as for the multipliers.
    """

    def write(memory, window, sums, features, plane, rank, taps, step, gap, grads, between, tiles):
        def write_for(shape):
            if shape is None:
                _correlate_each(memory, sums, features, plane, rank, taps, step, gap, grads, between, tiles)
            else:
                _correlate_known(memory, sums, features, plane, rank, shape, grads, between, tiles)

        _for_each_window(memory.builder, window, write_for)

    return written(11, write)


def _correlate_known(memory, sums, features, plane, rank, shape, grads, between, tiles):
    builder, (taps, step, gap) = memory.builder, (shape[0], shape[1] * LANES, shape[2] * LANES)
    turns = -(-_ADDITIONS // taps)
    totals = [[cgutils.alloca_once(builder, FLOATS) for _ in range(turns)] for _ in range(taps)]
    with cgutils.for_range(builder, rank) as feature:
        for total in itertools.chain(*totals):
            builder.store(NOTHING, total)
        with cgutils.for_range(builder, tiles) as tile:
            pixel = memory.product(tile.index, PIXELS)
            first = memory.sum(memory.product(feature.index, plane), memory.product(pixel, step))
            loaded = _Loaded(memory, features, first, FLOATS)
            for number in range(PIXELS):
                grad = memory.load(grads, memory.product(memory.sum(pixel, number), between), FLOATS)
                for tap in range(taps):
                    total = totals[tap][number % turns]
                    value = loaded.at(number * step + tap * gap)
                    builder.store(memory.multiply_add(value, grad, builder.load(total)), total)
        place = memory.product(feature.index, taps * LANES)
        for tap in range(taps):
            parts = [builder.load(total) for total in totals[tap]]
            _add_to(memory, sums, memory.sum(place, tap * LANES), parts)


def _correlate_each(memory, sums, features, plane, rank, taps, step, gap, grads, between, tiles):
    """A tile's gradients are held, and meet all taps one after the other."""
    builder = memory.builder
    with cgutils.for_range(builder, tiles) as tile:
        pixel = memory.product(tile.index, PIXELS)
        places = [memory.sum(pixel, number) for number in range(PIXELS)]
        held = [memory.load(grads, memory.product(place, between), FLOATS) for place in places]
        with cgutils.for_range(builder, rank) as feature, cgutils.for_range(builder, taps) as tap:
            start = memory.sum(memory.product(feature.index, plane), memory.product(tap.index, gap))
            parts: list[ir.Value] = []
            for place, grad in zip(places, held):
                value = memory.load(features, memory.sum(start, memory.product(step, place)), FLOATS)
                if len(parts) < PIXELS // 2:
                    parts.append(builder.fmul(value, grad))
                else:
                    parts.append(memory.multiply_add(value, grad, parts.pop(0)))
            place = memory.sum(memory.product(feature.index, taps), tap.index)
            _add_to(memory, sums, memory.product(place, LANES), parts)


def _add_to(memory, sums, at, parts):
    """sums[at + l] += the sum of all parts."""
    builder = memory.builder
    while len(parts) > 1:
        parts = [builder.fadd(*pair) for pair in zip(parts[::2], parts[1::2])] + parts[len(parts) // 2 * 2 :]
    memory.store(builder.fadd(memory.load(sums, at, FLOATS), parts[0]), sums, at)


class _Loaded:
    """Features at places from some first one on, each read once."""

    def __init__(self, memory: Any, features: ir.Value, first: ir.Value, kind: ir.Type) -> None:
        self._known: dict[int, ir.Value] = {}
        self._read = lambda at: memory.load(features, memory.sum(first, at), kind)

    def at(self, place: int) -> ir.Value:
        if place not in self._known:
            self._known[place] = self._read(place)
        return self._known[place]


def _for_each_window(builder: ir.IRBuilder, window: ir.Value, write: Callable[[tuple[int, ...] | None], None]) -> None:
    """What ``write`` writes for the window of that number, and for None where it is any other."""
    blocks = [builder.append_basic_block(f"window{number}") for number in range(len(WINDOWS) + 1)]
    end = builder.append_basic_block("written")
    switch = builder.switch(window, blocks[-1])
    for number, (block, shape) in enumerate(zip(blocks, [*WINDOWS, None])):
        if shape is not None:
            switch.add_case(ir.Constant(WHOLE, number), block)
        builder.position_at_end(block)
        write(shape)
        builder.branch(end)
    builder.position_at_end(end)
