"""Weighted sums of normalised maps, Σ_i w_i·(x_i − mean_i) / √(var_i + ε), and their gradients; on the CPU.

One pass over each map for its statistics and one for all sums, where normalising, weighing and adding up each on its own
would write every map anew; for small maps the calls alone take longer than the sums. Means and variances are those of a
channel over a batch (batch normalisation without affine parameters, Ioffe and Szegedy, ICML 2015). Nothing depends on the
number of threads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from spaces.arithmetic.engines.cpu.normalised_simd import (
    TOGETHER,
    add_products,
    add_scaled,
    add_squares,
    add_up,
    set_gradient,
    set_scaled,
)
from spaces.arithmetic.engines.memory import floats_at, number_at
from spaces.arithmetic.engines.threads import share

_CHUNK = 16384  # numbers per task, about

_loop = njit(cache=True, nogil=True, error_model="numpy")
_part = njit(nogil=True, error_model="numpy")


@dataclass(frozen=True)
class Maps:
    """Maps of one size, channels-last, and how they are cut into chunks."""

    tensors: Sequence[Tensor]
    normalised: np.ndarray  # (parts,) int64: 1, or 0 for a map that is added as it is
    count: int  # of numbers in each
    channels: int
    period: int
    chunk: int  # numbers, a multiple of the period
    places: np.ndarray  # (parts,) int64

    @classmethod
    def of(cls, tensors: Sequence[Tensor], normalised: Sequence[bool]) -> "Maps":
        """For tensors (N, C, H, W)."""
        tensors = [in_order(x) for x in tensors]
        count, channels = tensors[0].numel(), tensors[0].shape[1]
        period = math.lcm(TOGETHER, channels)
        chunk = max(1, _CHUNK // period) * period
        places = np.array([x.data_ptr() for x in tensors], dtype=np.int64)
        return cls(tensors, np.array(normalised, dtype=np.int64), count, channels, period, chunk, places)

    @property
    def chunks(self) -> int:
        return -(-self.count // self.chunk)

    @property
    def size(self) -> tuple[int, int, int, int]:
        return self.count, self.channels, self.period, self.chunk


def in_order(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def statistics(maps: Maps, running: Sequence[tuple[Tensor, Tensor]], epsilon: float, momentum: float) -> Tensor:
    """The mean of every channel and 1/√(var + ε), (parts, 2, C) float32; 0 and 1 for maps that are not normalised.

    Moves the ``running`` mean and unbiased variance (C,) of each part on.
    """
    parts, chunks = len(maps.tensors), maps.chunks
    found = np.empty((parts, chunks, 2, maps.channels), dtype=np.float32)
    known = np.empty((parts, 2, maps.channels), dtype=np.float32)
    averages = np.array([[each.data_ptr() for each in pair] for pair in running], dtype=np.int64)
    arguments = (maps.places.ctypes.data, maps.normalised.ctypes.data, *maps.size, found.ctypes.data)
    share(_statistics, arguments, parts * chunks, parts * maps.count)
    _finish_statistics(found, maps.normalised, maps.count, maps.chunk, epsilon, momentum, averages.ctypes.data, known)
    return torch.from_numpy(known)


def weighted_sum(maps: Maps, known: Tensor, weights: Tensor) -> Tensor:
    """The sum (N, C, H, W) for ``weights`` (parts,) float32."""
    first = maps.tensors[0]
    y = torch.empty_like(first, memory_format=torch.channels_last)
    means, scale = known.numpy().swapaxes(0, 1)
    means, factors = _tiled(means, maps), _tiled(scale * weights.numpy()[:, None], maps)
    arguments = (
        maps.places.ctypes.data, len(maps.tensors), maps.count, maps.period, maps.chunk, means.ctypes.data,
        factors.ctypes.data, y.data_ptr(),
    )  # fmt: skip
    share(_weighted_sum, arguments, maps.chunks, len(maps.tensors) * maps.count)
    return y


def gradients(
    maps: Maps, known: Tensor, weights: Tensor, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradients for the weights (parts,), and for those maps (N, C, H, W) that are ``wanted``."""
    parts, chunks, g = len(maps.tensors), maps.chunks, in_order(grad)
    means, scale = known.numpy().swapaxes(0, 1)
    means, scale = _tiled(means, maps), scale.astype(np.float64)
    found = np.empty((chunks, parts + 1, maps.channels), dtype=np.float32)
    arguments = (maps.places.ctypes.data, parts, *maps.size, means.ctypes.data, g.data_ptr(), found.ctypes.data)
    share(_gradient_sums, arguments, chunks, parts * maps.count)
    sums = found.sum(axis=0, dtype=np.float64)
    of_grad, of_maps, pixels = sums[0], sums[1:], maps.count // maps.channels
    of_weights = (of_maps * scale).sum(axis=1).astype(np.float32)
    # Through the mean and the variance, which depend on every number of the channel.
    factor = weights.numpy()[:, None] * scale
    normalised = maps.normalised[:, None]
    slope = -normalised * factor * scale**2 * of_maps / pixels
    constant = -normalised * factor * of_grad / pixels
    outputs = [torch.empty_like(g) if one else None for one in wanted]
    places = np.array([0 if y is None else y.data_ptr() for y in outputs], dtype=np.int64)
    terms = [_tiled(each.astype(np.float32), maps) for each in (factor, slope, constant)]
    arguments = (
        maps.places.ctypes.data, maps.normalised.ctypes.data, parts, maps.count, maps.period, maps.chunk,
        means.ctypes.data, *(each.ctypes.data for each in terms), g.data_ptr(), places.ctypes.data,
    )  # fmt: skip
    share(_input_gradients, arguments, chunks, parts * maps.count)
    return torch.from_numpy(of_weights), outputs


