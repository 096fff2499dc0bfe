"""Loops that turn numbers into codes, compiled with numba. Tensors are dense; what lies in which order plays no part."""

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from spaces.arithmetic.engines.memory import CODES, bytes_at, floats_at, halves_at, integers_at
from spaces.arithmetic.engines.quantise_simd import extend, quantise_lines
from spaces.arithmetic.engines.threads import share
from spaces.errors import InputError

_BLOCK = 32768  # elements per task: some ten microseconds of work


# -- activations -------------------------------------------------------------------------------------------------------


CLAMPED, NAN = 1, 2  # what ``quantise`` met


def quantise(x: Tensor, scale: float, low: int, high: int, zero: int, out: Tensor) -> int:
    """out = clamp(round(x / scale), low, high) + zero. Returns CLAMPED | NAN if met.

    x float32 and out uint8 are dense and lie in the same order.
    """
    count = x.numel()
    if count <= _BLOCK:
        return _quantise_block(x.data_ptr(), count, float(scale), float(low), float(high), zero, out.data_ptr())
    numbers, flags = np.array([scale, low, high], dtype=np.float32), np.empty(-(-count // _BLOCK), dtype=np.uint8)
    arguments = (x.data_ptr(), count, numbers.ctypes.data, zero, out.data_ptr(), flags.ctypes.data)
    share(_quantise, arguments, len(flags), count)
    return int(np.bitwise_or.reduce(flags))


@njit(cache=True, nogil=True, error_model="numpy")
def _quantise_block(x, count, scale, low, high, zero, out):
    """The same of addresses, and what was met."""
    scale, low, high, offset = np.float32(scale), np.float32(low), np.float32(high), np.int32(zero)
    lines = count // CODES
    some = quantise_lines(x, scale, low, high, offset, out, lines)
    outside, nan = np.int32(some[0]), np.int32(some[1])
    values, codes = floats_at(x), bytes_at(out)
    for i in range(lines * CODES, count):
        code = np.rint(values[i] / scale)
        nan |= np.int32(code != code)
        outside |= np.int32((code < low) | (code > high))
        code = code if code == code else np.float32(0)  # a NaN must not become an index
        codes[i] = np.uint8(np.int32(min(max(code, low), high)) + offset)
    return outside | nan << 1


@njit(cache=True, nogil=True, error_model="numpy")
def _quantise(x, count, numbers, zero, out, flags, begin, end):
    """Blocks from ``begin`` to ``end``; ``numbers``: the scale, the lowest and the highest code."""
    known, met = floats_at(numbers), bytes_at(flags)
    for task in range(begin, end):
        first = task * _BLOCK
        some = min(count - first, _BLOCK)
        scale, low, high = np.float64(known[0]), np.float64(known[1]), np.float64(known[2])
        met[task] = np.uint8(_quantise_block(x + 4 * first, some, scale, low, high, zero, out + first))


def extent(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest number of dense float32 memory, or NaNs where it holds one."""
    count = x.numel()
    if count == 0:
        raise InputError("an empty tensor has no range: a layer in training got no images")
    if count <= _BLOCK:
        return extent_of(x.data_ptr(), count)
    tasks = -(-count // _BLOCK)
    found = np.empty((2, tasks), dtype=np.float32)
    share(_extent, (x.data_ptr(), count, found.ctypes.data, tasks), tasks, count)
    return extent_of(found.ctypes.data, found.size)


@njit(cache=True, nogil=True, error_model="numpy")
def extent_of(x, count):
    """The smallest and the largest of ``count`` float32 numbers at an address, or NaNs."""
    numbers = floats_at(x)
    lines = count // CODES
    low, high, nan = extend(x, lines, numbers[0])
    for i in range(lines * CODES, count):
        nan |= numbers[i] != numbers[i]
        low, high = min(low, numbers[i]), max(high, numbers[i])
    return (np.float32(np.nan), np.float32(np.nan)) if nan else (low, high)


@njit(cache=True, nogil=True, error_model="numpy")
def _extent(x, count, found, tasks, begin, end):
    """Those of blocks from ``begin`` to ``end``; found (2, tasks)."""
    results = floats_at(found)
    for task in range(begin, end):
        first = task * _BLOCK
        results[task], results[tasks + task] = extent_of(x + 4 * first, min(count - first, _BLOCK))


def outside(x: Tensor, scale: float, low: int, high: int, out: Tensor) -> None:
    """out = 1 where ``quantise`` clamps, else 0 (uint8); as it takes them."""
    count, numbers = x.numel(), np.array([scale, low, high], dtype=np.float32)
    share(_outside, (x.data_ptr(), count, numbers.ctypes.data, out.data_ptr()), -(-count // _BLOCK), count)


@njit(cache=True, nogil=True, error_model="numpy")
def _outside(x, count, numbers, out, begin, end):
    first, known = begin * _BLOCK, floats_at(numbers)
    some = min(count, end * _BLOCK) - first
    values, target = carray(floats_at(x + 4 * first), some), carray(bytes_at(out + first), some)
    scale, low, high = known[0], known[1], known[2]
    for i in range(some):
        code = np.rint(values[i] / scale)
        target[i] = np.uint8((code < low) | (code > high))


def clear(values: Tensor, where: Tensor) -> None:
    """values = 0 where ``where`` is not 0; float32 and uint8, dense and in the same order."""
    count = values.numel()
    share(_clear, (values.data_ptr(), where.data_ptr(), count), -(-count // _BLOCK), count)


@njit(cache=True, nogil=True)
def _clear(values, where, count, begin, end):
    first = begin * _BLOCK
    some = min(count, end * _BLOCK) - first
    target, flags = carray(floats_at(values + 4 * first), some), carray(bytes_at(where + first), some)
    for i in range(some):
        target[i] = np.float32(0) if flags[i] else target[i]


def widened(values: Tensor, where: Tensor) -> Tensor:
    """``values`` as float32, and 0 where ``where`` is not 0; bfloat16 and uint8, dense and in the same order."""
    out, count = torch.empty_like(values, dtype=torch.float32), values.numel()
    share(_widen, (values.data_ptr(), where.data_ptr(), out.data_ptr(), count), -(-count // _BLOCK), count)
    return out


@njit(cache=True, nogil=True)
def _widen(values, where, out, count, begin, end):
    """The bits of a bfloat16 are the upper half of a float32's."""
    first = begin * _BLOCK
    some = min(count, end * _BLOCK) - first
    source, flags = carray(halves_at(values + 2 * first), some), carray(bytes_at(where + first), some)
    target = carray(integers_at(out + 4 * first), some)
    for i in range(some):
        target[i] = np.int32(0) if flags[i] else np.int32(source[i]) << np.int32(16)


# -- weights -----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def quantise_rows(weight, outputs, count, largest, smallest_scale, zero, index, scale):
    """Per row: scale = max|weight| / largest, index = round(weight / scale) + zero.

    Addresses of weight (outputs, count) and scale (outputs,) float32, and of index (outputs, count) uint8. A NaN makes its
    row's scale NaN, and gets the index zero.
    """
    weights, indices, scales = floats_at(weight), bytes_at(index), floats_at(scale)
    for o in range(outputs):
        most, nan = np.float32(0), False
        for k in range(o * count, o * count + count):
            nan |= weights[k] != weights[k]
            most = max(most, abs(weights[k]))
        step = np.float32(max(most / largest, smallest_scale))
        scales[o] = np.float32(np.nan) if nan else step
        for k in range(o * count, o * count + count):
            code = np.float32(0) if nan else np.rint(weights[k] / step)
            indices[k] = np.uint8(np.int32(code) + zero)
