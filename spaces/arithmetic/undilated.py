"""Depthwise convolutions without their dilation.

A dilation d sees every d-th pixel only. With stride 1 that is a plain convolution of each of the d² images that take
every d-th pixel, with stride d of one of them. Libraries are several times slower with dilation, above all backwards.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry


@dataclass(frozen=True)
class Undilated:
    """How to take the dilation away, where that is exact; otherwise every method returns what it is given."""

    dilation: int  # 1: there is nothing to take away
    strided: bool  # with the stride d, one image in d² is all that counts
    geometry: Geometry  # of the convolution that is left
    size: torch.Size  # of the input

    @classmethod
    def of(cls, size: torch.Size, out: tuple[int, ...], geometry: Geometry) -> Self:
        """For an input of ``size`` and an output of ``out``, both (N, C, H, W)."""
        d = geometry.dilation[0]
        depthwise = geometry.groups == size[1] > 1
        if d > 1 and depthwise and geometry.dilation == (d, d) and geometry.stride in ((1, 1), (d, d)):
            strided = geometry.stride == (d, d)
            sides = (*geometry.padding, *size[2:], *(() if strided else out[2:]))
            if all(side % d == 0 for side in sides):
                padding = (geometry.padding[0] // d, geometry.padding[1] // d)
                return cls(d, strided, Geometry((1, 1), padding, (1, 1), geometry.groups), size)
        return cls(1, False, geometry, size)

    def split_input(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N·d², C, H/d, W/d), or with stride d (N, C, H/d, W/d); channels-last, as all that follows."""
        if self.strided:
            d = self.dilation
            return x[:, :, ::d, ::d].contiguous(memory_format=torch.channels_last)
        return self._split(x)

    def split_output(self, y: Tensor) -> Tensor:
        """The output's gradient in the order in which the plain convolution has its output."""
        return y if self.strided else self._split(y)

    def join_output(self, y: Tensor) -> Tensor:
        """The plain convolution's output in the order of the dilated one's."""
        return y if self.strided else self._join(y)

    def join_input(self, x: Tensor) -> Tensor:
        """The plain convolution's gradient for its input as one for the whole input."""
        if not self.strided:
            return self._join(x)
        whole = torch.zeros(self.size, dtype=x.dtype, device=x.device).contiguous(memory_format=torch.channels_last)
        whole[:, :, :: self.dilation, :: self.dilation] = x
        return whole

    def _split(self, x: Tensor) -> Tensor:
        d = self.dilation
        if d == 1:
            return x
        apart = x.permute(0, 2, 3, 1).unflatten(2, (-1, d)).unflatten(1, (-1, d)).permute(0, 2, 4, 1, 3, 5)
        return apart.flatten(0, 2).contiguous().permute(0, 3, 1, 2)

    def _join(self, x: Tensor) -> Tensor:
        d = self.dilation
        if d == 1:
            return x
        together = x.permute(0, 2, 3, 1).unflatten(0, (-1, d, d)).permute(0, 3, 1, 4, 2, 5).contiguous()
        return together.flatten(1, 2).flatten(2, 3).permute(0, 3, 1, 2)
