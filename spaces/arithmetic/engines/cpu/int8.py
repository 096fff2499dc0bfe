"""Factors in bytes on the CPU's matrix units (AMX, VNNI), through oneDNN's quantised convolution.

Small layers, and those with one filter for every channel, have loops of their own.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import dense_int8, depthwise_int8, onednn
from spaces.arithmetic.engines.exact_float import EXACT_FLOAT32, finish, slices_of_terms
from spaces.arithmetic.engines.features import Features, describe, expand_once
from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.byte_factors import MOST_CHANNELS, byte_factors, known_byte_factors
from spaces.multipliers.products import ProductTable

OFFSET = onednn.OFFSET
_CHUNK = 1 << 19  # sums, of four bytes each, that are added up at a time


@dataclass(frozen=True)
class _Part:
    """One call of the library: some features of some channels."""

    channels: slice | None  # of every group; None: all
    features: Features
    weights: Tensor  # (O, C/groups·R, kH, kW) int8
    prepacked: Tensor
    weight: int  # what its sums count with


class Packed:
    """A layer's weights, and the calls that compute its sums; these are made when they are first needed."""

    def __init__(self, weights: Tensor, table: ProductTable, geometry: Geometry) -> None:
        self.weights, self.table, self.geometry = weights, table, geometry
        self.factors = known_byte_factors(table)
        self.outputs, self.inner, *self.kernel = weights.shape
        self.zero_point, by_index = _zero_point(table, geometry.groups > 1)
        # (O,) float64: to be added to every sum
        self.constant = (
            torch.from_numpy(by_index)[weights.int()].sum(dim=(1, 2, 3)).double() if by_index.any() else None
        )

    @functools.cached_property
    def by_weight(self) -> Tensor:
        """The weights' side of every factor, (R, O, C/groups, kH, kW) int8."""
        return torch.from_numpy(self.factors.v)[:, self.weights.int()]

    @functools.cached_property
    def one_call(self) -> _Part | None:
        """The only call, where the library itself can round the 32-bit sums to float32 and scale them."""
        factors = self.factors
        fits = factors.channels == 1 or (factors.channels and self.inner > 1 and factors.weight[-1] == 1)
        if not fits or factors.weight[0] != 1 or self.constant is not None:
            return None
        products = self.inner * int(np.prod(self.kernel))
        if products * _largest_product(self.table, self.zero_point) >= 2**31 and self._largest.sum() >= 2**31:
            return None
        return self._part(1, slice(0, factors.channels), None)

    @functools.cached_property
    def wide(self) -> bool:
        """Whether sums need float64."""
        constant = 0.0 if self.constant is None else float(self.constant.abs().max())
        return float(self._largest @ self.factors.weight.astype(np.float64)) + constant >= EXACT_FLOAT32

    @functools.cached_property
    def parts(self) -> tuple[_Part, ...]:
        """Calls of which none has sums beyond 2^24."""
        if not self.wide and self.one_call:
            return (self.one_call,)
        per_channel = self._by_channel.amax(dim=(1, 2)).numpy()
        cuts = slices_of_terms(self.factors.weight, per_channel, self.inner, self.wide)
        return tuple(self._part(*cut) for cut in cuts)

    @functools.cached_property
    def _by_channel(self) -> Tensor:
        """What each channel can add to a sum through each feature with these weights: (R, O, C/groups) float64."""
        taken = self.by_weight.to(torch.int32).abs().sum(dim=(3, 4)).double()
        return taken * torch.from_numpy(_largest(self.table, self.zero_point))[:, None, None]

    @functools.cached_property
    def _largest(self) -> np.ndarray:
        """What every feature can add to a sum: (R,) float64."""
        return self._by_channel.sum(dim=2).amax(dim=1).numpy()

    def _part(self, weight: int, terms: slice, channels: slice | None) -> _Part:
        width = self.inner if channels is None else channels.stop - channels.start
        features = _features(self.table, terms.start, terms.stop, width)
        inside = self.weights if channels is None else self.weights[:, channels]
        chosen = np.take(_by_code(self.table, terms.start, terms.stop), inside.numpy(), axis=0)
        ordered = features.order_weights(torch.from_numpy(chosen).permute(0, 1, 4, 2, 3)).contiguous()
        return _Part(channels, features, ordered, onednn.prepack(ordered, self.zero_point, self.geometry), weight)


def refusal(table: ProductTable, device: torch.device) -> str:
    """Why the engine cannot be used: another device, a failed self-test or too many factors."""
    if device.type != "cpu":
        return "it runs on the CPU"
    if reason := onednn.failure():
        return reason
    if byte_factors(table) is None:
        return f"the table of {table.name} has no integer factors, or more than {MOST_CHANNELS}"
    return ""


def channels(table: ProductTable) -> int:
    """Factor channels per input channel."""
    return known_byte_factors(table).channels


