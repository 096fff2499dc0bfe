"""Loops that look products up, compiled with numba.

x is flat; output pixel p sees tap k at x[base[p] + offset[k]]. w (K, O) holds the weight index of tap k and output o.
"""

import numpy as np
from numba import njit, prange

CHUNK = 8192  # output pixels per task: their sums stay in the second-level cache
_TAPS = 8  # kernel taps that one pass of ``gather_rows`` adds up in registers


@njit(cache=True, nogil=True)
def _build_rows(columns, w, taps, rows):
    """rows[j, a, o] = table[a, w[taps + j, o]]: what an activation a adds to all outputs at once."""
    for j in range(rows.shape[0]):
        for first in range(0, 256, 32):  # so many rows stay in the first-level cache
            for o in range(w.shape[1]):
                column = columns[w[taps + j, o]]
                for a in range(first, first + 32):
                    rows[j, a, o] = column[a]


@njit(cache=True, nogil=True)
def _add_eight(x, base, offset, rows, sums):
    for p in range(base.size):
        b = base[p]
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
        for o in range(sums.shape[1]):
            sums[p, o] += np.int32(r0[o]) + r1[o] + r2[o] + r3[o] + r4[o] + r5[o] + r6[o] + r7[o]


@njit(cache=True, nogil=True)
def _add_one(x, base, offset, rows, sums):
    for p in range(base.size):
        row = rows[x[base[p] + offset]]
        for o in range(sums.shape[1]):
            sums[p, o] += row[o]


@njit(cache=True, nogil=True, parallel=True)
def gather_rows(x, base, offset, columns, w, out, chunk):
    """out[p, o] = Σ_k table[x[base[p] + offset[k]], w[k, o]]: one look-up of an activation serves all outputs.

    For eight taps at a time the table's columns that the weights select are laid side by side; then each activation
    picks one contiguous row, and rows are added up as vectors. This is exact for every table.
    """
    pixels, taps, outputs = base.size, w.shape[0], w.shape[1]
    for task in prange((pixels + chunk - 1) // chunk):
        part = slice(task * chunk, min(pixels, (task + 1) * chunk))
        sums = out[part]
        sums[:] = 0
        rows = np.empty((_TAPS, 256, outputs), columns.dtype)
        first = 0
        while first + _TAPS <= taps:
            _build_rows(columns, w, first, rows)
            _add_eight(x, base[part], offset[first : first + _TAPS], rows, sums)
            first += _TAPS
        _build_rows(columns, w, first, rows[: taps - first])
        for k in range(first, taps):
            _add_one(x, base[part], offset[k], rows[k - first], sums)


@njit(cache=True, nogil=True, parallel=True)
def gather_products(x, base, offset, groups, inner, table, w, out, chunk):
    """The same sums of all groups, product by product in the order of the definition; ``inner`` channels a group."""
    pixels, taps, outputs = base.size, w.shape[0], w.shape[1]
    for task in prange((pixels + chunk - 1) // chunk):
        for p in range(task * chunk, min(pixels, (task + 1) * chunk)):
            for o in range(outputs):
                start = base[p] + o // (outputs // groups) * inner
                total = np.int32(0)
                for k in range(taps):
                    total += table[x[start + offset[k]], w[k, o]]
                out[p, o] = total
