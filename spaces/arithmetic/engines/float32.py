"""Factors as ordinary numbers: one fp32 convolution with R × the input channels. Runs everywhere."""

import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_convolution
from spaces.arithmetic.engines.exact_float import EXACT_FLOAT32, finish, slices_of_terms
from spaces.arithmetic.engines.features import Features, describe, expand
from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.byte_factors import MOST_CHANNELS
from spaces.multipliers.factors import Factors, candidates
from spaces.multipliers.products import ProductTable
from spaces.warmup import preparing

_CHUNK = 1 << 20  # features, of four bytes each, that are expanded at a time


@dataclass(frozen=True)
class _Part:
    channels: slice | None  # of every group; None: all
    features: Features
    weights: Tensor  # (O, C/groups·R, kH, kW) float32 or float64


@dataclass(frozen=True)
class Packed:
    parts: tuple[_Part, ...]
    kernel: tuple[int, int]
    outputs: int
    wide: bool  # whether the sums need float64
    geometry: Geometry


@dataclass(frozen=True)
class PackedDepthwise:
    """A layer with one filter for every channel, on the CPU, whose sums float32 holds."""

    by_weight: Tensor  # (C, R, kH, kW) float32, in blocks
    activations: depthwise_convolution.Tables
    geometry: Geometry


@functools.lru_cache(maxsize=256)
def factors_of(table: ProductTable) -> Factors | None:
    """The factors of the lowest rank that are small enough for exact float arithmetic."""
    fitting = (f for f in candidates(table) if f.rank <= MOST_CHANNELS and f.largest_term < EXACT_FLOAT32)
    return next(fitting, None)


def _known_factors(table: ProductTable) -> Factors:
    """The same of a table that the engine does not refuse."""
    factors = factors_of(table)
    assert factors is not None
    return factors


def refusal(table: ProductTable, device: torch.device) -> str:  # noqa: ARG001
    """Why the engine cannot be used: no factors, too many, or too large ones."""
    if factors_of(table) is None:
        return f"the table of {table.name} has no integer factors of rank {MOST_CHANNELS} or less that float32 holds"
    return ""


def channels(table: ProductTable) -> int:
    """Factor channels per input channel."""
    return _known_factors(table).rank


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed | PackedDepthwise:
    factors = _known_factors(table)
    if weights.device.type == "cpu" and _depthwise(tuple(weights.shape), table, geometry):
        by_weight = depthwise_convolution.decoded(weights, _weight_rows(table))
        return PackedDepthwise(by_weight, _activation_values(table), geometry)
    outputs, inner, *kernel = weights.shape
    window = int(np.prod(kernel))
    largest = np.abs(factors.u).max(axis=0) * np.abs(factors.v).max(axis=1) if factors.rank else np.zeros(0)
    wide = window * inner * factors.largest_term >= EXACT_FLOAT32
    by_weight = _weight_values(table, weights.device)[:, weights.int()]
    ones = np.ones(factors.rank, dtype=np.int64)
    parts = []
    for _, terms, channels in slices_of_terms(ones, largest * window, inner, exact=wide):
        width = inner if channels is None else channels.stop - channels.start
        features = _features(table, terms.start, terms.stop, width)
        chosen = by_weight[terms] if channels is None else by_weight[terms][:, :, channels]
        parts.append(_Part(channels, features, features.order_weights(chosen.permute(1, 2, 0, 3, 4))))
    if window * int(largest.max(initial=0)) >= EXACT_FLOAT32:  # one channel of one feature alone is too much
        parts = [_Part(part.channels, part.features, part.weights.double()) for part in parts]
    return Packed(tuple(parts), tuple(kernel), outputs, wide, geometry)


@functools.lru_cache(maxsize=4096)
def _depthwise(w_shape: tuple[int, ...], table: ProductTable, geometry: Geometry) -> bool:
    """Whether a layer on the CPU has one filter for every channel, and float32 holds its sums."""
    factors, products = _known_factors(table), math.prod(w_shape[1:])
    fits = factors.rank > 0 and products * factors.largest_term < EXACT_FLOAT32
    return fits and depthwise_convolution.suit(w_shape, geometry, torch.device("cpu"))


@functools.lru_cache(maxsize=256)
def _weight_rows(table: ProductTable) -> np.ndarray:
    """v by weight index (256, R), float32."""
    return np.ascontiguousarray(_known_factors(table).v.T, dtype=np.float32)


@functools.lru_cache(maxsize=256)
def _weight_values(table: ProductTable, device: torch.device) -> Tensor:
    """v (R, 256), float32."""
    return torch.tensor(_known_factors(table).v, dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=256)
