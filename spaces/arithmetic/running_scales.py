"""The scales of activations, by moving averages of their range over the batches of a training."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spaces.arithmetic.engines import quantise_loops as loops
from spaces.arithmetic.engines.gpu import quantisation
from spaces.arithmetic.engines.known_range import range_of
from spaces.arithmetic.quantise import LARGEST_CODE, LEVELS, SMALLEST_SCALE, Scale, dense, flat, is_dense
from spaces.multipliers.products import WEIGHT_ZERO


class RunningMaximum(nn.Module):
    """The activation scale of a signed circuit: an exponential moving average of max|x| over the training batches.

    A layer that has seen no training batch falls back on the maximum of the tensor at hand.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("maximum", torch.zeros(()))
        # What follows from the average, for one value of it
        self._kept: tuple[tuple[Any, ...], Scale | None] | None = None

    def forward(self, x: Tensor) -> Scale:
        """The scale of ``x`` (any shape); updates the average in training mode."""
        if self.training and x.device.type == "cpu":
            low, high = range_in_numbers(x)
            maximum = self.maximum
            batch, average = max(high, -low), float(maximum)
            moved_on = average + self.momentum * (batch - average) if average > 0 else batch
            maximum.fill_(moved_on)
            return Scale.of_maximum(moved_on)
        return self._scale(x)

    @torch.no_grad()
    def _scale(self, x: Tensor) -> Scale:
        """The same by tensors, and without training."""
        if self.training:
            if quantisation.works_on(x.device):
                levels, smallest = LARGEST_CODE, float(SMALLEST_SCALE)
                averaged = (self.maximum, self.momentum, levels, smallest)
                step, spare = quantisation.moved_maximum(*ranges_of_parts(x), *averaged)
                return Scale(step, -LARGEST_CODE, LARGEST_CODE, WEIGHT_ZERO, spare)
            low, high = value_range(x)
            batch, average = torch.maximum(high, -low), self.maximum.double()
            averaged = (average + self.momentum * (batch - average)).float()  # in the precision of plain numbers
            self.maximum.copy_(torch.where(average > 0, averaged, batch))
            return Scale.symmetric(self.maximum)
        state = (self.maximum.data_ptr(), self.maximum._version)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, Scale.symmetric(self.maximum) if self.maximum > 0 else None)
        if self._kept[1] is None:
            low, high = value_range(x)
            return Scale.symmetric(torch.maximum(high, -low))
        return self._kept[1]


class RunningRange(nn.Module):
    """The activation scale of an unsigned circuit: moving averages of the smallest and the largest value, zero included.

    A layer that has seen no training batch falls back on the range of the tensor at hand.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("minimum", torch.zeros(()))
        self.register_buffer("maximum", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Scale:
        """The scale of ``x`` (any shape); updates the averages in training mode."""
        if self.training and quantisation.works_on(x.device):
            momentum, smallest = float(np.float32(self.momentum)), float(SMALLEST_SCALE)
            averages = (self.minimum, self.maximum)
            step, spare, codes = quantisation.moved_range(*ranges_of_parts(x), *averages, momentum, LEVELS, smallest)
            lowest, highest, zero = codes.unbind()
            return Scale(step, lowest, highest, zero, spare)
        seen = self.maximum > self.minimum
        if not self.training and x.device.type == "cpu" and seen:  # on a GPU this would wait for it
            return Scale.affine(self.minimum, self.maximum)
        low, high = value_range(x)
        low, high = low.clamp_max(0), high.clamp_min(0)
        if not self.training:
            return Scale.affine(torch.where(seen, self.minimum, low), torch.where(seen, self.maximum, high))
        for average, value in ((self.minimum, low), (self.maximum, high)):
            average.copy_(torch.where(seen, moved(average, value, self.momentum), value))
        return Scale.affine(self.minimum, self.maximum)


def value_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value (float32, 0-dimensional), NaNs where there is one."""
    if x.device.type == "cpu":
        low, high = (torch.tensor(number) for number in range_in_numbers(x))
        return low, high
    low, high = ranges_of_parts(x)
    return low.amin(), high.amax()


def ranges_of_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of every part of a tensor on a GPU, (n,) float32 each, or of all of it, (1,)."""
    low, high = range_of(x, lambda values: (flat(values) if is_dense(values) else values).aminmax())
    return low.float().view(-1), high.float().view(-1)


def range_in_numbers(x: Tensor) -> tuple[float, float]:
    """The same of a tensor on the CPU as numbers, which are several times as fast as tensors of one."""
    return range_of(x, _extent)


def _extent(values: Tensor) -> tuple[float, float]:
    return loops.extent(dense(values.float()))


def moved(average: Tensor, value: Tensor, momentum: float) -> Tensor:
    """``torch.lerp`` of float32, rounded once after the difference, as on a CPU; CUDA's may round otherwise."""
    if average.device.type == "cpu":
        return torch.lerp(average, value, momentum)
    return (average.double() + float(np.float32(momentum)) * (value - average).double()).float()
