"""Pointwise layers through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and the gradient for u; on the CPU.

What one activation adds to all outputs is one row of neighbouring numbers, and each channel has 256 of them: the sums add up
one row for each activation. The gradient goes the other way: the output's gradients of a pixel are added to the rows of
its codes, and only these sums meet the weights. The rank plays no part in the loops over pixels. For few pixels these rows
would take longer than the sums, and push everything else out of the cache: codes meet the weights one by one there.
Results do not depend on the number of threads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from spaces.arithmetic.engines.cpu.depthwise_simd import set_floats
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.memory import LANES, bytes_at, floats_at
from spaces.arithmetic.engines.mixture.pointwise_simd import (
    HALF,
    ROWS,
    SUMS,
    TOGETHER,
    add_by_code,
    add_lanes,
    add_rows,
    feature_adder,
    gather_turns,
    make_rows,
    meet_weights,
    product_adder,
)
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE

_FEW = 2048  # pixels, up to which rows do not pay
_PIXELS = 16384  # per task
_CACHED = 16  # channels whose rows stay in the second-level cache
_CHANNELS = 8  # per task of the gradient

_TOGETHER = 4  # pixels
_add_some, _add_one = add_by_code(TOGETHER), add_by_code(1)
_products_of_some, _products_of_one = product_adder(_TOGETHER), product_adder(1)
_features_of_some, _features_of_one = feature_adder(_TOGETHER), feature_adder(1)
_loop = njit(cache=True, nogil=True, error_model="numpy")


def suit(w_shape: tuple[int, ...], geometry: Geometry, device: torch.device) -> bool:
    """Whether a layer with weights (O, C/groups, kH, kW) computes every pixel by itself, and runs on the CPU."""
    return device.type == "cpu" and geometry.is_pointwise(w_shape[2:])


@dataclass(frozen=True)
class Weights:
    """v_r(ŵ) of a weight (O, C, 1, 1), sixteen outputs at a time, and their scale (O,)."""

    blocks: Tensor  # (O/16, C, R, 16), full of zeros
    scale: Tensor
    outputs: int

    @classmethod
    def of(cls, w_index: Tensor, scale: Tensor, v: Tensor) -> "Weights":
        """For indices (O, C, 1, 1) uint8 and ``v`` (R, 256) float32, contiguous."""
        outputs, channels = w_index.shape[:2]
        blocks = torch.empty((-(-outputs // LANES), channels, len(v), LANES))
        _decode(w_index.data_ptr(), outputs, channels, v.data_ptr(), len(v), blocks.data_ptr())
        return cls(blocks, scale, outputs)


@_loop
def _decode(index, outputs, channels, v, rank, blocks):
    """blocks[o/16, c, r, o%16] = v[r, index[o, c]]."""
    codes, values, decoded = bytes_at(index), floats_at(v), floats_at(blocks)
    place = 0
    for first in range(0, outputs, LANES):
        for c in range(channels):
            for r in range(rank):
                for lane in range(LANES):
                    o = first + lane
                    decoded[place] = values[r * SIZE + codes[o * channels + c]] if o < outputs else np.float32(0)
                    place += 1


def convolve(index: Tensor, u: Tensor, weights: Weights, step: Tensor, constant: Tensor | None = None) -> Tensor:
    """step·scale·Σ u_r(x̂)·v_r(ŵ) + constant, (N, O, H, W) float32.

    ``index`` (N, C, H, W) uint8, ``u`` (R, 256), ``step`` a number's tensor, ``constant`` (O,).
    """
    x, u = pixels_of(index), u.contiguous()
    blocks, channels, rank, _ = weights.blocks.shape
    pixels = x.numel() // channels
    y = torch.empty((*x.shape[:3], weights.outputs))
    scale = weights.scale * step
    constant = torch.zeros_like(scale) if constant is None else constant
    layer = (
        x.data_ptr(), pixels, channels, u.data_ptr(), weights.blocks.data_ptr(), rank, scale.data_ptr(),
        constant.data_ptr(), y.data_ptr(), weights.outputs,
    )  # fmt: skip
    if pixels <= _FEW:
        _convolve_few(*layer)
    else:
        share(_convolve, layer, blocks * -(-pixels // _PIXELS), y.numel())
    return y.permute(0, 3, 1, 2)


@_loop
def _convolve_few(x, pixels, channels, u, blocks, rank, scale, constant, y, outputs):
    for start in range(0, outputs, LANES):
        lanes, own = min(LANES, outputs - start), (scale + 4 * start, constant + 4 * start)
        v = blocks + 4 * start * channels * rank
        whole = pixels // _TOGETHER * _TOGETHER
        for p in range(0, whole, _TOGETHER):
            out = y + 4 * (p * outputs + start)
            _products_of_some(x + p * channels, channels, u, v, rank, own[0], own[1], out, outputs, lanes)
        for p in range(whole, pixels):
            out = y + 4 * (p * outputs + start)
            _products_of_one(x + p * channels, channels, u, v, rank, own[0], own[1], out, outputs, lanes)


@_loop
def _convolve(x, pixels, channels, u, blocks, rank, scale, constant, y, outputs, begin, end):
    """Tasks from ``begin`` to ``end``: sixteen outputs of some pixels each; some channels at a time, with their rows."""
    parts, held = (pixels + _PIXELS - 1) // _PIXELS, -1
    memory = np.empty(min(channels, _CACHED) * ROWS + LANES, dtype=np.float32)
    rows = (memory.ctypes.data + 63) // 64 * 64
    for task in range(begin, end):
        block, first = task // parts, task % parts * _PIXELS
        start, some = block * LANES, min(pixels - first, _PIXELS)
        lanes = min(LANES, outputs - start)
        own = y + 4 * (first * outputs + start)
        for channel in range(0, channels, _CACHED):
            last, wanted = min(channels, channel + _CACHED), channels * block + channel
            if held != wanted:
                held = wanted
                for number in range(last - channel):
                    make_rows(u, blocks + 4 * LANES * rank * (wanted + number), rank, rows + 4 * ROWS * number)
            add_rows(
                x + first * channels + channel, some, channels, last - channel, rows, scale + 4 * start,
                constant + 4 * start, own, outputs, lanes, int(channel == 0), int(last == channels),
            )  # fmt: skip
    memory[0] = 0  # to here it must be kept


def table_gradient(index: Tensor, grad: Tensor, weights: Weights, often: int) -> Tensor:
    """The gradient for ``u`` (R, 256) of ``convolve`` with a step of 1, from that of its output (N, O, H, W).

    It is faster if ``often`` is the most frequent code, which after a rectifier is that of zero.
    """
    x, g = pixels_of(index), pixels_of(grad)
    blocks, channels, rank, _ = weights.blocks.shape
    pixels = x.numel() // channels
    if pixels <= _FEW and rank <= HALF:
        of_few = torch.empty((rank, SIZE))
        _table_gradient_of_few(
            x.data_ptr(), pixels, channels, g.data_ptr(), weights.outputs, weights.blocks.data_ptr(),
            weights.scale.data_ptr(), rank, of_few.data_ptr(),
        )  # fmt: skip
        return of_few
    tasks = blocks * -(-channels // _CHANNELS)
    sums = torch.empty((tasks, rank, SIZE))
    layer = (
        x.data_ptr(), pixels, channels, g.data_ptr(), weights.outputs, weights.blocks.data_ptr(),
        weights.scale.data_ptr(), rank, often, sums.data_ptr(),
    )  # fmt: skip
    share(_table_gradient, layer, tasks, x.numel())
    return sums[0] if tasks == 1 else sums.sum(dim=0)


@_loop
def _table_gradient(x, pixels, channels, g, outputs, blocks, scale, rank, often, sums, begin, end):
    """Tasks from ``begin`` to ``end``: some channels with sixteen outputs each."""
    parts = (channels + _CHANNELS - 1) // _CHANNELS
    memory = np.empty(TOGETHER * SUMS + rank * ROWS + LANES, dtype=np.float32)
    rows = (memory.ctypes.data + 63) // 64 * 64
    totals = rows + 4 * TOGETHER * SUMS
    for task in range(begin, end):
        block, first = task // parts, task % parts * _CHANNELS
        start, last = block * LANES, min(channels, first + _CHANNELS)
        lanes = min(LANES, outputs - start)
        set_floats(totals, rank * ROWS)
        channel = first
        while channel < last:
            some = TOGETHER if last - channel >= TOGETHER else 1
            set_floats(rows, some * SUMS)
            if some == TOGETHER:
                _add_some(x + channel, pixels, channels, often, g + 4 * start, outputs, lanes, rows)
            else:
                _add_one(x + channel, pixels, channels, often, g + 4 * start, outputs, lanes, rows)
            for number in range(some):
                own = blocks + 4 * LANES * rank * (block * channels + channel + number)
                gather_turns(rows + 4 * SUMS * number, often)
                meet_weights(rows + 4 * SUMS * number, own, scale + 4 * start, lanes, rank, totals)
            channel += some
        add_lanes(totals, sums + 4 * SIZE * rank * task, rank * SIZE // LANES)
    memory[0] = 0  # to here it must be kept


@_loop
def _table_gradient_of_few(x, pixels, channels, g, outputs, blocks, scale, rank, gradient):
    even = channels + channels % 2
    memory = np.zeros((outputs * even + SIZE) * HALF, dtype=np.float32)
    weights, sums = memory.ctypes.data, memory.ctypes.data + 4 * outputs * even * HALF
    decoded, scales = floats_at(blocks), floats_at(scale)
    for o in range(outputs):
        for c in range(channels):
            own = (o // LANES * channels + c) * rank * LANES + o % LANES
            for r in range(rank):
                memory[(o * even + c) * HALF + r] = decoded[own + r * LANES] * scales[o]
    whole = pixels // _TOGETHER * _TOGETHER
    for p in range(0, whole, _TOGETHER):
        _features_of_some(x + p * channels, channels, g + 4 * p * outputs, outputs, weights, sums)
    for p in range(whole, pixels):
        _features_of_one(x + p * channels, channels, g + 4 * p * outputs, outputs, weights, sums)
    results, first = floats_at(gradient), outputs * even * HALF
    for r in range(rank):
        for code in range(SIZE):
            results[r * SIZE + code] = memory[first + code * HALF + r]
