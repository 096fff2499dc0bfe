"""The kernels around the sums of products, each beside torch's operations for the same."""

from collections.abc import Callable, Iterator

import torch

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import mixture as gpu_mixtures
from spaces.arithmetic.engines.gpu import quantisation
from spaces.arithmetic.engines.mixture import mixture as mixtures
from spaces.arithmetic.mixture import MultiplierChoice
from spaces.arithmetic.quantise import Scale, codes_by_torch, weight_codes, weight_codes_by_torch
from spaces.multipliers import catalogue

CHANNELS = 64
Call = Callable[[], object]
_SHAPES = {  # kernel's side, geometry
    "pointwise": (1, Geometry()),
    "3x3": (3, Geometry(padding=(1, 1))),
    "depthwise 3x3": (3, Geometry(padding=(1, 1), groups=CHANNELS)),
    "depthwise 5x5 dilated": (5, Geometry(padding=(4, 4), dilation=(2, 2), groups=CHANNELS)),
}


def pairs(device: torch.device, maps: tuple[int, int, int]) -> Iterator[tuple[str, Call, Call]]:
    """What is computed, by kernels, and by torch; nothing of what the device has no kernels for."""
    images, *size = maps
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((images, CHANNELS, *size), generator=generator).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    if quantisation.works_on(device):
        scale = Scale.symmetric(x.abs().amax() / 2)
        numbers = (scale.step, scale.low, scale.high, scale.zero)
        yield "codes of activations", lambda: quantisation.codes(x, *numbers), lambda: codes_by_torch(x, scale)
        weight = torch.randn((CHANNELS, CHANNELS, 3, 3), generator=generator).to(device)
        yield "codes of weights", lambda: weight_codes(weight), lambda: weight_codes_by_torch(weight)
    choice = MultiplierChoice(catalogue.library(catalogue.names())).to(device)
    choice.set(torch.full((len(choice.tables),), 1 / len(choice.tables), device=device))
    for name, (side, geometry) in _SHAPES.items():
        shape = (CHANNELS, CHANNELS // geometry.groups, side, side)
        if gpu_mixtures.suits(device, choice.features, shape, geometry):
            w_index = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
            yield from _mixture(name, choice, (x * 32 + 128).clamp(0, 255).to(torch.uint8), w_index, geometry)


def _mixture(
    name: str, choice: MultiplierChoice, index: torch.Tensor, w_index: torch.Tensor, geometry: Geometry
) -> Iterator[tuple[str, Call, Call]]:
    """The sums, and the gradients of the table and, in depthwise layers, of the input."""
    scale, step = torch.ones(len(w_index), device=index.device), torch.ones((), device=index.device)
    u, features = choice.blended, mixtures.weight_features(w_index, choice.v)
    held = (choice.basis, gpu_mixtures.weights_of(w_index, scale, choice.basis, geometry.groups > 1), geometry, step)
    yield (
        f"{name} mixture, sums",
        lambda: gpu_mixtures.convolve(index, choice.u_by_code, *held),
        lambda: mixtures.convolve(index, u, features, geometry),
    )
    grad, depthwise = torch.ones_like(mixtures.convolve(index, u, features, geometry)), geometry.groups > 1
    row, clamped = 0 if depthwise else None, torch.zeros_like(index)
    by_kernels: Call = lambda: gpu_mixtures.dense_table_gradient(index, grad, *held)  # noqa: E731
    if depthwise:
        by_kernels = lambda: gpu_mixtures.depthwise_gradients(index, clamped, grad, *held)  # noqa: E731
    yield (
        f"{name} mixture, gradients",
        by_kernels,
        lambda: mixtures.gradients(index, grad, features, geometry, row, choice.span),
    )
