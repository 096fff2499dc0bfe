"""Loops over bytes that no library offers, compiled with numba: quantise, look features up, add and scale.

Every loop has a serial body over a block, which the compiler vectorises, and a parallel loop over blocks. Arrays are flat
or (pixels, channels): the memory of a channels-last tensor.
"""

import threading

import numba
import numpy as np
import torch
from numba import carray, njit, prange
from torch import Tensor

from spaces.arithmetic.engines.memory import CODES, bytes_at, floats_at
from spaces.arithmetic.engines.quantise_simd import extend, quantise_lines
from spaces.arithmetic.engines.threads import share
from spaces.errors import InputError

_BLOCK = 32768  # elements per task: some ten microseconds of work
_known = threading.local()  # the number of threads that numba and torch have in this thread


def use_threads(work: int) -> bool:
    """Whether ``work`` elements are worth sharing; also lets numba use as many threads as torch does.

    The first call of ``set_num_threads`` starts numba's threads, and on the way sets OpenMP's number, which is torch's.
    """
    wanted = torch.get_num_threads()
    threads = min(wanted, numba.config.NUMBA_NUM_THREADS)
    if getattr(_known, "threads", 0) != threads:
        numba.set_num_threads(threads)
        _known.threads = threads
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)
    return threads > 1 and work > _BLOCK


# -- activations -------------------------------------------------------------------------------------------------------


CLAMPED, NAN = 1, 2  # what ``quantise`` met