def _tiled(values: np.ndarray, maps: Maps) -> np.ndarray:
    """(parts, C) float32 as (parts, period)."""
    return np.tile(np.ascontiguousarray(values, dtype=np.float32), (1, maps.period // maps.channels))


# -- loops -------------------------------------------------------------------------------------------------------------


@_part
def _cut(chunk_number, count, period, chunk):
    """Where a chunk begins, its whole periods, and the numbers after those."""
    first = chunk_number * chunk
    numbers = min(count - first, chunk)
    return first, numbers // period, numbers % period


@_part
def _by_channel(totals, period, channels, sums):
    """sums[c] = Σ totals[j] where j % C is c."""
    values, results = floats_at(totals), floats_at(sums)
    for c in range(channels):
        total = np.float32(0)
        for j in range(c, period, channels):
            total += values[j]
        results[c] = total


@_loop
def _statistics(places, normalised, count, channels, period, chunk, found, begin, end):
    """Of a part's chunks, each a task: the mean of each channel, and the sum of squares around it; (parts, chunks, 2, C)."""
    chunks = (count + chunk - 1) // chunk
    memory = np.zeros(2 * period, dtype=np.float32)
    totals, mean = memory.ctypes.data, memory.ctypes.data + 4 * period
    for task in range(begin, end):
        part = task // chunks
        if number_at(normalised, part) == 0:
            continue
        first, periods, rest = _cut(task % chunks, count, period, chunk)
        x = number_at(places, part) + 4 * first
        values, own = floats_at(x + 4 * periods * period), found + 8 * channels * task
        pixels = np.float32((periods * period + rest) // channels)
        memory[:period] = 0
        add_up(totals, periods, period, x)
        for j in range(rest):
            memory[j] += values[j]
        _by_channel(totals, period, channels, own)
        means = floats_at(own)
        for c in range(channels):
            means[c] /= pixels
        for j in range(period):
            memory[period + j] = means[j % channels]
        memory[:period] = 0
        add_squares(totals, periods, period, x, mean)
        for j in range(rest):
            memory[j] += (values[j] - memory[period + j]) ** 2
        _by_channel(totals, period, channels, own + 4 * channels)
    memory[0] = 0  # to here it must be kept


@_loop
def _finish_statistics(found, normalised, count, chunk, epsilon, momentum, averages, known):
    """Chunks put together, two by two (Chan, Golub and LeVeque, 1983)."""
    parts, chunks, _, channels = found.shape
    for part in range(parts):
        for c in range(channels):
            known[part, 0, c], known[part, 1, c] = np.float32(0), np.float32(1)
        if not normalised[part]:
            continue
        means, variances = floats_at(number_at(averages, 2 * part)), floats_at(number_at(averages, 2 * part + 1))
        for c in range(channels):
            mean, squares, seen = 0.0, 0.0, 0.0
            for number in range(chunks):
                more = min(count - number * chunk, chunk) / channels
                off = found[part, number, 0, c] - mean
                mean += off * more / (seen + more)
                squares += found[part, number, 1, c] + off * off * seen * more / (seen + more)
                seen += more
            known[part, 0, c] = mean
            known[part, 1, c] = 1 / np.sqrt(squares / seen + epsilon)
            means[c] = (1 - momentum) * means[c] + momentum * mean
            variances[c] = (1 - momentum) * variances[c] + momentum * squares / (seen - 1)


@_loop
def _weighted_sum(places, parts, count, period, chunk, means, factors, y, begin, end):
    for task in range(begin, end):
        first, periods, rest = _cut(task, count, period, chunk)
        own, last = y + 4 * first, 4 * periods * period
        results = floats_at(own)
        for i in range(periods * period + rest):
            results[i] = np.float32(0)
        tail = floats_at(own + last)
        for part in range(parts):
            x, mean, factor = (
                number_at(places, part) + 4 * first,
                means + 4 * period * part,
                factors + 4 * period * part,
            )
            add_scaled(own, periods, period, x, mean, factor)
            values, off, scale = floats_at(x + last), floats_at(mean), floats_at(factor)
            for j in range(rest):
                tail[j] += (values[j] - off[j]) * scale[j]


@_loop
def _gradient_sums(places, parts, count, channels, period, chunk, means, g, found, begin, end):
    """Of each chunk: Σ g, and for every part Σ g·(x − mean), by channel; (chunks, 1 + parts, C)."""
    memory = np.zeros(period, dtype=np.float32)
    totals = memory.ctypes.data
    for task in range(begin, end):
        first, periods, rest = _cut(task, count, period, chunk)
        last, grads = 4 * (first + periods * period), floats_at(g + 4 * (first + periods * period))
        own = found + 4 * channels * (parts + 1) * task
        memory[:] = 0
        add_up(totals, periods, period, g + 4 * first)
        for j in range(rest):
            memory[j] += grads[j]
        _by_channel(totals, period, channels, own)
        for part in range(parts):
            x, mean = number_at(places, part), means + 4 * period * part
            memory[:] = 0
            add_products(totals, periods, period, g + 4 * first, x + 4 * first, mean)
            values, off = floats_at(x + last), floats_at(mean)
            for j in range(rest):
                memory[j] += grads[j] * (values[j] - off[j])
            _by_channel(totals, period, channels, own + 4 * channels * (part + 1))
    memory[0] = 0  # to here it must be kept


@_loop
def _input_gradients(
    places, normalised, parts, count, period, chunk, means, factors, slopes, constants, g, outputs, begin, end
):
    for task in range(begin, end):
        first, periods, rest = _cut(task, count, period, chunk)
        last = 4 * (first + periods * period)
        grads = floats_at(g + last)
        for part in range(parts):
            y, x, own = number_at(outputs, part), number_at(places, part), 4 * period * part
            if y == 0:
                continue
            tail, factor = floats_at(y + last), floats_at(factors + own)
            if number_at(normalised, part) == 0:
                set_scaled(y + 4 * first, periods, period, g + 4 * first, factors + own)
                for j in range(rest):
                    tail[j] = grads[j] * factor[j]
                continue
            set_gradient(
                y + 4 * first, periods, period, g + 4 * first, x + 4 * first, means + own, factors + own, slopes + own,
                constants + own,
            )  # fmt: skip
            values, off, slope, constant = (
                floats_at(x + last), floats_at(means + own), floats_at(slopes + own), floats_at(constants + own)
            )  # fmt: skip
            for j in range(rest):
                tail[j] = grads[j] * factor[j] + (values[j] - off[j]) * slope[j] + constant[j]
