"""Operands that tempt an engine to be wrong, what must come of them by the definition, and where they lie in memory."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

OPERANDS = ("random", "lowest", "highest", "alternating", "saturating")
HELD = ("channels-last", "contiguous", "unaligned", "strided")
FILL, USUAL_FILL = 77, 128  # indices of padded positions: one whose features are not zero, and that of a signed zero
DIFFERENT_IMAGES = 8  # a larger batch repeats so many in random order: every sum is checked, few have to be known
_POISON = 0x7FD5D5D5  # a NaN as float32, and far beyond any sum as int32
_ODD = 3  # bytes beyond an aligned address
_STILL = Geometry()


@dataclass(frozen=True)
class Layer:
    """The shape of a convolution: input (N, C, H, W), outputs, kernel (height, width) and geometry."""

    name: str
    input: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int]
    geometry: Geometry = _STILL
    different: int = DIFFERENT_IMAGES

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """The weight's shape (O, C/groups, kH, kW)."""
        return self.outputs, self.input[1] // self.geometry.groups, *self.kernel


@dataclass(frozen=True)
class Example:
    """Operands of a layer and what must come of them."""

    images: np.ndarray  # (different images, C, H, W) uint8
    w: np.ndarray  # (O, C/groups, kH, kW) uint8
    fill: int
    scale: np.ndarray  # (O,) float32
    sums_of_images: np.ndarray  # (different images, O, H', W') int64
    order: np.ndarray  # (N,): which image each one of the batch is

    @property
    def x(self) -> np.ndarray:
        """(N, C, H, W) uint8."""
        return self.images[self.order]

    @property
    def sums(self) -> np.ndarray:
        """(N, O, H', W') int64."""
        return self.sums_of_images[self.order]

    @property
    def scaled(self) -> np.ndarray:
        """The sums rounded once to float32, times the scale."""
        return self.sums.astype(np.float32) * self.scale[:, None, None]


@functools.lru_cache(maxsize=256)
def make_example(table: ProductTable, layer: Layer, kind: str) -> Example:
    """The operands of one kind, always the same, and their sums by the definition; shared by all engines."""
    rng = np.random.default_rng([len(kind), *layer.input, layer.outputs])
    images = min(layer.input[0], layer.different)
    x, w = _codes(kind, (images, *layer.input[1:]), layer.weights, rng)
    fill = FILL if kind in ("random", "alternating") else USUAL_FILL
    sums = sums_by_definition(x, w, table.table, layer.geometry, fill)
    scale = (rng.random(layer.outputs) + 1e-3).astype(np.float32)
    order = np.arange(images) if images == layer.input[0] else rng.integers(0, images, layer.input[0])
    return Example(x, w, fill, scale, sums, order)


def _codes(
    kind: str, x_shape: tuple[Any, ...], w_shape: tuple[Any, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices for activations and weights, uint8."""
    if kind == "random":
        x, w = (rng.integers(0, SIZE, shape) for shape in (x_shape, w_shape))
    elif kind in ("lowest", "highest"):
        x, w = (np.full(shape, 0 if kind == "lowest" else SIZE - 1) for shape in (x_shape, w_shape))
    elif kind == "alternating":
        x, w = (np.indices(shape).sum(axis=0) % 2 * (SIZE - 1) for shape in (x_shape, w_shape))
    elif kind == "saturating":  # two neighbouring products of one sign exceed 16 bits as bytes are multiplied
        x = np.full(x_shape, SIZE - 1)
        w = np.broadcast_to((np.arange(w_shape[1]) // 2 % 2 * (SIZE - 1))[:, None, None], w_shape)
        w = (w + np.arange(w_shape[0])[:, None, None, None] % 2 * (SIZE - 1)) % (2 * SIZE - 2)
    else:
        raise ValueError(f"no operands are called '{kind}'")
    return x.astype(np.uint8), w.astype(np.uint8)


def sums_by_definition(x: np.ndarray, w: np.ndarray, table: np.ndarray, geometry: Geometry, fill: int) -> np.ndarray:
    """Σ T[x̂, ŵ], (N, O, H', W') int64, in plain numpy: a loop over input channels and taps, shared with no engine.

    x (N, C, H, W) and w (O, C/groups, kH, kW) are indices; padded positions hold the index ``fill``.
    """
    (up, left), (down, along), (far, wide) = geometry.padding, geometry.stride, geometry.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)), constant_values=fill)
    height = (padded.shape[2] - far * (w.shape[2] - 1) - 1) // down + 1
    width = (padded.shape[3] - wide * (w.shape[3] - 1) - 1) // along + 1
    inner, per_group = w.shape[1], len(w) // geometry.groups
    y, entries = np.zeros((len(x), height, width, len(w)), dtype=np.int64), table.astype(np.int64)
    for channel, k, m in np.ndindex(x.shape[1], *w.shape[2:]):
        group, own = divmod(channel, inner)
        outputs = slice(group * per_group, (group + 1) * per_group)
        seen = padded[:, channel, k * far :: down, m * wide :: along][:, :height, :width]
        y[..., outputs] += entries[:, w[outputs, own, k, m]][seen]
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def place(x: Tensor, way: str, device: torch.device) -> Tensor:
    """x (N, C, H, W) on the device, lying in memory as ``way`` says."""
    batch, channels, height, width = x.shape
    held = {"dtype": x.dtype, "device": device}
    if way == "contiguous":
        return x.to(device).contiguous()
    if way == "channels-last":
        memory = torch.empty((batch, height, width, channels), **held)
        return memory.permute(0, 3, 1, 2).copy_(x)
    if way == "unaligned":  # channels-last
        memory = torch.empty(x.numel() + _ODD, **held)[_ODD:]
        return memory.view(batch, height, width, channels).permute(0, 3, 1, 2).copy_(x)
    if way == "strided":
        return torch.empty((batch, 2 * channels, height, 2 * width), **held)[:, ::2, :, ::2].copy_(x)
    raise ValueError(f"no input is held '{way}'")


def poison(count: int, device: torch.device) -> None:
    """Leave rubbish in memory that the allocator is likely to hand out next for ``count`` values of 4 or 8 bytes."""
    blocks = [torch.full((count * words,), _POISON, dtype=torch.int32, device=device) for words in (1, 1, 2)]
    del blocks
