"""The network around the cells: stem, cells, classifier; and the stand-alone cell."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.factory import LayerFactory, Sum
from spaces.cells.architecture import Cell, stride_of
from spaces.cells.operations import FactorizedReduce, ReluConvBn, State, build_operation
from spaces.cells.sites import reduction_positions
from spaces.channels_last import with_gradient_in_order
from spaces.shape import NetworkShape

STEM_WIDTH = 3  # the stem has three times the initial channels, as in DARTS


class DropPath(nn.Module):
    """Drops a whole path per image with ``probability`` during training, and scales up the ones that stay.

    One object is shared by all cells, so that a schedule sets the probability once. Random numbers come from
    ``generator`` (on the network's device), which the training loop owns and saves. ``share`` says which images of a
    batch of how many these are, where several processes train together: each draws the numbers of all images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None
        self.share: tuple[slice, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        share, batch = self.share or (slice(None), x.shape[0])
        mask = torch.rand((batch, 1, 1, 1), device=x.device, generator=self.generator)[share] < keep
        return x * mask / keep


class FixedCell(nn.Module):
    """The body of a stand-alone cell: two cell inputs of equal width → the concatenated nodes."""

    def __init__(
        self, cell: Cell, channels: int, layers: Callable[[str | None], LayerFactory], drop: DropPath, searching: bool
    ) -> None:
        super().__init__()
        self.sources = [[edge.source for edge in node] for node in cell.nodes]
        self.operations = nn.ModuleList(
            nn.ModuleList(
                build_operation(
                    edge.operation, channels, stride_of(edge.source, cell.reduction), layers(edge.multiplier), searching
                )
                for edge in node
            )
            for node in cell.nodes
        )
        self.drop = drop
        self.sums = nn.ModuleList(Sum() for _ in cell.nodes)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        states = [State(first), State(second)]
        for sources, operations, add in zip(self.sources, self.operations, self.sums):
            paths = []
            for source, operation in zip(sources, operations):
                path = states[source].through(operation)
                paths.append(path if isinstance(operation, nn.Identity) else self.drop(path))
            states.append(State(add(*paths) if len(paths) > 1 else paths[0]))
        return torch.cat([state.value for state in states[2:]], dim=1)


class CellStage(nn.Module):
    """A cell with the projections that bring its two inputs to the cell's width and resolution."""

    def __init__(
        self, widths: tuple[int, int], channels: int, halved: bool, layers: LayerFactory, affine: bool, body: nn.Module
    ) -> None:
        super().__init__()
        before_last, last = widths
        project = FactorizedReduce if halved else ReluConvBn
        self.project_first = project(before_last, channels, layers, affine)
        self.project_second = ReluConvBn(last, channels, layers, affine)
        self.body = body

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.body(self.project_first(first), self.project_second(second))


class HalvesPool(nn.Module):
    """The means over the four quarters of a map, which share its middle row or column where a side is odd: (N, C, 2, 2).

    What ``nn.AdaptiveAvgPool2d(2)`` computes; the gradient of that one is never the same twice on CUDA.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = (max(2, side) for side in x.shape[2:])
        x = x.expand(-1, -1, height, width)  # a single row or column is both halves
        return F.avg_pool2d(x, ((height + 1) // 2, (width + 1) // 2), stride=(height // 2, width // 2))


class AuxiliaryHead(nn.Sequential):
    """The second classifier of DARTS; fp32, as it is thrown away after training."""

    def __init__(self, channels: int, classes: int, size: tuple[int, ...]) -> None:
        # At 8×8, the size of the published setting, the pooling gives 2×2; smaller maps are pooled to 2×2 as well.
        pool = nn.AvgPool2d(5, stride=3, count_include_pad=False) if size == (8, 8) else HalvesPool()
        super().__init__(
            nn.ReLU(),
            pool,
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class CellNetwork(nn.Module):
    """Stem, cells and classifier, in the widths of DARTS: C doubles in every reduction cell, the stem has 3 C.

    ``body(position, channels)`` makes what happens inside a cell of ``nodes`` nodes, ``outer(position)`` the layers of
    its projections and ``outer(None)`` those of stem and classifier: the supernet and the stand-alone network differ
    in these two alone.
    """

    def __init__(
        self,
        shape: NetworkShape,
        nodes: int,
        body: Callable[[int, int], nn.Module],
        outer: Callable[[int | None], LayerFactory],
        searching: bool = False,
    ) -> None:
        super().__init__()
        stem = STEM_WIDTH * shape.channels
        edge = outer(None)
        self.stem = nn.Sequential(edge.conv(shape.input_shape[0], stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        reductions = reduction_positions(shape.cells)
        widths, channels, halved = (stem, stem), shape.channels, False
        size = shape.input_shape[1:]
        self.cells = nn.ModuleList()
        self.auxiliary, self.auxiliary_position = None, 2 * shape.cells // 3
        self.auxiliary_logits: Tensor | None = None  # of the latest training pass
        for position in range(shape.cells):
            if position in reductions:
                channels, size = 2 * channels, tuple((side + 1) // 2 for side in size)
            stage = CellStage(widths, channels, halved, outer(position), not searching, body(position, channels))
            self.cells.append(stage)
            halved = position in reductions
            widths = (widths[1], nodes * channels)
            if shape.auxiliary and position == self.auxiliary_position:
                self.auxiliary = AuxiliaryHead(widths[1], shape.classes, size)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = edge.linear(widths[1], shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) → logits (N, classes)."""
        self.auxiliary_logits = None
        first = second = self.stem(images)
        for position, stage in enumerate(self.cells):
            first, second = second, stage(first, second)
            if self.auxiliary is not None and self.training and position == self.auxiliary_position:
                self.auxiliary_logits = self.auxiliary(second)
        return self.classifier(self.pool(with_gradient_in_order(second)).flatten(1))
