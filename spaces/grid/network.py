"""The network of a grid architecture, with the rules of CGP-CNN for maps that do not fit each other.

Where a node reads two maps of different resolution, the larger one is max-pooled down to the smaller; where maps of
different width are added, the narrower one counts as filled up with channels of zeros (Suganuma et al., 2017). Ours:
pooling a map of one pixel's side does nothing, a concatenation that would be wider than ``WIDEST`` of the widest block
is a sum, and global average pooling precedes the classifier, so that its size does not depend on the image's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spaces.arithmetic.factory import LayerFactory, Sum
from spaces.channels_last import with_gradient_in_order
from spaces.grid.architecture import BLOCKS, MERGES, WIDTHS, ActiveNode
from spaces.shape import NetworkShape

BASE_CHANNELS = 16  # initial channels of the network in which a block is as wide as its name says
WIDEST = 4  # times the widest block


class Map:
    """Size of a feature map while a network is laid out: its channels, and how often it was halved."""

    def __init__(self, channels: int, halvings: int) -> None:
        self.channels, self.halvings = channels, halvings


class GridNetwork(nn.Module):
    """Active nodes in order, then the classifier. ``layers(multiplier)`` makes the layers of a node."""

    def __init__(
        self, nodes: Sequence[ActiveNode], shape: NetworkShape, layers: Callable[[str | None], LayerFactory], last: str
    ) -> None:
        super().__init__()
        self.sources = [node.sources for node in nodes]
        maps = [Map(shape.input_shape[0], 0)]
        self.nodes = nn.ModuleList()
        for node in nodes:
            module, size = _build(node, [maps[source] for source in node.sources], shape, layers(node.multiplier))
            self.nodes.append(module)
            maps.append(size)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = layers(last).linear(maps[-1].channels, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) → logits (N, classes)."""
        maps = [images]
        for sources, node in zip(self.sources, self.nodes):
            maps.append(node(*(maps[source] for source in sources)))
        return self.classifier(self.pool(with_gradient_in_order(maps[-1])).flatten(1))


def scaled(width: int, shape: NetworkShape) -> int:
    """Channels of a block of nominal ``width`` in a network of this shape."""
    return width * shape.channels // BASE_CHANNELS


def _build(node: ActiveNode, inputs: list[Map], shape: NetworkShape, layers: LayerFactory) -> tuple[nn.Module, Map]:
    """The node's module and the size of its output."""
    first = inputs[0]
    if node.function in BLOCKS:
        kind, kernel, width = node.function.split("_")
        channels = scaled(int(width), shape)
        if kind == "conv":
            return ConvBlock(first.channels, channels, int(kernel[0]), layers), Map(channels, first.halvings)
        block = ResidualBlock(first.channels, channels, int(kernel[0]), layers)
        return block, Map(max(first.channels, channels), first.halvings)
    if node.function in MERGES:
        return _merge(node.function, inputs, shape)
    if min(shape.input_shape[1:]) >> (first.halvings + 1) == 0:
        return nn.Identity(), first
    pool = nn.MaxPool2d(2) if node.function == "max_pool" else nn.AvgPool2d(2)
    return pool, Map(first.channels, first.halvings + 1)


def _merge(function: str, inputs: list[Map], shape: NetworkShape) -> tuple[nn.Module, Map]:
    halvings = max(map_.halvings for map_ in inputs)
    missing = [halvings - map_.halvings for map_ in inputs]
    together = sum(map_.channels for map_ in inputs)
    if function == "concat" and together <= WIDEST * scaled(max(WIDTHS), shape):
        return Concatenation(missing), Map(together, halvings)
    return Addition(missing), Map(max(map_.channels for map_ in inputs), halvings)


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, layers: LayerFactory) -> None:
        super().__init__(
            layers.conv(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class ResidualBlock(nn.Module):
    """A convolution block, a second convolution with normalisation, the sum with the input, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, layers: LayerFactory) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, layers)
        self.second = nn.Sequential(
            layers.conv(outputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
        )
        self.add = PaddedSum()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.add(x, self.second(self.first(x))))


class PaddedSum(nn.Module):
    """The sum of two maps, the narrower one as if filled up with zeros; only common channels cost an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        narrow, wide = (a, b) if a.shape[1] <= b.shape[1] else (b, a)
        common = narrow.shape[1]
        if common == wide.shape[1]:
            return self.sum(a, b)
        return torch.cat([self.sum(narrow, wide[:, :common]), wide[:, common:]], dim=1)


class _Merge(nn.Module):
    """Two maps, each max-pooled as often as it is ``missing`` halvings."""

    def __init__(self, missing: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Sequential(*(nn.MaxPool2d(2) for _ in range(times))) for times in missing)

    def matched(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [reduce(map_) for reduce, map_ in zip(self.reduce, maps)]


class Addition(_Merge):
    def __init__(self, missing: Sequence[int]) -> None:
        super().__init__(missing)
        self.add = PaddedSum()

    def forward(self, *maps: Tensor) -> Tensor:
        return self.add(*self.matched(maps))


class Concatenation(_Merge):
    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(self.matched(maps), dim=1)
