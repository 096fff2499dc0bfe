"""How a convolution window moves."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

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

    def unpadded(self) -> "Geometry":
        """The same movement over an input that already carries its padding."""
        return Geometry(self.stride, (0, 0), self.dilation, self.groups)

    def pad(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) with its border of zeros."""
        height, width = self.padding
        return F.pad(x, (width, width, height, height)) if height or width else x

    def conv2d(self, x: Tensor, weight: Tensor, groups: int | None = None) -> Tensor:
        """The ordinary convolution with this geometry, with other groups where given."""
        groups = self.groups if groups is None else groups
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, groups)
