"""Factors in bytes of depthwise layers, four to a word, on the CPU's dot-product instructions (VNNI); by loops of our own.

Libraries are slow where a group has several features for its only filter.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_convolution
from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.byte_factors import known_byte_factors
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

OFFSET = 128  # a feature u is held as the byte u + 128
_BYTES = 4  # of a word
_LARGEST = 255 * 128  # product of two bytes


@dataclass(frozen=True)
class Packed:
    by_weight: Tensor  # (C, words, kH, kW) int32, in blocks
    constant: Tensor  # (C,) int32: to be added to every sum
    features: depthwise_convolution.Tables
    geometry: Geometry


def suits(w_shape: tuple[int, ...], table: ProductTable, geometry: Geometry) -> bool:
    """Whether a layer has one filter for every channel, and its sums and the factors' weights are simple enough."""
    return depthwise_convolution.DOT_PRODUCTS and _is_simple(w_shape, table, geometry)


@functools.lru_cache(maxsize=4096)
def _is_simple(w_shape: tuple[int, ...], table: ProductTable, geometry: Geometry) -> bool:
    factors = known_byte_factors(table)
    if not factors.channels or (factors.weight != 1).any():
        return False
    constant = int(np.abs(_constant(table)).max())
    largest = int(np.prod(w_shape[1:])) * (factors.channels * _LARGEST + constant)
    return depthwise_convolution.suit(w_shape, geometry, torch.device("cpu")) and largest < 2**31


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed:
    """Weights (C, 1, kH, kW) uint8."""
    by_weight, constant = depthwise_convolution.words(weights.contiguous(), _by_weight(table), _constant(table))
    return Packed(by_weight, constant, _features(table), geometry)


def conv2d(x: Tensor, packed: Packed, fill: int, scale: Tensor | None) -> Tensor:
    """The sums (N, C, H', W') of codes x (N, C, H, W): int32, or scaled float32."""
    return depthwise_convolution.convolve_words(
        x, packed.features, packed.by_weight, packed.geometry, fill, scale, packed.constant
    )


def _words(values: np.ndarray) -> np.ndarray:
    """Bytes (256, R) → words (256, R / 4) int32, the last one filled up with zeros."""
    padded = np.zeros((SIZE, -(-values.shape[1] // _BYTES) * _BYTES), dtype=values.dtype)
    padded[:, : values.shape[1]] = values
    return padded.view(np.int32)


@functools.lru_cache(maxsize=256)
def _features(table: ProductTable) -> depthwise_convolution.Tables:
    held = (known_byte_factors(table).u.astype(np.int64) + OFFSET).astype(np.uint8)
    return depthwise_convolution.Tables.of_words(_words(held).T)


@functools.lru_cache(maxsize=256)
def _by_weight(table: ProductTable) -> np.ndarray:
    """(256, words) int32."""
    return _words(np.ascontiguousarray(known_byte_factors(table).v.T))


@functools.lru_cache(maxsize=256)
def _constant(table: ProductTable) -> np.ndarray:
    """What remains to be added by weight index (256,): the factors' own constant, less what the offset has added."""
    factors = known_byte_factors(table)
    return factors.constant - OFFSET * factors.v.astype(np.int64).sum(axis=0)
