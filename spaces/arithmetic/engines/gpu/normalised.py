"""Weighted sums of normalised maps, Σ_i w_i·(x_i − mean_i) / √(var_i + ε), and their gradients, by Triton kernels.

What ``engines.cpu.normalised`` is on a CPU: three launches for 8 maps, and three backwards, where torch makes a dozen and more
for each. Means and variances are those of a channel over a batch (batch normalisation without affine parameters).
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spaces.arithmetic.engines.gpu.launching import LOWEST_CAPABILITY, launch, works

TOGETHER = 8  # maps that a kernel takes
TILE, TILE_SUM, MOST_CHANNELS = 4096, 2048, 64  # numbers of a program, of one that adds up maps, and channels of them


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of the CPU but for the order of additions."""
    return works("normalised sums", device, LOWEST_CAPABILITY, _agrees)


@dataclass(frozen=True)
class Maps:
    """Maps of one size, channels-last, and how they are cut into tiles."""

    tensors: Sequence[Tensor]
    normalised: Sequence[bool]  # false for a map that is added as it is
    rows: int  # pixels of all images
    channels: int

    @classmethod
    def of(cls, tensors: Sequence[Tensor], normalised: Sequence[bool]) -> "Maps":
        """For tensors (N, C, H, W)."""
        tensors = [in_order(x) for x in tensors]
        channels = tensors[0].shape[1]
        return cls(tensors, list(normalised), tensors[0].numel() // channels, channels)

    def tile(self, size: int) -> tuple[int, int]:
        """Rows and channels of a tile."""
        channels = min(MOST_CHANNELS, 1 << (self.channels - 1).bit_length())
        return size // channels, channels

    @property
    def blocks(self) -> int:
        """Of rows, each with a place for what is found in it."""
        return -(-self.rows // self.tile(TILE)[0])

    @property
    def columns(self) -> int:
        return -(-self.channels // self.tile(TILE)[1])

    @property
    def unit(self) -> int:
        """A number of channels by which they can be divided: the compiler loads as wide as it is told."""
        return 4 if self.channels % 4 == 0 else 1

    def groups(self) -> Iterator[tuple[slice, list[Tensor], int]]:
        """Some maps at a time: which, as many tensors as a kernel takes, and a bit for each that is normalised."""
        for first in range(0, len(self.tensors), TOGETHER):
            part = slice(first, first + TOGETHER)
            tensors, bits = list(self.tensors[part]), enumerate(self.normalised[part])
            filled = tensors + tensors[:1] * (TOGETHER - len(tensors))
            yield slice(first, first + len(tensors)), filled, sum(1 << number for number, one in bits if one)

    def launch(self, name: str, maps: int, size: int, first: Tensor, *others: Tensor | int, **constants: bool) -> None:
        """A kernel that reads tiles of so many numbers of so many maps, one in a program."""
        rows, channels = self.tile(size)
        shape = {"UNIT": self.unit, "ROWS": rows, "CHANNELS": channels}
        launch(name, maps * -(-self.rows // rows) * self.columns, first, *others, **constants, **shape, num_warps=4)

    def room(self, *size: int) -> Tensor:
        return torch.empty(size, device=self.tensors[0].device)


def in_order(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def statistics(maps: Maps, running: Sequence[tuple[Tensor, Tensor]], epsilon: float, momentum: float) -> Tensor:
    """The mean of every channel, 1/√(var + ε) and the unbiased variance, (parts, 3, C) float32; 0, 1 and 0 for maps that are
    not normalised.

    Moves the ``running`` mean and unbiased variance (C,) of each part on.
    """
    (rows, channels), known = maps.tile(TILE), maps.room(len(maps.tensors), 3, maps.channels)
    for part, tensors, bits in maps.groups():
        count = part.stop - part.start
        found = maps.room(count, maps.blocks, 2, maps.channels)
        size = (maps.rows, maps.channels // maps.unit, maps.blocks)
        maps.launch("map_statistics_kernel", count, TILE, *tensors, found, *size)
        launch(
            "finish_statistics_kernel", count * maps.columns, found, known[part], bits, maps.rows, maps.channels, maps.blocks,
            EPSILON=epsilon, ROWS=rows, BLOCKS=_blocks(maps), CHANNELS=channels, num_warps=4,
        )  # fmt: skip
    moved = [number for number, one in enumerate(maps.normalised) if one]
    if moved:
        for which, place in ((0, 0), (1, 2)):
            averages = [running[number][which] for number in moved]
            torch._foreach_lerp_(averages, [known[number, place] for number in moved], momentum)
    return known


def weighted_sum(maps: Maps, known: Tensor, weights: Tensor) -> Tensor:
    """The sum (N, C, H, W) for ``weights`` (parts,) float32."""
    y, weights = torch.empty_like(maps.tensors[0], memory_format=torch.channels_last), weights.contiguous()
    for part, tensors, _ in maps.groups():
        size = (part.stop - part.start, maps.rows, maps.channels // maps.unit)
        held = (known[part], weights[part], y)
        maps.launch("weighted_sum_kernel", 1, TILE_SUM, *tensors, *held, *size, ADDS=part.start > 0)
    return y


def gradients(
    maps: Maps, known: Tensor, weights: Tensor, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradients for the weights (parts,), and for those maps (N, C, H, W) that are ``wanted``."""
    pull, of_weights, of_maps = in_order(grad), maps.room(len(maps.tensors)), []
    weights = weights.contiguous()
    images, channels, *size = maps.tensors[0].shape
    for part, tensors, bits in maps.groups():
        count = part.stop - part.start
        found = maps.room(count, maps.blocks, 2, channels)
        terms, out = maps.room(count, 3, channels), maps.room(count, images, *size, channels)
        shape = (maps.rows, channels // maps.unit, maps.blocks)
        maps.launch("gradient_sums_kernel", count, TILE, *tensors, pull, known[part], found, *shape)
        launch(
            "finish_gradients_kernel", count, found, known[part], weights[part], terms, of_weights[part], bits,
            maps.rows, channels, maps.blocks, BLOCKS=_blocks(maps), CHANNELS=maps.tile(TILE)[1], num_warps=4,
        )  # fmt: skip
        maps.launch("map_gradients_kernel", count, TILE, *tensors, pull, known[part], terms, out, *shape)
        of_maps += [one.permute(0, 3, 1, 2) for one in out]
    return of_weights, [one if asked else None for one, asked in zip(of_maps, wanted)]


def _blocks(maps: Maps) -> int:
    """Blocks that are put together at a time."""
    return min(maps.tile(TILE)[0], max(16, 1 << (maps.blocks - 1).bit_length()))


# -- tried out ---------------------------------------------------------------------------------------------------------

_TOLERANCE = 1e-4
_TRIED = ((9, (3, 20, 17, 16)), (2, (2, 3, 5, 4)))  # maps, and their size


def _agrees(device: torch.device) -> bool:
    """Whether a few sums and gradients are near torch's batch normalisation on the CPU, in float64."""
    generator = torch.Generator().manual_seed(0)
    for count, size in _TRIED:
        maps = [torch.randn(size, generator=generator) * (1 + number) + 3 * number for number in range(count)]
        weights, grad = torch.rand(count, generator=generator), torch.randn(size, generator=generator)
        normalised = [number % 3 != 2 for number in range(count)]
        running = [(torch.zeros(size[1]), torch.ones(size[1])) for _ in maps]
        moved = [(mean.to(device), variance.to(device)) for mean, variance in running]
        expected = _by_torch(maps, normalised, weights, grad, running)
        there = Maps.of([x.to(device) for x in maps], normalised)
        known, factors = statistics(there, moved, 1e-5, 0.1), weights.to(device)
        of_weights, of_maps = gradients(there, known, factors, grad.to(device), [True] * count)
        found = [weighted_sum(there, known, factors), of_weights, *of_maps, *(part for pair in moved for part in pair)]
        if not all(a is not None and _near(a.cpu(), b) for a, b in zip(found, expected, strict=True)):
            return False
    return True


def _by_torch(
    maps: list[Tensor], normalised: list[bool], weights: Tensor, grad: Tensor, running: list[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """The sum, the gradients for the weights and for every map, and what the averages become."""
    moved = [tuple(part.double() for part in pair) for pair in running]
    with torch.enable_grad():
        inputs = [weights.double().requires_grad_(), *(x.double().requires_grad_() for x in maps)]
        y = torch.zeros(())
        for weight, x, pair, one in zip(inputs[0], inputs[1:], moved, normalised):
            y = y + weight * (torch.nn.functional.batch_norm(x, *pair, training=True) if one else x)
        found = torch.autograd.grad(y, inputs, grad.double())
    return [y.detach(), *found, *(part for pair in moved for part in pair)]


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found.double() - expected).abs().max() <= _TOLERANCE * expected.abs().max())
