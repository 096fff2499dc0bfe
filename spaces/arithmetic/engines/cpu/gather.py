"""Look every product up: for tables without factors, or with too many."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_gather, gather_loops
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

FEWEST_OUTPUTS = 4  # outputs per group from which rows of products are worth building


@dataclass(frozen=True)
class Packed:
    weights: np.ndarray  # (K, O) uint8, taps in the order (row, column, channel)
    kernel: tuple[int, int]
    outputs: int
    table: np.ndarray  # (256, 256), by activation
    columns: np.ndarray  # the same by weight
    geometry: Geometry


def refusal(table: ProductTable, device: torch.device) -> str:  # noqa: ARG001
    """Why the engine cannot be used: another device."""
    return "" if device.type == "cpu" else "it runs on the CPU"


def channels(table: ProductTable) -> int:  # noqa: ARG001
    """No factors: products are looked up."""
    return 0


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed | depthwise_gather.Packed:
    if depthwise_gather.suit(weights, geometry):
        return depthwise_gather.pack(weights, table, geometry)
    outputs, _, *kernel = weights.shape
    taps = weights.permute(2, 3, 1, 0).flatten(0, 2).contiguous().numpy()
    small = np.iinfo(np.int16)
    fits = table.table.min() >= small.min and table.table.max() <= small.max
    entries = np.ascontiguousarray(table.table, dtype=np.int16 if fits else np.int32)
    return Packed(taps, tuple(kernel), outputs, entries, np.ascontiguousarray(entries.T), geometry)


def conv2d(x: Tensor, packed: Packed | depthwise_gather.Packed, fill: int, scale: Tensor | None = None) -> Tensor:
    if isinstance(packed, depthwise_gather.Packed):
        return depthwise_gather.conv2d(x, packed, fill, scale)
    geometry, kernel = packed.geometry, packed.kernel
    batch, channels = x.shape[:2]
    height, width = geometry.output_size(x.shape[2:], kernel)
    padded = pixels_of(geometry.pad(x, fill))
    base, offset = _positions(padded.shape, (height, width), kernel, geometry)
    sums = torch.empty(batch, height, width, packed.outputs, dtype=torch.int32)
    inner, per_group = channels // geometry.groups, packed.outputs // geometry.groups
    chunk = max(1, min(gather_loops.CHUNK, -(-base.size // torch.get_num_threads())))
    where, tasks = (base.ctypes.data, offset.ctypes.data), -(-base.size // chunk)
    numbers = (packed.outputs, chunk, packed.table.itemsize)
    work = base.size * len(offset)
    if per_group < FEWEST_OUTPUTS or base.size < SIZE:
        layer = gather_loops.Layer(base.size, len(offset), packed.outputs, *numbers, geometry.groups, inner)
        memory = (packed.table.ctypes.data, packed.weights.ctypes.data, sums.data_ptr())
        share(gather_loops.gather_products, (padded.data_ptr(), *where, *memory, layer), tasks, work)
    else:
        layer = gather_loops.Layer(base.size, len(offset), per_group, *numbers)
        for group in range(geometry.groups):
            own = slice(group * per_group, (group + 1) * per_group)
            weights = np.ascontiguousarray(packed.weights[:, own])
            memory = (packed.columns.ctypes.data, weights.ctypes.data, sums.data_ptr() + 4 * own.start)
            share(gather_loops.gather_rows, (padded.data_ptr() + group * inner, *where, *memory, layer), tasks, work)
    sums = sums.permute(0, 3, 1, 2)
    return sums if scale is None else sums.to(torch.float32).mul_(scale.view(1, -1, 1, 1))


def _positions(
    shape: tuple[Any, ...], size: tuple[int, int], kernel: tuple[int, int], geometry: Geometry
) -> tuple[Any, ...]:
    """Where output pixels begin and how far their taps reach, in a flat (N, H, W, C) array: int64 each."""
    batch, height, width, channels = shape
    inner = channels // geometry.groups
    image = np.arange(batch) * height
    row = np.arange(size[0]) * geometry.stride[0]
    column = np.arange(size[1]) * geometry.stride[1]
    base = ((image[:, None, None] + row[:, None]) * width + column) * channels
    down = np.arange(kernel[0]) * geometry.dilation[0]
    right = np.arange(kernel[1]) * geometry.dilation[1]
    offset = (down[:, None, None] * width + right[:, None]) * channels + np.arange(inner)
    return base.ravel(), offset.ravel()
