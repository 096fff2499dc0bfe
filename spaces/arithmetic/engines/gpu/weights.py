"""Codes, scales and features of all weights of a network on a GPU, by two launches instead of two for each layer."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from spaces.arithmetic.engines.gpu import mixture, quantisation
from spaces.arithmetic.engines.gpu.launching import launch, works
from spaces.arithmetic.engines.gpu.mixture import (
    BLOCK,
    LOWEST_CAPABILITY,
    Weights,
    features_by_code,
    features_shape,
    steps_of,
    weight_features,
)

ROWS, LENGTH = 8, 64  # of a program: rows, and values of a row at a time
ALIGNED = 16  # bytes: so are the addresses of all that is found, for which kernels are compiled


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of those for a layer alone, bit for bit, and those, too."""
    alone = quantisation.works_on(device) and mixture.works_on(device)
    return alone and works("weights together", device, LOWEST_CAPABILITY, _agrees)


class WeightsTogether:
    """What has to be known of the weights (O, C/groups, kH, kW) float32 of some layers, which stay as they lie in the memory.

    A ``depthwise`` one has its features in another order. To be made anew where a weight has moved.
    """

    def __init__(self, weights: Sequence[Tensor], depthwise: Sequence[bool], by_code: Tensor) -> None:
        self._shapes = [features_shape(tuple(weight.shape), by_code, one) for weight, one in zip(weights, depthwise)]
        self._places = [_place(weight) for weight in weights]
        self._rows = [_filled(len(weight), ALIGNED // 4) for weight in weights]
        self._sizes = [_filled(weight.numel(), ALIGNED) for weight in weights]
        codes: list[list[int]] = []
        features: list[list[int]] = []
        begin = first_scale = 0
        for weight, apart in zip(weights, depthwise):
            outputs, inputs = weight.shape[:2]
            size, length = weight.numel(), weight.numel() // outputs
            for row in range(0, outputs, ROWS):
                at = row * length
                address = weight.data_ptr() + at * weight.element_size()
                codes.append([address, min(ROWS, outputs - row), length, begin + at, first_scale + row])
            layer = [outputs, inputs, size, *steps_of(weight), int(apart)]
            features += [[begin, begin * by_code.shape[1], first, *layer] for first in range(0, size, BLOCK)]
            begin, first_scale = begin + _filled(size, ALIGNED), first_scale + _filled(outputs, ALIGNED // 4)
        device = by_code.device
        self._codes, self._features = (
            torch.tensor(plan, dtype=torch.int64, device=device) for plan in (codes, features)
        )

    def know(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the weights, where they were."""
        return [_place(weight) for weight in weights] == self._places

    def __call__(
        self, weights: Sequence[Tensor], by_code: Tensor, largest: int, smallest_scale: float, zero: int
    ) -> list[Weights]:
        """Of all layers; numbers as ``quantisation.weight_codes`` takes them, ``by_code`` v of the layers' basis."""
        index = torch.empty(sum(self._sizes), dtype=torch.uint8, device=by_code.device)
        scale = torch.empty(sum(self._rows), device=by_code.device)
        features = torch.empty(len(index) * by_code.shape[1], device=by_code.device)
        launch(
            "all_weight_codes_kernel", len(self._codes), self._codes, index, scale,
            LARGEST=float(largest), SMALLEST_SCALE=smallest_scale, ZERO=zero, ROWS=ROWS, BLOCK=LENGTH,
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        launch(
            "all_weight_features_kernel", len(self._features), self._features, index, by_code, features,
            RANK=by_code.shape[1], BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
        parts = zip(
            index.split(self._sizes),
            scale.split(self._rows),
            features.split([size * by_code.shape[1] for size in self._sizes]),
        )
        return [
            Weights(
                codes.as_strided(weight.shape, weight.stride()),
                scales[: len(weight)],
                found[: weight.numel() * by_code.shape[1]].view(shape),
            )
            for weight, shape, (codes, scales, found) in zip(weights, self._shapes, parts)
        ]


def _place(weight: Tensor) -> tuple[object, ...]:
    return weight.data_ptr(), weight.shape, weight.stride(), weight.dtype


def _filled(size: int, unit: int) -> int:
    return -(-size // unit) * unit


# -- tried out ---------------------------------------------------------------------------------------------------------

_TRIED = ((5, 3, 3, 3), (40, 1, 3, 3), (7, 300, 1, 1), (3, 1, 5, 5))  # weights: dense, depthwise, pointwise


def _agrees(device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).to(device) for shape in _TRIED]
    weights[0] = weights[0].contiguous(memory_format=torch.channels_last)
    by_code, numbers = features_by_code(torch.randn((5, 256), generator=generator)).to(device), (127, 1e-32, 128)
    depthwise = [weight.shape[1] == 1 for weight in weights]
    found = WeightsTogether(weights, depthwise, by_code)(weights, by_code, *numbers)
    for weight, apart, together in zip(weights, depthwise, found):
        index, scale = quantisation.weight_codes(weight, *numbers)
        alone = Weights(index, scale, weight_features(index, by_code, apart))
        if not all(torch.equal(one, other) for one, other in zip(alone, together)):
            return False
    return True
