"""Loops over the features of codes, compiled with numba: looked up side by side, and summed over equal codes.

Arrays are contiguous, (pixels, channels): the memory of a channels-last tensor.
"""

import numpy as np
from numba import carray, njit

from spaces.arithmetic.engines.memory import bytes_at, floats_at, halves_at, integers_at, wholes_at
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE

_BLOCK = 32768  # numbers of a result per task: some ten microseconds of work
_SHARES = 8  # of the pixels, each added up by itself
_TURNS = 4  # neighbouring channels that have sums of their own, as an addition waits for the one before to the same sum


def _pixels(numbers: int) -> int:
    """How many pixels are a task, of so many ``numbers`` each."""
    return max(1, _BLOCK // max(1, numbers))


def _at(array: np.ndarray) -> int:
    """Where its numbers lie, which loops take to be one after the other."""
    assert array.flags.c_contiguous
    return array.ctypes.data


_loop = njit(cache=True, nogil=True)
_part = njit(nogil=True)


def expand_rows(index: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """out[i] = values[index[i]]; index (n,) uint8, values (256, R) and out (n, R) float32."""
    features = values.shape[1]
    some = _pixels(features)
    arguments = (_at(index), len(index), _at(values), features, _at(out), some)
    share(_rows, arguments, -(-len(index) // some), out.size)


def expand_floats(index: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """out[p, r·C + c] = values[r, index[p, c]]; index (P, C) uint8, values (R, 256) and out (P, R·C) float32."""
    (pixels, channels), some = index.shape, _pixels(out.shape[1])
    arguments = (_at(index), pixels, channels, _at(values), len(values), _at(out), some)
    share(_floats, arguments, -(-pixels // some), out.size)


def expand_bits(index: np.ndarray, masks: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
    """out[p, r·C + c] = (index[p, c] & masks[r]) ^ flips[r]; all uint8, index (P, C), out (P, R·C)."""
    (pixels, channels), some = index.shape, _pixels(out.shape[1])
    known = (_at(masks), _at(flips), len(masks))
    arguments = (_at(index), pixels, channels, *known, _at(out), some)
    share(_bits, arguments, -(-pixels // some), out.size)


def expand_words(index: np.ndarray, words: np.ndarray, start: int, out: np.ndarray) -> None:
    """out[p, start + c] = words[index[p, c]]; index (P, C) uint8, words (256,) and out (P, …) of one unsigned type."""
    (pixels, channels), some = index.shape, _pixels(index.shape[1])
    known = (_at(words), words.itemsize)
    arguments = (_at(index), pixels, channels, *known, start, _at(out), out.shape[1], some)
    share(_words, arguments, -(-pixels // some), index.size)


def sum_by_code(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """out[a] = Σ values where index is a; index (P, C) uint8, values (P, C) float32. Shares do not depend on threads."""
    pixels, channels = index.shape
    sums = np.empty((_SHARES, _TURNS, SIZE), dtype=np.float32)
    arguments = (_at(index), pixels, channels, _at(values), _at(sums))
    share(_sum_by_code, arguments, _SHARES, index.size)
    return sums.sum(axis=(0, 1))


# -- loops: tasks from ``begin`` to ``end``, of ``some`` pixels each ---------------------------------------------------


@_loop
def _rows(index, pixels, values, features, out, some, begin, end):
    codes, known, target = bytes_at(index), floats_at(values), floats_at(out)
    for i in range(begin * some, min(pixels, end * some)):
        row = np.intp(codes[i]) * features
        for r in range(features):
            target[i * features + r] = known[row + r]


@_loop
def _floats(index, pixels, channels, values, features, out, some, begin, end):
    known = floats_at(values)
    for pixel in range(begin * some, min(pixels, end * some)):
        codes = bytes_at(index + pixel * channels)
        for r in range(features):
            row, target = r * SIZE, floats_at(out + 4 * (pixel * features + r) * channels)
            for c in range(channels):
                target[c] = known[row + codes[c]]


@_loop
def _bits(index, pixels, channels, masks, flips, features, out, some, begin, end):
    taken, flipped = bytes_at(masks), bytes_at(flips)
    codes = carray(bytes_at(index), pixels * channels)
    target = carray(bytes_at(out), pixels * channels * features)
    for pixel in range(begin * some, min(pixels, end * some)):
        own = codes[pixel * channels : (pixel + 1) * channels]
        for r in range(features):
            mask, flip, first = taken[r], flipped[r], (pixel * features + r) * channels
            row = target[first : first + channels]
            for c in range(channels):
                row[c] = (own[c] & mask) ^ flip


@_part
def _look_up(index, words, out, channels, width, first, last):
    for pixel in range(first, last):
        for c in range(channels):
            out[pixel * width + c] = words[index[pixel * channels + c]]


@_loop
def _words(index, pixels, channels, words, size, start, out, width, some, begin, end):
    """Words of ``size`` bytes, copied as they are; a pixel has ``width`` of them."""
    codes, place = bytes_at(index), out + size * start
    first, last = begin * some, min(pixels, end * some)
    if size == 1:
        _look_up(codes, bytes_at(words), bytes_at(place), channels, width, first, last)
    elif size == 2:
        _look_up(codes, halves_at(words), halves_at(place), channels, width, first, last)
    elif size == 4:
        _look_up(codes, integers_at(words), integers_at(place), channels, width, first, last)
    else:
        _look_up(codes, wholes_at(words), wholes_at(place), channels, width, first, last)


@_loop
def _sum_by_code(index, pixels, channels, values, sums, begin, end):
    """Shares of the pixels; ``sums`` (shares, turns, 256)."""
    codes, numbers = bytes_at(index), floats_at(values)
    some = (pixels + _SHARES - 1) // _SHARES
    for task in range(begin, end):
        own = carray(floats_at(sums + 4 * _TURNS * SIZE * task), (_TURNS, SIZE))
        own[:] = 0
        for pixel in range(task * some, min(pixels, (task + 1) * some)):
            for c in range(channels):
                at = pixel * channels + c
                own[c & (_TURNS - 1), codes[at]] += numbers[at]
