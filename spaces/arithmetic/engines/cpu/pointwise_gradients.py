"""The gradients of pointwise layers, straight from the codes; on the CPU.

Both gradients of a tile of pixels are computed while its part of the output's gradients is in the nearest cache: sixteen
input channels to a vector, eight pixels or eight outputs side by side. Results do not depend on the number of threads.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from spaces.arithmetic.engines.cpu.depthwise_simd import set_floats
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.memory import (
    BYTE,
    FLOAT,
    FLOATS,
    INTEGER,
    INTEGERS,
    LANES,
    NOTHING,
    Memory,
    bytes_at,
    floats_at,
    has_wide_vectors,
    splat,
    written,
)
from spaces.arithmetic.engines.threads import share

_TOGETHER = 8  # pixels, or outputs
_TILE = 64  # pixels
_TASK = 512  # pixels, or more where sums of all tasks would be many
_CHANNELS = 64  # per task
_MANY = 1 << 20  # numbers
_WIDE = has_wide_vectors()
_MOST = 1 << 16  # weights, where vectors are half as wide: of 512 by 512 the library's products were faster


def suits(device: torch.device, w_shape: torch.Size, geometry: Geometry) -> bool:
    """Whether a layer with weights (O, C/groups, kH, kW) is a product of matrices on the CPU, and this is fast for it."""
    return device.type == "cpu" and geometry.is_pointwise(w_shape[2:]) and (_WIDE or w_shape[0] * w_shape[1] <= _MOST)


def product_gradients(
    grad: Tensor, index: Tensor, step: Tensor, line: Tensor | None, w_index: Tensor, w_scale: Tensor, values: Tensor | None,
    clamped: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of a 1×1 convolution for its input (N, C, H, W) and its weight (O, C, 1, 1), from that of its output.

    ``grad`` (N, O, H, W) float32. Activations are step·line[index], with ``index`` (N, C, H, W) uint8 and a ``line`` (256,) of
    integers that follow each other; without one, no gradient is computed for the weight. Weights are values[w_index]·w_scale,
    with ``w_index`` (O, C, 1, 1) uint8, ``values`` (256,) and ``w_scale`` (O,); without ``values``, none is computed for the
    input. That one is zero where the input was ``clamped`` (N, C, H, W) uint8. All but the maps are contiguous.
    """
    g, x = pixels_of(grad), pixels_of(index)
    (*size, channels), outputs = x.shape, g.shape[3]
    pixels = x.numel() // channels
    room = max(1, _MANY // (outputs * -(-channels // LANES) * LANES))  # for sums of so many parts of the pixels
    task = max(_TASK, -(-pixels // (room * _TILE)) * _TILE)
    parts = max(1, -(-pixels // task))
    grad_x = None if values is None else torch.empty((*size, channels))
    grad_w = None if line is None else torch.empty(w_index.shape)
    sums = None if line is None else torch.empty((parts, outputs, -(-channels // LANES) * LANES))
    met = None if clamped is None else pixels_of(clamped)
    arguments = (
        g.data_ptr(), x.data_ptr(), _address(met), pixels, task, outputs, channels, _address(line), w_index.data_ptr(),
        _address(values), w_scale.data_ptr(), _address(grad_x), _address(sums),
    )  # fmt: skip
    share(_gradients, arguments, parts * -(-channels // _CHANNELS), pixels * max(outputs, channels))
    if grad_w is not None and sums is not None:
        _add_up(sums.data_ptr(), parts, outputs, channels, np.float32(step), grad_w.data_ptr())
    return None if grad_x is None else grad_x.permute(0, 3, 1, 2), grad_w


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


# -- sixteen channels at a time ----------------------------------------------------------------------------------------


def _input_adder(pixels: int) -> Callable[..., Any]:
    """add(g, outputs, weights, pitch, clamped, grad_x, channels, lanes): the input's gradients of so many pixels.

    grad_x[p·channels + l] = Σ_o g[p·outputs + o]·weights[o·pitch + l] for ``lanes`` l, 0 where clamped[p·channels + l] is
    not; there is no such memory where ``clamped`` is 0.
    """

    @intrinsic
    def add(typing, g, outputs, weights, pitch, clamped, grad_x, channels, lanes):  # noqa: ARG001
        def write(memory, g, outputs, weights, pitch, clamped, grad_x, channels, lanes):
            builder = memory.builder
            totals = [cgutils.alloca_once(builder, FLOATS) for _ in range(pixels)]
            for total in totals:
                builder.store(NOTHING, total)
            with cgutils.for_range(builder, outputs) as output:
                values = memory.load(weights, memory.product(output.index, pitch), FLOATS)
                for pixel, total in enumerate(totals):
                    at = memory.sum(output.index, memory.product(outputs, pixel))
                    factor = splat(builder, memory.load(g, at, FLOAT), LANES)
                    builder.store(memory.multiply_add(factor, values, builder.load(total)), total)
            mask = memory.first_lanes(lanes)
            with builder.if_then(builder.icmp_signed("!=", clamped, memory.number(0))):
                for pixel, total in enumerate(totals):
                    met = _codes(memory, clamped, memory.product(channels, pixel), mask)
                    inside = builder.icmp_signed("==", met, ir.Constant(INTEGERS, [0] * LANES))
                    builder.store(builder.select(inside, builder.load(total), NOTHING), total)
            for pixel, total in enumerate(totals):
                at = memory.product(channels, pixel)
                memory.ask_for(grad_x, memory.sum(at, memory.product(channels, _AHEAD)), FLOAT)
                memory.store_some(builder.load(total), grad_x, at, mask)

        return written(8, write)

    return add


_AHEAD = 16  # pixels, whose lines of memory are asked for


@intrinsic
def _decode(typing, x, channels, pixels, lanes, offset, decoded):  # noqa: ARG001
    """decoded[16p + l] = x[p·channels + l] + offset as float32, for ``pixels`` p and ``lanes`` l, and anything beyond."""

    def write(memory, x, channels, pixels, lanes, offset, decoded):
        builder = memory.builder
        mask, added = memory.first_lanes(lanes), splat(builder, builder.trunc(offset, INTEGER), LANES)
        with cgutils.for_range(builder, pixels) as pixel:
            codes = _codes(memory, x, memory.product(pixel.index, channels), mask)
            values = builder.sitofp(builder.add(codes, added), FLOATS)
            memory.store(values, decoded, memory.product(pixel.index, LANES))

    return written(6, write)


def _weight_adder(outputs: int) -> Callable[..., Any]:
    """add(x, g, between, pixels, sums, pitch): the gradients of so many outputs' weights.

    sums[o·pitch + l] += Σ_p g[p·between + o]·x[16p + l] for ``pixels`` p and sixteen l.
    """

    @intrinsic
    def add(typing, x, g, between, pixels, sums, pitch):  # noqa: ARG001
        def write(memory, x, g, between, pixels, sums, pitch):
            builder = memory.builder
            places = [memory.product(pitch, output) for output in range(outputs)]
            totals = [cgutils.alloca_once(builder, FLOATS) for _ in places]
            for total in totals:
                builder.store(NOTHING, total)
            with cgutils.for_range(builder, pixels) as pixel:
                values = memory.load(x, memory.product(pixel.index, LANES), FLOATS)
                first = memory.product(pixel.index, between)
                for output, total in enumerate(totals):
                    factor = splat(builder, memory.load(g, memory.sum(first, output), FLOAT), LANES)
                    builder.store(memory.multiply_add(factor, values, builder.load(total)), total)
            for place, total in zip(places, totals):  # not added to what is there one by one, so that sums stay short
                memory.store(builder.fadd(memory.load(sums, place, FLOATS), builder.load(total)), sums, place)

        return written(6, write)

    return add


def _codes(memory: Memory, address: ir.Value, at: ir.Value, mask: ir.Value) -> ir.Value:
    """Those of sixteen bytes that a mask has, as integers."""
    return memory.builder.zext(memory.load_some(address, at, mask, BYTE), INTEGERS)


_input_of_some, _input_of_one = _input_adder(_TOGETHER), _input_adder(1)
_weights_of_some, _weights_of_one = _weight_adder(_TOGETHER), _weight_adder(1)


# -- loops -------------------------------------------------------------------------------------------------------------


_loop = njit(cache=True, nogil=True, error_model="numpy")


@_loop
def _gradients(
    g, x, clamped, pixels, task, outputs, channels, line, w_index, values, w_scale, grad_x, sums, begin, end
):
    """Tasks from ``begin`` to ``end``, of ``task`` pixels and some channels each.

    g (P, O), x and clamped (P, C), grad_x (P, C), and sums (parts, O, C in whole vectors), the last three or 0.
    """
    pitch, parts = (channels + LANES - 1) // LANES * LANES, max(1, (pixels + task - 1) // task)
    memory = np.empty(outputs * pitch + _TILE * LANES + LANES, dtype=np.float32)
    weights = (memory.ctypes.data + 63) // 64 * 64
    decoded = weights + 4 * outputs * pitch
    offset = np.intp(floats_at(line)[0]) if line else 0
    if grad_x:
        _decode_weights(w_index, outputs, channels, values, w_scale, pitch, weights)
    for number in range(begin, end):
        part, begun = number % parts, number // parts * _CHANNELS
        last, ended = min(pixels, (part + 1) * task), min(channels, begun + _CHANNELS)
        own = sums + 4 * outputs * pitch * part
        for o in range(outputs if sums else 0):
            set_floats(own + 4 * (o * pitch + begun), (ended - begun + LANES - 1) // LANES * LANES)
        for first in range(part * task, last, _TILE):
            some, pull = min(_TILE, last - first), g + 4 * first * outputs
            whole, full = some // _TOGETHER * _TOGETHER, outputs // _TOGETHER * _TOGETHER
            for channel in range(begun, ended, LANES):
                lanes, at, w = min(LANES, channels - channel), first * channels + channel, weights + 4 * channel
                if grad_x:
                    for p in range(0, whole, _TOGETHER):
                        met, target = clamped + at + p * channels if clamped else 0, grad_x + 4 * (at + p * channels)
                        _input_of_some(pull + 4 * p * outputs, outputs, w, pitch, met, target, channels, lanes)
                    for p in range(whole, some):
                        met, target = clamped + at + p * channels if clamped else 0, grad_x + 4 * (at + p * channels)
                        _input_of_one(pull + 4 * p * outputs, outputs, w, pitch, met, target, channels, lanes)
                if sums:
                    _decode(x + at, channels, some, lanes, offset, decoded)
                    for o in range(0, full, _TOGETHER):
                        _weights_of_some(decoded, pull + 4 * o, outputs, some, own + 4 * (o * pitch + channel), pitch)
                    for o in range(full, outputs):
                        _weights_of_one(decoded, pull + 4 * o, outputs, some, own + 4 * (o * pitch + channel), pitch)
    memory[0] = 0  # to here it must be kept


@njit(inline="always")
def _decode_weights(w_index, outputs, channels, values, w_scale, pitch, weights):
    """weights[o, c] = values[w_index[o, c]]·w_scale[o], (O, C in whole vectors)."""
    codes, known, scales, target = bytes_at(w_index), floats_at(values), floats_at(w_scale), floats_at(weights)
    for o in range(outputs):
        for c in range(pitch):
            target[o * pitch + c] = known[codes[o * channels + c]] * scales[o] if c < channels else np.float32(0)


@_loop
def _add_up(sums, parts, outputs, channels, step, grad_w):
    """grad_w[o, c] = step·Σ over parts of the pixels."""
    found, results = floats_at(sums), floats_at(grad_w)
    pitch = (channels + LANES - 1) // LANES * LANES
    for o in range(outputs):
        for c in range(channels):
            total = np.float32(0)
            for part in range(parts):
                total += found[(part * outputs + o) * pitch + c]
            results[o * channels + c] = total * step
