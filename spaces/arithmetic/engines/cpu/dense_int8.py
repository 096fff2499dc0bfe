"""Factors in bytes of small dense layers, on the CPU's dot-product instructions (VNNI); by a loop of our own.

Where a layer has few products to a pixel, packing its weights for the library and calling it take longer than the sums.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import dense_loops as loops
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.memory import CODES, LANES, has_dot_products, has_permutes
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.byte_factors import known_byte_factors
from spaces.multipliers.products import ProductTable

OFFSET = 128  # a feature u is held as the byte u + 128
_LARGEST = 255 * 128  # product of two bytes
_MOST_WORDS = 160  # vectors of weights for a pixel, beyond which the library's matrix units are faster


@dataclass(frozen=True)
class Packed:
    weights: np.ndarray  # (blocks, R, kH, kW, words, 16, 4) int8
    constant: np.ndarray  # (blocks, 16) int32: to be added to every sum
    features: np.ndarray  # (R, 256) uint8
    outputs: int
    kernel: tuple[int, int]
    geometry: Geometry


@functools.lru_cache(maxsize=4096)
def suits(w_shape: tuple[int, ...], table: ProductTable, geometry: Geometry) -> bool:
    """Whether a layer of weights (O, C, kH, kW) is small enough, and its sums and the factors' weights are simple enough."""
    factors = known_byte_factors(table)
    if geometry.groups > 1 or not (has_dot_products() and has_permutes()):
        return False
    if not factors.channels or (factors.weight != 1).any():
        return False
    products = int(np.prod(w_shape[1:]))
    largest = products * (factors.channels * _LARGEST + int(np.abs(constants(table)).max()))
    words = _blocks(w_shape[0]) * factors.channels * _words(w_shape[1]) * w_shape[2] * w_shape[3]
    return words <= _MOST_WORDS and largest < 2**31


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed:
    """Weights (O, C, kH, kW) uint8."""
    by_code, features = _sides(table)
    outputs, inputs, *kernel = weights.shape
    blocks = _blocks(outputs)
    packed = np.zeros((blocks, by_code.shape[1], *kernel, _words(inputs), LANES, loops.WORD), dtype=np.int8)
    constant = np.zeros((blocks, LANES), dtype=np.int32)
    loops.pack(weights.numpy(), by_code, constants(table), packed, constant)
    return Packed(packed, constant, features, outputs, (kernel[0], kernel[1]), geometry)


def conv2d(x: Tensor, packed: Packed, fill: int, scale: Tensor | None) -> Tensor:
    """The sums (N, O, H', W') of codes x (N, C, H, W): int32, or scaled float32."""
    x = pixels_of(x)
    layer, offsets, size = _layer(
        tuple(x.shape), packed.outputs, packed.kernel, len(packed.features), packed.geometry, fill
    )
    y = torch.empty((len(x), *size, packed.outputs))
    scaled = None if scale is None else scale.float().contiguous()
    arguments = (
        x.data_ptr(), packed.features.ctypes.data, layer.data_ptr(), offsets.data_ptr(), packed.weights.ctypes.data,
        0 if scaled is None else scaled.data_ptr(), packed.constant.ctypes.data, y.data_ptr(), int(scale is not None),
    )  # fmt: skip
    share(loops.convolve, arguments, len(x), y.numel())
    return (y if scale is not None else y.view(torch.int32)).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=1024)
def _layer(
    size: tuple[int, ...], outputs: int, kernel: tuple[int, int], features: int, geometry: Geometry, fill: int
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """The numbers of a layer that reads codes (N, H, W, C) = ``size``, its windows' offsets, and its output's size."""
    _, height, width, channels = size
    rows, columns = geometry.output_size((height, width), kernel)
    out = rows, columns
    if geometry.is_pointwise(kernel):  # one long row, so that fewer tiles are cut short
        rows, columns, height, width = 1, rows * columns, 1, height * width
    (down, along), (top, left), (far, gap) = geometry.stride, geometry.padding, geometry.dilation
    held, wide = _words(channels) * loops.WORD, width + 2 * left
    bytes_ = -(-((height + 2 * top) * wide * held) // CODES) * CODES
    numbers = np.zeros(15, dtype=np.int64)
    numbers[[loops.HEIGHT, loops.WIDTH, loops.CHANNELS, loops.HELD, loops.WIDE]] = height, width, channels, held, wide
    numbers[[loops.SIZE, loops.FIRST]] = bytes_, (top * wide + left) * held
    numbers[[loops.ROWS, loops.COLUMNS, loops.OUTPUTS]] = rows, columns, outputs
    numbers[[loops.DOWN, loops.ALONG, loops.FEATURES, loops.FILL]] = down, along, features, fill
    lines = np.arange(kernel[0])[:, None] * far * wide + np.arange(kernel[1]) * gap
    offsets = np.arange(features)[:, None, None, None] * bytes_ + (lines * held)[..., None]
    offsets = offsets + np.arange(held // loops.WORD) * loops.WORD  # (R, kH, kW, words)
    numbers[loops.WORDS] = offsets.size
    return torch.from_numpy(numbers), torch.from_numpy(offsets.astype(np.int64).ravel()), out


def _blocks(outputs: int) -> int:
    return -(-outputs // LANES)


def _words(channels: int) -> int:
    return -(-channels // loops.WORD)


@functools.lru_cache(maxsize=256)
def _sides(table: ProductTable) -> tuple[np.ndarray, np.ndarray]:
    """The factors by weight index (256, R) int8, and by activation index (R, 256) uint8."""
    factors = known_byte_factors(table)
    held = (factors.u.astype(np.int64) + OFFSET).astype(np.uint8)
    return np.ascontiguousarray(factors.v.T), np.ascontiguousarray(held.T)


@functools.lru_cache(maxsize=256)
def constants(table: ProductTable) -> np.ndarray:
    """What remains to be added by weight index (256,) int64: the factors' own constant, less what the offset has added."""
    factors = known_byte_factors(table)
    return factors.constant - OFFSET * factors.v.astype(np.int64).sum(axis=0)
