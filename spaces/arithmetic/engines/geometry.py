"""How a convolution window moves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.precision import plain_fp32

Pair = tuple[int, int]


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


@dataclass(frozen=True)
class Geometry:
    """Stride, zero padding, dilation (height, width) and groups, as in ``torch.nn.functional.conv2d``."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, stride: int | Pair, padding: int | Pair, dilation: int | Pair, groups: int) -> Self:
        return cls(_pair(stride), _pair(padding), _pair(dilation), groups)

    def is_pointwise(self, kernel: Sequence[int]) -> bool:
        """Whether a kernel that moves so sees one pixel at a time, and each of them once: a product of matrices."""
        return tuple(kernel) == (1, 1) and self == Geometry()

    def unpadded(self) -> "Geometry":
        """The same movement over an input that already carries its padding."""
        return replace(self, padding=(0, 0))

    def pad(self, x: Tensor, value: int | Tensor = 0) -> Tensor:
        """x (N, C, H, W) with its border filled with ``value``, a number or a 0-dimensional tensor on x's device."""
        height, width = self.padding
        if not height and not width:
            return x
        if not isinstance(value, Tensor):
            return F.pad(x, (width, width, height, height), value=value)
        padded = F.pad(x, (width, width, height, height))
        inside = F.pad(torch.ones_like(x[:1, :1], dtype=torch.bool), (width, width, height, height))
        return torch.where(inside, padded, value.to(x.dtype))

    def output_size(self, size: Pair, kernel: Pair) -> Pair:
        """Height and width of the output for an input of ``size``."""
        height, width = (
            (side + 2 * padding - (extent - 1) * dilation - 1) // stride + 1
            for side, extent, stride, padding, dilation in zip(size, kernel, self.stride, self.padding, self.dilation)
        )
        return height, width

    def avoid_onednn_bugs(self, x: Tensor, kernel: Pair, fill: int | Tensor) -> tuple[Tensor, "Geometry"]:
        """The same convolution without what oneDNN (3.12, in torch 2.13) gets wrong or dies of.

        That is: windows that lie in the padding altogether, and a stride where there is one output row or column.
        """
        extents = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, self.dilation)]
        ones = [size == 1 < stride for size, stride in zip(self.output_size(x.shape[2:], kernel), self.stride)]
        lost = [
            padding and (padding >= extent or side < extent)
            for padding, extent, side in zip(self.padding, extents, x.shape[2:])
        ]
        if not any(ones) and not any(lost):
            return x, self
        x, geometry = self.pad(x, fill), self.unpadded()
        height, width = (extent if one else side for extent, one, side in zip(extents, ones, x.shape[2:]))
        down, across = (1 if one else stride for one, stride in zip(ones, self.stride))
        return x[:, :, :height, :width], replace(geometry, stride=(down, across))

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """The ordinary convolution with this geometry."""
        with plain_fp32(x.device):
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


def pixels_of(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) as (N, H, W, C), one number after the other: without a copy if they are channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()
