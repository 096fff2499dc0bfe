"""The oracle: unfold, look every single product up in the table, add in int64. No shortcut, and slow."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.products import ProductTable


@dataclass(frozen=True)
class Packed:
    weights: Tensor  # (groups, O/groups, K) int64
    kernel: tuple[int, int]
    table: Tensor  # (256, 256) int64
    geometry: Geometry


def refusal(table: ProductTable, device: torch.device) -> str:  # noqa: ARG001
    """The reference computes everything everywhere."""
    return ""


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed:
    outputs, _, *kernel = weights.shape
    rows = weights.long().reshape(geometry.groups, outputs // geometry.groups, -1)
    return Packed(rows, tuple(kernel), _entries(table, weights.device), geometry)


@functools.lru_cache(maxsize=64)
def _entries(table: ProductTable, device: torch.device) -> Tensor:
    return torch.tensor(table.table, dtype=torch.int64, device=device)


def conv2d(x: Tensor, packed: Packed, fill: int | Tensor, scale: Tensor | None = None) -> Tensor:
    geometry, weights = packed.geometry, packed.weights
    padded = geometry.pad(x.double(), fill)
    columns = F.unfold(padded, packed.kernel, geometry.dilation, 0, geometry.stride).long()
    batch, _, positions = columns.shape
    columns = columns.view(batch, geometry.groups, -1, positions)
    sums = [  # one output channel of every group at a time, to bound the memory
        packed.table[columns, weights[:, channel, :, None]].sum(dim=2) for channel in range(weights.shape[1])
    ]
    size = geometry.output_size(x.shape[2:], packed.kernel)
    sums = torch.stack(sums, dim=2).reshape(batch, -1, *size)
    return sums if scale is None else sums.float() * scale.view(1, -1, 1, 1)