def _activation_values(table: ProductTable) -> depthwise_convolution.Tables:
    """u (R, 256), on the CPU."""
    return depthwise_convolution.Tables(torch.from_numpy(_known_factors(table).u.T.astype(np.float32)))


@functools.lru_cache(maxsize=1024)
def _features(table: ProductTable, first: int, last: int, channels: int) -> Features:
    return describe(_known_factors(table).u[:, first:last].astype(np.float32), channels)


def conv2d(x: Tensor, packed: Packed | PackedDepthwise, fill: int | Tensor, scale: Tensor | None = None) -> Tensor:
    if isinstance(packed, PackedDepthwise):
        tables, by_weight = packed.activations, packed.by_weight
        return depthwise_convolution.convolve(x, tables, by_weight, packed.geometry, int(fill), scale)
    x, geometry = packed.geometry.avoid_onednn_bugs(x, packed.kernel, fill)
    if any(part.features.moves(fill, 0) for part in packed.parts) and geometry.padding != (0, 0):
        x, geometry = geometry.pad(x, fill), geometry.unpadded()
    images = _CHUNK // (sum(part.features.count for part in packed.parts) * x.shape[1:].numel() or 1)
    if x.device.type == "cpu" and x.shape[0] > max(1, images):  # so that the features stay in the cache
        return torch.cat([_sums(part, packed, geometry, scale) for part in x.split(max(1, images))])
    return _sums(x, packed, geometry, scale)


def _sums(x: Tensor, packed: Packed, geometry: Geometry, scale: Tensor | None) -> Tensor:
    """The sums of padded activations."""
    total = None
    for part in packed.parts:
        inside = x
        if part.channels is not None:
            inside = x.unflatten(1, (geometry.groups, -1))[:, :, part.channels].flatten(1, 2)
        features = expand(inside, part.features, geometry.groups).to(part.weights.dtype)
        weights = part.weights
        if x.device.type != "cpu" and not _computes(features.shape, weights.shape, weights.dtype, geometry, x.device):
            features, weights = features.double(), weights.double()
        sums = geometry.conv2d(features, weights)
        sums = sums.double() if packed.wide else sums
        total = sums if total is None else total.add_(sums)
    if total is None:
        total = torch.zeros(
            x.shape[0], packed.outputs, *geometry.output_size(x.shape[2:], packed.kernel), device=x.device
        )
    return finish(total, None, scale)


def _computes(
    shape: torch.Size, w_shape: torch.Size, dtype: torch.dtype, geometry: Geometry, device: torch.device
) -> bool:
    """Whether the library's fp32 convolution is exact for integers in this shape (N, C, H, W), tried when it first occurs."""
    if dtype != torch.float32 or 0 in shape:
        return True
    exact = _tried(shape, w_shape, geometry, device)
    if not exact and (shape, w_shape, geometry) not in _warned:
        _warned.add((shape, w_shape, geometry))
        warnings.warn(
            f"the library's fp32 convolution is not exact for input {tuple(shape)}, weight {tuple(w_shape)} and "
            f"{geometry}; such layers are computed in float64 instead",
            stacklevel=2,
        )
    return exact


_warned: set[tuple[Any, ...]] = set()


@functools.lru_cache(maxsize=4096)
def _tried(shape: torch.Size, w_shape: torch.Size, geometry: Geometry, device: torch.device) -> bool:
    """cuDNN chooses its algorithm by shape; those of Winograd and Fourier round.

    Sums that are no integers give them away, and the first and the last image are computed in float64 beside. Integers of
    both signs cancel, so that even Winograd's sums may fit; those of one sign do not.
    """
    largest = max(1, math.isqrt(EXACT_FLOAT32 // math.prod(w_shape[1:])))  # a sum of products needs all of its bits
    generator = torch.Generator(device).manual_seed(0)

    def integers(shape: torch.Size, lowest: int) -> Tensor:
        empty = torch.empty(shape, device=device, memory_format=torch.channels_last)
        return empty.random_(lowest, largest + 1, generator=generator)

    with preparing():
        for lowest in (-largest, max(1, largest - 3)):
            x, w = integers(shape, lowest), integers(w_shape, lowest)
            sums = geometry.conv2d(x, w)
            ends = geometry.conv2d(torch.stack([x[0], x[-1]]).double(), w.double())
            if not torch.equal(sums, sums.round()) or not torch.equal(torch.stack([sums[0], sums[-1]]).double(), ends):
                return False
    return True