def pack(
    weights: Tensor, table: ProductTable, geometry: Geometry
) -> Packed | dense_int8.Packed | depthwise_int8.Packed:
    w_shape = tuple(weights.shape)
    if dense_int8.suits(w_shape, table, geometry):
        return dense_int8.pack(weights, table, geometry)
    if depthwise_int8.suits(w_shape, table, geometry):
        return depthwise_int8.pack(weights, table, geometry)
    return Packed(weights, table, geometry)


def conv2d(
    x: Tensor, packed: Packed | dense_int8.Packed | depthwise_int8.Packed, fill: int, scale: Tensor | None = None
) -> Tensor:
    if isinstance(packed, dense_int8.Packed):
        return dense_int8.conv2d(x, packed, fill, scale)
    if isinstance(packed, depthwise_int8.Packed):
        return depthwise_int8.conv2d(x, packed, fill, scale)
    x, geometry = packed.geometry.avoid_onednn_bugs(x, tuple(packed.kernel), fill)
    zero_point = packed.zero_point
    if geometry.padding != (0, 0) and (zero_point or _moves(packed.table, fill)):
        x, geometry = geometry.pad(x, fill), geometry.unpadded()
    if scale is not None and packed.one_call:
        return _call(x, packed.one_call, zero_point, geometry, scale)
    images = _CHUNK // (packed.outputs * int(np.prod(geometry.output_size(x.shape[2:], packed.kernel))))
    if len(packed.parts) > 1 and x.shape[0] > max(1, images):  # so that what is added up stays in the cache
        chunks = [_sums(part, packed, geometry, scale) for part in x.split(max(1, images))]
        return torch.cat(chunks)
    return _sums(x, packed, geometry, scale)


def _sums(x: Tensor, packed: Packed, geometry: Geometry, scale: Tensor | None) -> Tensor:
    """The sums of several calls, for padded activations."""
    zero_point, total = packed.zero_point, None
    for part in packed.parts:
        sums = _call(x, part, zero_point, geometry, None)
        sums = sums.double() if packed.wide else sums
        if part.weight != 1:
            sums.mul_(part.weight)
        total = sums if total is None else total.add_(sums)
    if total is None:
        total = torch.zeros(x.shape[0], packed.outputs, *geometry.output_size(x.shape[2:], packed.kernel))
    return finish(total, packed.constant, scale)


def _call(x: Tensor, part: _Part, zero_point: int, geometry: Geometry, scale: Tensor | None) -> Tensor:
    groups = geometry.groups
    if part.channels is not None:
        x = x.unflatten(1, (groups, -1))[:, :, part.channels].flatten(1, 2)
    features = expand_once(x, part.features, groups)
    if not onednn.computes(features.shape[1:], part.weights.shape, zero_point, geometry):
        return finish(geometry.conv2d(features.double() - zero_point, part.weights.double()), None, scale)
    scale = onednn.ones(part.weights.shape[0]) if scale is None else scale
    return onednn.convolve(features, zero_point, part.prepacked, scale, geometry)


# -- features as the library wants them: bytes from 0 to 255 -----------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _zero_point(table: ProductTable, grouped: bool) -> tuple[int, np.ndarray]:
    """The byte that counts as zero, and the constant (256,) that then remains to be added by weight index.

    With groups, the library (oneDNN 3.12) is wrong at other zero points than 0; with padding it even writes beyond its
    memory there, so that ``conv2d`` pads by itself.
    """
    factors = known_byte_factors(table)
    at_zero = factors.constant - OFFSET * factors.weight @ factors.v.astype(np.int64)
    return (0, at_zero) if grouped or not at_zero.any() else (OFFSET, factors.constant)


@functools.lru_cache(maxsize=1024)
def _by_code(table: ProductTable, first: int, last: int) -> np.ndarray:
    """The weights' side of some factors by weight index, (256, last − first) int8."""
    return np.ascontiguousarray(known_byte_factors(table).v[first:last].T)


@functools.lru_cache(maxsize=1024)
def _largest_product(table: ProductTable, zero_point: int) -> float:
    """What one product can add to a sum at most, through all features."""
    return float(_largest(table, zero_point) @ np.abs(known_byte_factors(table).v.astype(np.int64)).max(axis=1))


@functools.lru_cache(maxsize=1024)
def _features(table: ProductTable, first: int, last: int, width: int) -> Features:
    return describe(_held(table)[:, first:last], width)


def _held(table: ProductTable) -> np.ndarray:
    return (known_byte_factors(table).u.astype(np.int64) + OFFSET).astype(np.uint8)


@functools.lru_cache(maxsize=1024)
def _largest(table: ProductTable, zero_point: int) -> np.ndarray:
    """The largest magnitude of every feature, (R,) float64."""
    return np.abs(_held(table).astype(np.float64) - zero_point).max(axis=0, initial=0)


def _moves(table: ProductTable, fill: int) -> bool:
    """Whether the index ``fill`` has other features than the zeros that the library pads with."""
    return bool(_held(table)[fill].any())
