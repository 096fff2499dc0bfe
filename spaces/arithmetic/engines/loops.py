"""Loops over bytes that no library offers, compiled with numba: quantise, look features up, add and scale.

Every loop has a serial body over a block, which the compiler vectorises, and a parallel loop over blocks. Arrays are flat
or (pixels, channels): the memory of a channels-last tensor.
"""

import threading

import numba
import numpy as np
import torch
from numba import njit, prange

from spaces.arithmetic.engines.memory import CODES
from spaces.arithmetic.engines.quantise_simd import quantise_lines

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


@njit(cache=True, nogil=True, error_model="numpy")
def _quantise_block(x, scale, low, high, zero, out):
    lines = x.size // CODES
    met = quantise_lines(x.ctypes.data, scale, low, high, zero, out.ctypes.data, lines)
    outside, nan = np.int32(met[0]), np.int32(met[1])
    for i in range(lines * CODES, x.size):
        code = np.rint(x[i] / scale)
        nan |= np.int32(code != code)
        outside |= np.int32((code < low) | (code > high))
        code = code if code == code else np.float32(0)  # a NaN must not become an index
        out[i] = np.uint8(np.int32(min(max(code, low), high)) + zero)
    return outside | nan << 1


@njit(cache=True, nogil=True, parallel=True)
def _quantise_blocks(x, scale, low, high, zero, out):
    blocks = (x.size + _BLOCK - 1) // _BLOCK
    flags = np.empty(blocks, np.int32)
    for block in prange(blocks):
        part = slice(block * _BLOCK, (block + 1) * _BLOCK)
        flags[block] = _quantise_block(x[part], scale, low, high, zero, out[part])
    return flags.max() & NAN | (flags & CLAMPED).max()


def quantise(x: np.ndarray, scale: float, low: int, high: int, zero: int, out: np.ndarray) -> int:
    """out = clamp(round(x / scale), low, high) + zero; x (n,) float32, out (n,) uint8. Returns CLAMPED | NAN if met."""
    run = _quantise_blocks if use_threads(x.size) else _quantise_block
    return run(x, np.float32(scale), np.float32(low), np.float32(high), np.int32(zero), out)


@njit(cache=True, nogil=True, error_model="numpy")
def _outside_block(x, scale, low, high, out):
    for i in range(x.size):
        code = np.rint(x[i] / scale)
        out[i] = np.uint8((code < low) | (code > high))


@njit(cache=True, nogil=True, parallel=True)
def _outside_blocks(x, scale, low, high, out):
    for block in prange((x.size + _BLOCK - 1) // _BLOCK):
        part = slice(block * _BLOCK, (block + 1) * _BLOCK)
        _outside_block(x[part], scale, low, high, out[part])


def outside(x: np.ndarray, scale: float, low: int, high: int, out: np.ndarray) -> None:
    """out = 1 where ``quantise`` clamps, else 0 (uint8)."""
    run = _outside_blocks if use_threads(x.size) else _outside_block
    run(x, np.float32(scale), np.float32(low), np.float32(high), out)


@njit(cache=True, nogil=True)
def _clear_block(values, where):
    for i in range(values.size):
        values[i] = np.float32(0) if where[i] else values[i]


@njit(cache=True, nogil=True, parallel=True)
def _clear_blocks(values, where):
    for block in prange((values.size + _BLOCK - 1) // _BLOCK):
        part = slice(block * _BLOCK, (block + 1) * _BLOCK)
        _clear_block(values[part], where[part])


def clear(values: np.ndarray, where: np.ndarray) -> None:
    """values = 0 where ``where`` is not; values (n,) float32, where (n,) uint8."""
    run = _clear_blocks if use_threads(values.size) else _clear_block
    run(values, where)


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
    for share in range(sums.shape[0]):
        part = slice(share * rows, (share + 1) * rows)
        _sum_by_code_share(index[part], values[part], sums[share])


@njit(cache=True, nogil=True, parallel=True)
def _sum_by_code_together(index, values, sums, rows):
    for share in prange(sums.shape[0]):
        part = slice(share * rows, (share + 1) * rows)
        _sum_by_code_share(index[part], values[part], sums[share])


def sum_by_code(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """out[a] = Σ values where index is a; index (P, C) uint8, values (P, C) float32. Shares do not depend on threads."""
    sums = np.zeros((_SHARES, 4, 256), dtype=np.float32)
    run = _sum_by_code_together if use_threads(values.size) else _sum_by_code_alone
    run(index, values, sums, (len(index) + _SHARES - 1) // _SHARES)
    return sums.sum(axis=(0, 1))


# -- weights -----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def quantise_rows(weight, largest, smallest_scale, zero, index, scale):
    """Per row: scale = max|weight| / largest, index = round(weight / scale) + zero.

    weight (O, K) and scale (O,) float32, index (O, K) uint8. A NaN makes its row's scale NaN, and gets the index zero.
    """
    for o in range(weight.shape[0]):
        most, nan = np.float32(0), False
        for k in range(weight.shape[1]):
            nan |= weight[o, k] != weight[o, k]
            most = max(most, abs(weight[o, k]))
        step = np.float32(max(most / largest, smallest_scale))
        scale[o] = np.float32(np.nan) if nan else step
        for k in range(weight.shape[1]):
            code = np.float32(0) if nan else np.rint(weight[o, k] / step)
            index[o, k] = np.uint8(np.int32(code) + zero)


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
