"""Gradients of depthwise convolutions of codes, by Triton kernels: exact ones of numbers that are looked up by code.

Libraries are slow at them, above all where they are dilated.
"""

import functools

import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.gpu.launching import LOWEST_CAPABILITY, launch, works
from spaces.arithmetic.engines.gpu.mixture import added_up, moves, tiled, weight_features

TILE_INPUT, TILE_WEIGHT = 1024, 1024  # pixels × channels of a program


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of the CPU but for the order of additions."""
    return works("depthwise gradients", device, LOWEST_CAPABILITY, _agrees)


def suits(device: torch.device, w_shape: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether a layer with weights (O, C/groups, kH, kW) is depthwise, and the device runs the kernels."""
    return device.type != "cpu" and geometry.groups == w_shape[0] > w_shape[1] == 1 and works_on(device)


def input_gradient(
    grad: Tensor, size: torch.Size, clamped: Tensor | None, features: Tensor, kernel: tuple[int, int], geometry: Geometry,
    scale: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient for the input of ``size`` (N, C, H, W) of a depthwise convolution, zero where ``clamped`` is 1; from that of
    its output (N, C, H', W').

    Its weights are the first of their ``features`` (taps, 1 or more, C), times ``scale`` (C,).
    """
    pull = pixels_of(grad)
    grad_x = torch.empty((size[0], *size[2:], size[1]), device=grad.device)
    lost = features if clamped is None else pixels_of(clamped)
    pixels, channels, block, unit = tiled(grad_x, TILE_INPUT)
    launch(
        "blend_depthwise_gradient_kernel", -(-pixels // (TILE_INPUT // block)) * -(-channels // block),
        pull, scale.contiguous(), features, lost, lost, scale, grad_x, grad_x, lost, 0, 0,
        pixels, *size[2:], *pull.shape[1:3], channels // unit, kernel[0], features.stride(0),
        *geometry.padding, *geometry.dilation, UNIT=unit, STRIDE_H=geometry.stride[0], STRIDE_W=geometry.stride[1],
        KERNEL_WIDTH=kernel[1], RANK=1, SPAN=0, PITCH=1, FIRST=True, CLAMPS=clamped is not None,
        PIXELS=TILE_INPUT // block, CHANNELS=block, num_warps=4,
    )  # fmt: skip
    return grad_x.permute(0, 3, 1, 2)


def weight_gradient(
    grad: Tensor, index: Tensor, values: Tensor, line: bool, kernel: tuple[int, int], geometry: Geometry, step: Tensor
) -> Tensor:
    """The gradient for the weight (C, 1, kH, kW) of a depthwise convolution of the activations values[index]·step.

    ``line``: whether the ``values`` (256,) are integers from some negative one, or zero, on.
    """
    x, pull = (pixels_of(part) for part in (index, grad))
    pixels, channels, block, unit = tiled(pull, TILE_WEIGHT)
    tile = TILE_WEIGHT if unit > 1 else TILE_WEIGHT // 4  # narrow loads need more registers
    blocks = -(-pixels // (tile // block))
    sums = torch.empty((channels, kernel[0] * kernel[1], blocks), device=x.device)
    launch(
        "depthwise_weight_gradient_kernel", blocks * -(-channels // block), pull, x, values, sums,
        pixels, *x.shape[1:3], *pull.shape[1:3], channels // unit, kernel[0], *moves(geometry),
        LINE=line, UNIT=unit, KERNEL_WIDTH=kernel[1], PIXELS=tile // block, CHANNELS=block, num_warps=1,
    )  # fmt: skip
    return added_up(sums, step).view(channels, 1, *kernel)


# -- tried out ---------------------------------------------------------------------------------------------------------

_TOLERANCE = 1e-4  # of the largest value
_TRIED = (  # images, channels, height, width; kernel; geometry
    ((2, 20, 9, 8), 3, Geometry((1, 1), (1, 1), groups=20)),
    ((3, 7, 9, 8), 5, Geometry((2, 2), (4, 4), (2, 2), 7)),
)


def _agrees(device: torch.device) -> bool:
    """Whether a few gradients are near those of the CPU in float64."""
    generator = torch.Generator().manual_seed(0)
    for size, side, geometry in _TRIED:
        index, w_index, clamped = (
            torch.randint(0, high, n, generator=generator, dtype=torch.uint8)
            for high, n in ((256, size), (256, (size[1], 1, side, side)), (2, size))
        )
        a, b, scale = (torch.randn(n, generator=generator) for n in (256, 256, size[1]))
        x, weight = a[index.int()].double(), (b[w_index.int()] * scale.view(-1, 1, 1, 1)).double()
        grad = torch.randn(geometry.conv2d(x, weight).shape, generator=generator)
        for_x, for_w = _by_autograd(grad, x, weight, geometry)
        there, one = grad.to(device), torch.ones((), device=device)
        features, kernel = weight_features(w_index.to(device), b.to(device).view(-1, 1), True), (side, side)
        found_x = input_gradient(there, index.shape, clamped.to(device), features, kernel, geometry, scale.to(device))
        found_w = weight_gradient(there, index.to(device), a.to(device), False, kernel, geometry, one)
        line, codes = torch.arange(-100.0, 156.0), index.double() - 100
        by_line = weight_gradient(there, index.to(device), line.to(device), True, kernel, geometry, one)
        _, for_line = _by_autograd(grad, codes, weight, geometry)
        found, expected = (found_x, found_w, by_line), (for_x * (clamped == 0), for_w, for_line)
        if not all(_near(one.cpu(), other) for one, other in zip(found, expected)):
            return False
    return True


def _by_autograd(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
    """The gradients for x and the weight, float64."""
    with torch.enable_grad():
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        return torch.autograd.grad(geometry.conv2d(x, weight), (x, weight), grad.double())


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found.double() - expected).abs().max() <= _TOLERANCE * expected.abs().max())
