"""Factors in bytes on the CPU's matrix units (AMX, VNNI), through oneDNN's quantised convolution.

The operators are not a stable interface of torch, and a CPU without the right instructions lets 16-bit sums saturate. So
a self-test on extreme and random data must pass before the engine is used.
"""

import functools
import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_int8
from spaces.arithmetic.engines.exact_float import EXACT_FLOAT32, finish, slices_of_terms
from spaces.arithmetic.engines.features import Features, describe, expand_once
from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.byte_factors import MOST_CHANNELS, byte_factors, known_byte_factors
from spaces.multipliers.products import ProductTable
from spaces.warmup import preparing

OFFSET = depthwise_int8.OFFSET
_CHUNK = 1 << 19  # sums, of four bytes each, that are added up at a time
_LARGEST_WINDOW = EXACT_FLOAT32 // (255 * 128)  # products of one feature and channel that float32 holds exactly


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
        return _Part(channels, features, ordered, _prepack(ordered, self.zero_point, self.geometry), weight)


def refusal(table: ProductTable, device: torch.device) -> str:
    """Why the engine cannot be used: another device, a failed self-test or too many factors."""
    if device.type != "cpu":
        return "it runs on the CPU"
    if reason := _self_test():
        return reason
    if byte_factors(table) is None:
        return f"the table of {table.name} has no integer factors, or more than {MOST_CHANNELS}"
    return ""


def channels(table: ProductTable) -> int:
    """Factor channels per input channel."""
    return known_byte_factors(table).channels


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed | depthwise_int8.Packed:
    if depthwise_int8.suits(weights, table, geometry):
        return depthwise_int8.pack(weights, table, geometry)
    return Packed(weights, table, geometry)


def conv2d(x: Tensor, packed: Packed | depthwise_int8.Packed, fill: int, scale: Tensor | None = None) -> Tensor:
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
    if not _computes(features.shape[1:], part.weights.shape, zero_point, geometry):
        return finish(geometry.conv2d(features.double() - zero_point, part.weights.double()), None, scale)
    scale = _ones(part.weights.shape[0]) if scale is None else scale
    return _convolve(features, zero_point, part.prepacked, scale, geometry)


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


# -- the library's operators -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _ones(outputs: int) -> Tensor:
    return torch.ones(outputs)


@functools.lru_cache(maxsize=64)
def _zeros(outputs: int) -> Tensor:
    return torch.zeros(outputs, dtype=torch.int64)


def _prepack(weights: Tensor, zero_point: int, geometry: Geometry) -> Tensor:
    g = geometry
    ones = _ones(weights.shape[0])
    return torch.ops.onednn.qconv_prepack(
        weights.contiguous(), ones, 1.0, zero_point, g.stride, g.padding, g.dilation, g.groups, None
    )


def _convolve(features: Tensor, zero_point: int, prepacked: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """float32(Σ (f − zero_point)·v)·scale; features uint8, sums in 32 bits."""
    g, zeros = geometry, _zeros(scale.numel())
    return torch.ops.onednn.qconv2d_pointwise(
        features, 1.0, zero_point, prepacked, scale, zeros, None,
        g.stride, g.padding, g.dilation, g.groups, 1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip


@functools.cache
def _self_test() -> str:
    """Why the matrix units cannot be used; empty when they compute every test convolution exactly."""
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise") or not hasattr(torch.ops.onednn, "qconv_prepack"):
        return "this torch has no quantised convolution of oneDNN"
    try:
        with preparing():
            failed = [case for case in _CASES if not _agrees(*case)]
    except Exception as error:  # an unstable operator fails in its own ways; each means the same to us
        reason = f"its self-test failed ({type(error).__name__}: {str(error).splitlines()[0]})"
    else:
        if not failed:
            return ""
        reason = f"its self-test gave wrong sums ({len(failed)} of {len(_CASES)} convolutions; no 8-bit matrix units?)"
    warnings.warn(f"the int8 engine is left out: {reason}; other engines are exact, but slower", stacklevel=2)
    return reason


@functools.lru_cache(maxsize=4096)
def _computes(shape: torch.Size, w_shape: torch.Size, zero_point: int, geometry: Geometry) -> bool:
    """Whether the library is exact for layers of this shape (C, H, W), tried on one random image when it first occurs."""
    if w_shape[2] * w_shape[3] > _LARGEST_WINDOW:
        return False
    largest = max(1, min(127, EXACT_FLOAT32 // (256 * int(np.prod(w_shape[1:])))))  # so that float32 is exact, too
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1, *shape), generator=generator, dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randint(-largest, largest + 1, w_shape, generator=generator, dtype=torch.int8)
    expected = geometry.conv2d(x.contiguous().float() - zero_point, w.float())
    got = _convolve(x, zero_point, _prepack(w, zero_point, geometry), _ones(w_shape[0]), geometry)
    if not torch.equal(got, expected):
        warnings.warn(
            f"oneDNN's quantised convolution is wrong for input {tuple(shape)}, weight {tuple(w_shape)} and {geometry}; "
            "such layers are computed in float64 instead",
            stacklevel=2,
        )
        return False
    return True


# Channels, outputs, kernel, zero point and geometry, as ``conv2d`` asks for them.
_LAYERS = (
    (64, 32, 3, 0, Geometry((1, 1), (1, 1), (1, 1), 1)),
    (64, 32, 3, OFFSET, Geometry((1, 1), (0, 0), (1, 1), 1)),
    (40, 24, 1, OFFSET, Geometry((2, 2), (0, 0), (1, 1), 1)),
    (24, 16, 3, OFFSET, Geometry((1, 1), (0, 0), (2, 2), 1)),
    (16, 16, 3, 0, Geometry((1, 1), (2, 2), (2, 2), 16)),
    (12, 8, 3, 0, Geometry((1, 2), (1, 0), (1, 1), 4)),
    (1500, 5, 1, OFFSET, Geometry()),
)
_CASES = tuple(itertools.product(_LAYERS, (False, True)))


def _agrees(layer: tuple[Any, ...], extreme: bool) -> bool:
    """Whether one convolution is exact, by a route through float64, and scaled with a single rounding of the sum."""
    channels, outputs, kernel, zero_point, geometry = layer
    generator = torch.Generator().manual_seed(channels)
    w_shape = (outputs, channels // geometry.groups, kernel, kernel)
    if extreme:  # where 16-bit sums of two products would saturate
        x = torch.full((2, channels, 7, 9), 255, dtype=torch.uint8)
        w = torch.randint(0, 2, w_shape, generator=generator) * 255 - 128
    else:
        x = torch.randint(0, 256, (2, channels, 7, 9), generator=generator).to(torch.uint8)
        w = torch.randint(-128, 128, w_shape, generator=generator)
    x, w = x.contiguous(memory_format=torch.channels_last), w.to(torch.int8)
    scale = torch.rand(outputs, generator=generator) + 1e-3
    expected = geometry.conv2d(x.double() - zero_point, w.double()).float() * scale.view(1, -1, 1, 1)
    return torch.equal(_convolve(x, zero_point, _prepack(w, zero_point, geometry), scale, geometry), expected)
