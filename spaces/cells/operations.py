"""The operations of DARTS. One definition serves the stand-alone network and the supernet.

``searching`` takes away the normalisation's affine parameters and adds one after pooling, as DARTS does during search.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.factory import LayerFactory


class State:
    """A feature map that several operations read, and its rectified copy, made once for those that begin with a ReLU."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._first: dict[int, State] = {}

    @functools.cached_property
    def rectified(self) -> Tensor:
        return F.relu(self.value)

    def first(self, channels: int) -> "State":
        """The map's first so many channels, copied once for all that read them: libraries are slow on slices."""
        if channels == self.value.shape[1]:
            return self
        if channels not in self._first:
            self._first[channels] = State(self.value[:, :channels].contiguous(memory_format=torch.channels_last))
        return self._first[channels]

    def through(self, operation: nn.Module) -> Tensor:
        """What an operation of ``build_operation`` makes of the map."""
        return operation(self._read_by(operation))

    def before_norm(self, operation: nn.Module) -> Tensor:
        """The same but for the operation's last step, ``norm_of`` it."""
        x = self._read_by(operation)
        if isinstance(operation, FactorizedReduce):
            return operation.halved(x)
        if isinstance(operation, nn.Sequential):
            for module in list(operation)[:-1]:
                x = module(x)
        return x

    def _read_by(self, operation: nn.Module) -> Tensor:
        return self.rectified if isinstance(operation, Separable) else self.value


def norm_of(operation: nn.Module) -> nn.Module:
    """The normalisation that is the last step of an operation for searching; a skip connection's is none."""
    if isinstance(operation, FactorizedReduce):
        return operation.norm
    return operation[-1] if isinstance(operation, nn.Sequential) else operation


def build_operation(name: str, channels: int, stride: int, layers: LayerFactory, searching: bool = False) -> nn.Module:
    """The operation ``name``; maps (N, C, H, W) to (N, C, H/stride, W/stride). ``State.through`` applies it."""
    match name.rsplit("_", 1):
        case ["max_pool", "3x3"]:
            return _pool(nn.MaxPool2d(3, stride, 1), channels, searching)
        case ["avg_pool", "3x3"]:
            return _pool(nn.AvgPool2d(3, stride, 1, count_include_pad=False), channels, searching)
        case ["skip", "connect"]:
            if stride == 1:
                return nn.Identity()
            return FactorizedReduce(channels, channels, layers, affine=not searching)
        case ["sep_conv", size]:
            return _separable(channels, int(size[0]), (stride, 1), 1, layers, not searching)
        case ["dil_conv", size]:
            return _separable(channels, int(size[0]), (stride,), 2, layers, not searching)
    raise ValueError(f"no operation is called {name}")


def _pool(pool: nn.Module, channels: int, searching: bool) -> nn.Module:
    return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if searching else pool


def _separable(
    channels: int, kernel: int, strides: tuple[int, ...], dilation: int, layers: LayerFactory, affine: bool
) -> "Separable":
    """ReLU, depthwise and pointwise convolution, normalisation; once for every stride."""
    padding = dilation * (kernel // 2)
    stages: list[nn.Module] = []
    for stride in strides:
        moved = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
        stages += [nn.ReLU()] if stages else []
        stages += [
            layers.conv(channels, channels, kernel, kind="separable", bias=False, **moved),
            layers.conv(channels, channels, 1, kind="separable", bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        ]
    return Separable(*stages)


class Separable(nn.Sequential):
    """A separable convolution; reads a rectified map, so that the convolutions that read the same one share its codes."""


class ReluConvBn(nn.Sequential):
    """A 1×1 projection of a cell's input to the cell's width."""

    def __init__(self, inputs: int, outputs: int, layers: LayerFactory, affine: bool) -> None:
        super().__init__(nn.ReLU(), layers.conv(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, affine=affine))


class FactorizedReduce(nn.Module):
    """Halves the resolution with two 1×1 convolutions of stride 2, the second one shifted by a pixel."""

    def __init__(self, inputs: int, outputs: int, layers: LayerFactory, affine: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.relu = nn.ReLU()
        self.straight = layers.conv(inputs, half, 1, stride=2, bias=False)
        self.shifted = layers.conv(inputs, outputs - half, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.halved(x))

    def halved(self, x: Tensor) -> Tensor:
        """The convolutions alone."""
        x = self.relu(x)
        height, width = x.shape[2:]
        shifted = F.pad(x, (0, width % 2, 0, height % 2))[:, :, 1:, 1:]  # an odd size needs one more row and column
        return torch.cat([self.straight(x), self.shifted(shifted)], dim=1)
