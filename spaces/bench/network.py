"""The network around the cells of the bench space, and the cell of a given architecture."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.factory import FixedLayers, LayerFactory, Sum
from spaces.bench.architecture import POOL, SKIP, BenchArchitecture, Program
from spaces.channels_last import with_gradient_in_order
from spaces.shape import NetworkShape

STAGES = 3  # at most: the width doubles, and the resolution halves, between them


class Convolution(nn.Sequential):
    """Convolution and normalisation; reads a rectified map, so that the convolutions that read the same one share its codes."""

    def __init__(self, channels: int, kernel: int, layers: LayerFactory, affine: bool) -> None:
        convolution = layers.conv(channels, channels, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(channels, affine=affine))


def build_operation(name: str, channels: int, layers: LayerFactory, affine: bool = True) -> nn.Module:
    """The operation ``name``: maps (N, C, H, W) to maps of the same size."""
    if name == SKIP:
        return nn.Identity()
    if name == POOL:
        pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))
    return Convolution(channels, int(name[-1]), layers, affine)


class FixedCell(nn.Module):
    """The steps of a program, one after the other."""

    def __init__(self, program: Program, channels: int, layers: Callable[[str], LayerFactory], affine: bool) -> None:
        super().__init__()
        self.program = program
        self.operations = nn.ModuleList(
            build_operation(step.operation, channels, layers(step.multiplier), affine) for step in program.steps
        )
        self.sums = nn.ModuleList(Sum() for _ in range(len(program.steps) + 1))

    def forward(self, x: Tensor) -> Tensor:
        maps, rectified = [x], {}
        for step, operation, add in zip(self.program.steps, self.operations, self.sums):
            if step.reads not in rectified:
                inputs = [maps[at] for at in step.reads]
                read = add(*inputs) if len(inputs) > 1 else inputs[0]
                rectified[step.reads] = (read, F.relu(read))
            plain, positive = rectified[step.reads]
            maps.append(operation(positive if isinstance(operation, Convolution) else plain))
        outputs = [maps[at] for at in self.program.output]
        return self.sums[-1](*outputs) if len(outputs) > 1 else outputs[0]


class Transition(nn.Module):
    """From one stage to the next: means over 2×2 pixels, then a 1×1 convolution to twice the width."""

    def __init__(self, inputs: int, layers: LayerFactory, affine: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.convolution = layers.conv(inputs, 2 * inputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(2 * inputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(F.relu(self.pool(x))))


class BenchNetwork(nn.Module):
    """Stem, cells in up to three stages, classifier. ``body(channels)`` makes a cell.

    The supernet and the stand-alone network differ in their cells, and in that a supernet normalises without parameters.
    """

    def __init__(
        self, shape: NetworkShape, body: Callable[[int], nn.Module], outer: LayerFactory, affine: bool = True
    ) -> None:
        super().__init__()
        channels = shape.channels
        stem = outer.conv(shape.input_shape[0], channels, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(channels))
        stages = min(STAGES, shape.cells)
        starts = {stage * shape.cells // stages for stage in range(1, stages)}
        self.cells, self.transitions = nn.ModuleList(), nn.ModuleList()
        for position in range(shape.cells):
            self.transitions.append(Transition(channels, outer, affine) if position in starts else nn.Identity())
            channels *= 1 + (position in starts)
            self.cells.append(body(channels))
        self.classifier = outer.linear(channels, shape.classes)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) → logits (N, classes)."""
        x = self.stem(images)
        for transition, cell in zip(self.transitions, self.cells):
            x = cell(transition(x))
        return self.classifier(self.pool(with_gradient_in_order(F.relu(x))).flatten(1))


def build(
    architecture: BenchArchitecture, shape: NetworkShape, layers: Callable[[str], FixedLayers], affine: bool = True
) -> BenchNetwork:
    """The stand-alone network; ``layers`` gives those of a multiplier, of "" too."""
    program = architecture.program
    return BenchNetwork(
        shape, lambda channels: FixedCell(program, channels, layers, affine), layers(architecture.outer), affine
    )
