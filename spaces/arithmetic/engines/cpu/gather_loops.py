"""Loops that look products up, compiled with numba.

x is flat; output pixel p sees tap k at x[base[p] + offset[k]]. w (K, O) holds the weight index of tap k and output o. All
memory is told by its address; entries of the table have two or four bytes.
"""

from typing import NamedTuple

import numpy as np
from numba import carray, njit

from spaces.arithmetic.engines.memory import bytes_at, halves_at, integers_at, wholes_at
from spaces.multipliers.multiplier import SIZE

CHUNK = 8192  # output pixels per task: their sums stay in the second-level cache
_TAPS = 8  # kernel taps that one pass of ``gather_rows`` adds up in registers

_loop = njit(cache=True, nogil=True)
_part = njit(nogil=True)


class Layer(NamedTuple):
    """The numbers of one convolution."""

    pixels: int  # of the output
    taps: int
    outputs: int
    between: int  # numbers from a pixel's sums to those of the next
    chunk: int  # pixels per task
    entry: int  # bytes of a product
    groups: int = 1
    inner: int = 0  # channels of a group


@_part
def _build_rows(columns, w, outputs, rows):
    """rows[j, a, o] = table[a, w[j, o]]: what an activation a adds to all outputs at once."""
    for j in range(rows.shape[0]):
        for first in range(0, SIZE, 32):  # so many rows stay in the first-level cache
            for o in range(outputs):
                column = columns[w[j * outputs + o]]
                for a in range(first, first + 32):
                    rows[j, a, o] = column[a]


@_part
def _add_eight(x, base, offset, rows, sums, between):
    for p in range(base.size):
        b, own = base[p], p * between
        r0, r1, r2, r3 = (
            rows[0, x[b + offset[0]]],
            rows[1, x[b + offset[1]]],
            rows[2, x[b + offset[2]]],
            rows[3, x[b + offset[3]]],
        )
        r4, r5, r6, r7 = (
            rows[4, x[b + offset[4]]],
            rows[5, x[b + offset[5]]],
            rows[6, x[b + offset[6]]],
            rows[7, x[b + offset[7]]],
        )
        for o in range(rows.shape[2]):
            sums[own + o] += np.int32(r0[o]) + r1[o] + r2[o] + r3[o] + r4[o] + r5[o] + r6[o] + r7[o]


@_part
def _add_one(x, base, offset, rows, sums, between):
    for p in range(base.size):
        row, own = rows[x[base[p] + offset]], p * between
        for o in range(rows.shape[1]):
            sums[own + o] += row[o]


@_part
def _gather_rows(x, base, offset, columns, w, out, layer, begin, end):
    rows = np.empty((_TAPS, SIZE, layer.outputs), columns.dtype)
    for task in range(begin, end):
        start, last = task * layer.chunk, min(layer.pixels, (task + 1) * layer.chunk)
        part, sums = base[start:last], integers_at(out + 4 * start * layer.between)
        for p in range(last - start):
            for o in range(layer.outputs):
                sums[p * layer.between + o] = np.int32(0)
        for first in range(0, layer.taps, _TAPS):
            some = min(_TAPS, layer.taps - first)
            _build_rows(columns, bytes_at(w + first * layer.outputs), layer.outputs, rows[:some])
            if some == _TAPS:
                _add_eight(x, part, offset[first : first + _TAPS], rows, sums, layer.between)
            else:
                for k in range(some):
                    _add_one(x, part, offset[first + k], rows[k], sums, layer.between)


@_loop
def gather_rows(x, base, offset, columns, w, out, layer, begin, end):
    """out[p, o] = Σ_k table[x[base[p] + offset[k]], w[k, o]] for tasks from ``begin`` to ``end``.

    For eight taps at a time the table's columns that the weights select are laid side by side; then each activation
    picks one contiguous row, and rows are added up as vectors: one look-up of an activation serves all outputs. This is
    exact for every table.
    """
    first, reach = carray(wholes_at(base), layer.pixels), carray(wholes_at(offset), layer.taps)
    if layer.entry == 2:
        _gather_rows(bytes_at(x), first, reach, carray(halves_at(columns), (SIZE, SIZE)), w, out, layer, begin, end)
    else:
        _gather_rows(bytes_at(x), first, reach, carray(integers_at(columns), (SIZE, SIZE)), w, out, layer, begin, end)


@_part
def _gather_products(x, base, offset, table, w, out, layer, begin, end):
    for p in range(begin * layer.chunk, min(layer.pixels, end * layer.chunk)):
        for o in range(layer.outputs):
            start = base[p] + o // (layer.outputs // layer.groups) * layer.inner
            total = np.int32(0)
            for k in range(layer.taps):
                total += table[np.intp(x[start + offset[k]]) * SIZE + w[k * layer.outputs + o]]
            out[p * layer.between + o] = total


@_loop
def gather_products(x, base, offset, table, w, out, layer, begin, end):
    """The same sums of all groups, product by product in the order of the definition."""
    where, sums = (bytes_at(x), wholes_at(base), wholes_at(offset)), integers_at(out)
    if layer.entry == 2:
        _gather_products(*where, halves_at(table), bytes_at(w), sums, layer, begin, end)
    else:
        _gather_products(*where, integers_at(table), bytes_at(w), sums, layer, begin, end)
