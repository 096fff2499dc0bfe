"""Pointwise layers through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), where many pixels share few codes; on the CPU.

What one activation adds to all outputs is one row of neighbouring numbers, and each channel has 256 of them: the sums add up
one row for each activation. The gradient goes the other way: the output's gradients of a pixel are added to the rows of
its codes, and only these sums meet the weights. The rank plays no part in the loops over pixels. Results do not depend on
the number of threads.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from spaces.arithmetic.engines.cpu.simd import sum_adder
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.loops import use_threads
from spaces.multipliers.multiplier import SIZE

_ENOUGH = 8  # numbers of a channel's rows for each of its pixels, up to which building or reading the rows pays
_LANES = 16  # outputs at a time
_TOGETHER = 8  # channels at a time
_PIXELS = 1024  # per task
_BLOCK = 128  # pixels whose gradients stay in the nearest cache while all channels take them

_add_rows, _add_row = sum_adder(_LANES, _TOGETHER), sum_adder(_LANES, 1)


def suit(index: Tensor, by_weight: Tensor, geometry: Geometry, engine: str = "auto") -> bool:
    """Whether to do it for codes (N, C, H, W) and weight features (O, R, C/groups, kH, kW).

    "auto": where it is fast; "gather": where it is possible; not for any other engine.
    """
    outputs, _, inner, *kernel = by_weight.shape
    whole = kernel == [1, 1] and geometry == Geometry() and outputs % _LANES == 0 and inner % _TOGETHER == 0
    fast = engine == "auto" and outputs * SIZE <= _ENOUGH * (index.numel() // index.shape[1])
    return whole and index.device.type == "cpu" and (fast or engine == "gather")


def convolve(index: Tensor, u: Tensor, by_weight: Tensor) -> Tensor:
    """The sums (N, O, H, W) float32; ``index`` (N, C, H, W) uint8, ``u`` (R, 256), ``by_weight`` (O, R, C, 1, 1)."""
    x, (outputs, _, channels) = index.permute(0, 2, 3, 1).contiguous(), by_weight.shape[:3]
    rows = torch.empty((channels, SIZE, outputs))  # so that a channel's are neighbours, and stay in the cache
    _rows(u.contiguous().numpy(), by_weight.flatten(2).permute(1, 2, 0).contiguous().numpy(), rows.numpy())
    sums = torch.empty((*x.shape[:3], outputs))
    run = _convolve_together if use_threads(sums.numel()) else _convolve
    run(x.view(-1, channels).numpy(), rows.view(-1).numpy(), outputs, sums.view(-1).numpy())
    return sums.permute(0, 3, 1, 2)


@njit(cache=True, nogil=True)
def _rows(u, v, rows):
    """rows[c, a] = Σ_r u[r, a]·v[r, c]; u (R, 256), v (R, C, O)."""
    for c in range(rows.shape[0]):
        for a in range(rows.shape[1]):
            row = rows[c, a]
            row[:] = 0
            for r in range(v.shape[0]):
                factor, values = u[r, a], v[r, c]
                for o in range(row.size):
                    row[o] += factor * values[o]


@njit(cache=True, nogil=True)
def _convolve(x, rows, outputs, sums):
    sums[:] = 0
    step = SIZE * outputs
    for c in range(0, x.shape[1], _TOGETHER):
        r = c * step
        for p in range(x.shape[0]):
            codes = x[p, c : c + _TOGETHER]
            r0 = r + np.intp(codes[0]) * outputs
            r1 = r + step + np.intp(codes[1]) * outputs
            r2 = r + step * 2 + np.intp(codes[2]) * outputs
            r3 = r + step * 3 + np.intp(codes[3]) * outputs
            r4 = r + step * 4 + np.intp(codes[4]) * outputs
            r5 = r + step * 5 + np.intp(codes[5]) * outputs
            r6 = r + step * 6 + np.intp(codes[6]) * outputs
            r7 = r + step * 7 + np.intp(codes[7]) * outputs
            for o in range(0, outputs, _LANES):
                starts = (r0 + o, r1 + o, r2 + o, r3 + o, r4 + o, r5 + o, r6 + o, r7 + o)
                _add_rows(sums, p * outputs + o, rows, starts)


@njit(cache=True, nogil=True, parallel=True)
def _convolve_together(x, rows, outputs, sums):
    for task in prange((x.shape[0] + _PIXELS - 1) // _PIXELS):
        first, last = task * _PIXELS, min(x.shape[0], (task + 1) * _PIXELS)
        _convolve(x[first:last], rows, outputs, sums[first * outputs : last * outputs])


def table_gradient(index: Tensor, grad: Tensor, by_weight: Tensor) -> Tensor:
    """The gradient for ``u`` (R, 256) of ``convolve``, from that of its output (N, O, H, W)."""
    codes, g = index.permute(0, 2, 3, 1).contiguous(), grad.permute(0, 2, 3, 1).contiguous()
    channels, outputs = codes.shape[3], g.shape[3]
    rows = torch.zeros((channels, SIZE, outputs))
    run = _rows_by_code_together if use_threads(codes.numel()) else _rows_by_code
    run(codes.view(-1, channels).numpy(), g.view(-1).numpy(), outputs, rows.view(-1).numpy())
    return torch.bmm(rows, by_weight.flatten(2).permute(2, 0, 1)).sum(dim=0).t()


@njit(cache=True, nogil=True)
def _add_by_code(x, g, outputs, first, last, c, rows):
    start = c * SIZE * outputs
    for p in range(first, last):
        row = start + np.intp(x[p, c]) * outputs
        for o in range(0, outputs, _LANES):
            _add_row(rows, row + o, g, (p * outputs + o,))


@njit(cache=True, nogil=True)
def _rows_by_code(x, g, outputs, rows):
    for first in range(0, x.shape[0], _BLOCK):
        for c in range(x.shape[1]):
            _add_by_code(x, g, outputs, first, min(x.shape[0], first + _BLOCK), c, rows)


@njit(cache=True, nogil=True, parallel=True)
def _rows_by_code_together(x, g, outputs, rows):
    for c in prange(x.shape[1]):
        _add_by_code(x, g, outputs, 0, x.shape[0], c, rows)