def quantise(x: Tensor, scale: float, low: int, high: int, zero: int, out: Tensor) -> int:
    """out = clamp(round(x / scale), low, high) + zero. Returns CLAMPED | NAN if met.

    x float32 and out uint8 are dense and lie in the same order.
    """
    count, numbers = x.numel(), np.array([scale, low, high], dtype=np.float32)
    tasks = -(-count // _BLOCK)
    flags = np.zeros(max(1, tasks), dtype=np.uint8)
    arguments = (x.data_ptr(), count, numbers.ctypes.data, zero, out.data_ptr(), flags.ctypes.data)
    share(_quantise, arguments, tasks, count)
    return int(flags[0]) if tasks == 1 else int(np.bitwise_or.reduce(flags))


@njit(cache=True, nogil=True, error_model="numpy")
def _quantise(x, count, numbers, zero, out, flags, begin, end):
    """Blocks from ``begin`` to ``end``; ``numbers``: the scale, the lowest and the highest code."""
    known, met, offset = floats_at(numbers), bytes_at(flags), np.int32(zero)
    scale, low, high = known[0], known[1], known[2]
    for task in range(begin, end):
        first, last = task * _BLOCK, min(count, (task + 1) * _BLOCK)
        lines = (last - first) // CODES
        some = quantise_lines(x + 4 * first, scale, low, high, offset, out + first, lines)
        outside, nan = np.int32(some[0]), np.int32(some[1])
        values, codes = floats_at(x), bytes_at(out)
        for i in range(first + lines * CODES, last):
            code = np.rint(values[i] / scale)
            nan |= np.int32(code != code)
            outside |= np.int32((code < low) | (code > high))
            code = code if code == code else np.float32(0)  # a NaN must not become an index
            codes[i] = np.uint8(np.int32(min(max(code, low), high)) + offset)
        met[task] = np.uint8(outside | nan << 1)


def extent(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest number of dense float32 memory, or NaNs where it holds one."""
    count = x.numel()
    if count == 0:
        raise InputError("an empty tensor has no range: a layer in training got no images")
    tasks = -(-count // _BLOCK)
    found = np.empty((2, tasks), dtype=np.float32)
    share(_extent, (x.data_ptr(), count, found.ctypes.data, tasks), tasks, count)
    low, high = (found[0, 0], found[1, 0]) if tasks == 1 else (found[0].min(), found[1].max())
    return float(low), float(high)


@njit(nogil=True, error_model="numpy")
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
    """values = 0 where ``where`` is not; float32 and uint8, dense and in the same order."""
    count = values.numel()
    share(_clear, (values.data_ptr(), where.data_ptr(), count), -(-count // _BLOCK), count)


@njit(cache=True, nogil=True)
def _clear(values, where, count, begin, end):
    first = begin * _BLOCK
    some = min(count, end * _BLOCK) - first
    target, flags = carray(floats_at(values + 4 * first), some), carray(bytes_at(where + first), some)
    for i in range(some):
        target[i] = np.float32(0) if flags[i] else target[i]


@njit(cache=True, nogil=True)
def _bits_block(index, masks, flips, out):
    channels = index.shape[1]
    for pixel in range(index.shape[0]):
        for r in range(masks.size):
            mask, flip = masks[r], flips[r]
            for c in range(channels):
                out[pixel, r * channels + c] = (index[pixel, c] & mask) ^ flip


@njit(cache=True, nogil=True, parallel=True)
def _bits_blocks(index, masks, flips, out, rows):
    for block in prange((index.shape[0] + rows - 1) // rows):
        part = slice(block * rows, (block + 1) * rows)
        _bits_block(index[part], masks, flips, out[part])


@njit(cache=True, nogil=True)
def _words_block(index, words, start, out):
    for pixel in range(index.shape[0]):
        for c in range(index.shape[1]):
            out[pixel, start + c] = words[index[pixel, c]]


@njit(cache=True, nogil=True, parallel=True)
def _words_blocks(index, words, start, out, rows):
    for block in prange((index.shape[0] + rows - 1) // rows):
        part = slice(block * rows, (block + 1) * rows)
        _words_block(index[part], words, start, out[part])


@njit(cache=True, nogil=True)
def _floats_block(index, values, out):
    channels = index.shape[1]
    for pixel in range(index.shape[0]):
        for r in range(values.shape[0]):
            row = values[r]
            for c in range(channels):
                out[pixel, r * channels + c] = row[index[pixel, c]]


@njit(cache=True, nogil=True, parallel=True)
def _floats_blocks(index, values, out, rows):
    for block in prange((index.shape[0] + rows - 1) // rows):
        part = slice(block * rows, (block + 1) * rows)
        _floats_block(index[part], values, out[part])


@njit(cache=True, nogil=True)
def _rows_block(index, values, out):
    for i in range(index.size):
        row = index[i]
        for r in range(values.shape[1]):
            out[i, r] = values[row, r]


@njit(cache=True, nogil=True, parallel=True)
def _rows_blocks(index, values, out):
    for block in prange((index.size + _BLOCK - 1) // _BLOCK):
        part = slice(block * _BLOCK, (block + 1) * _BLOCK)
        _rows_block(index[part], values, out[part])


def expand_rows(index: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """out[i] = values[index[i]]; index (n,) uint8, values (256, R) and out (n, R) float32."""
    run = _rows_blocks if use_threads(out.size) else _rows_block
    run(index, values, out)


def expand_floats(index: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """out[p, r·C + c] = values[r, index[p, c]]; index (P, C) uint8, values (R, 256) and out (P, R·C) float32."""
    if use_threads(out.size):
        _floats_blocks(index, values, out, max(1, _BLOCK // out.shape[1]))
    else:
        _floats_block(index, values, out)


def expand_bits(index: np.ndarray, masks: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
    """out[p, r·C + c] = (index[p, c] & masks[r]) ^ flips[r]; all uint8, index (P, C), out (P, R·C)."""
    if use_threads(out.size):
        _bits_blocks(index, masks, flips, out, max(1, _BLOCK // out.shape[1]))
    else:
        _bits_block(index, masks, flips, out)


def expand_words(index: np.ndarray, words: np.ndarray, start: int, out: np.ndarray) -> None:
    """out[p, start + c] = words[index[p, c]]; index (P, C) uint8, words (256,) and out of one unsigned type."""
    if use_threads(index.size):
        _words_blocks(index, words, start, out, max(1, _BLOCK // index.shape[1]))
    else:
        _words_block(index, words, start, out)


_SHARES = 8  # of the pixels, each added up by itself


@njit(cache=True, nogil=True)
def _sum_by_code_share(index, values, sums):
    """sums (4, 256); neighbours have a row each, as the next addition to an entry has to wait for the one before."""
    for p in range(index.shape[0]):
        for c in range(index.shape[1]):
            sums[c & 3, index[p, c]] += values[p, c]


@njit(cache=True, nogil=True)
def _sum_by_code_alone(index, values, sums, rows):
    for part in range(sums.shape[0]):
        own = slice(part * rows, (part + 1) * rows)
        _sum_by_code_share(index[own], values[own], sums[part])


@njit(cache=True, nogil=True, parallel=True)
def _sum_by_code_together(index, values, sums, rows):
    for part in prange(sums.shape[0]):
        own = slice(part * rows, (part + 1) * rows)
        _sum_by_code_share(index[own], values[own], sums[part])


def sum_by_code(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """out[a] = Σ values where index is a; index (P, C) uint8, values (P, C) float32. Shares do not depend on threads."""
    sums = np.zeros((_SHARES, 4, 256), dtype=np.float32)
    run = _sum_by_code_together if use_threads(values.size) else _sum_by_code_alone
    run(index, values, sums, (len(index) + _SHARES - 1) // _SHARES)
    return sums.sum(axis=(0, 1))


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


# -- sums --------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _add_and_scale_block(sums, constant, scale):
    for p in range(sums.shape[0]):
        for o in range(sums.shape[1]):
            sums[p, o] = (sums[p, o] + constant[o]) * scale[o]


@njit(cache=True, nogil=True, parallel=True)
def _add_and_scale_blocks(sums, constant, scale, rows):
    for block in prange((sums.shape[0] + rows - 1) // rows):
        _add_and_scale_block(sums[block * rows : (block + 1) * rows], constant, scale)


def add_and_scale(sums: np.ndarray, constant: np.ndarray, scale: np.ndarray) -> None:
    """sums = (sums + constant)·scale in place; sums (P, O), constant and scale (O,), all float32."""
    if use_threads(sums.size):
        _add_and_scale_blocks(sums, constant, scale, max(1, _BLOCK // sums.shape[1]))
    else:
        _add_and_scale_block(sums, constant, scale)
