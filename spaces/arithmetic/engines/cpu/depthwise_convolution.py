"""Depthwise convolutions through a table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients; on the CPU.

Straight from the codes, one call for a layer, with any stride, padding and dilation: libraries take several times as long
for the gradients of a dilated depthwise convolution as for the convolution itself. Nothing depends on the number of
threads.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_loops as loops
from spaces.arithmetic.engines.cpu.depthwise_simd import CODES, LANES, PIXELS, PLANES, TAPS, has_permutes
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.loops import use_threads
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import WEIGHT_ZERO

PERMUTES = has_permutes()


def suit(w_shape: tuple[int, ...], geometry: Geometry, device: torch.device) -> bool:
    """Whether a layer with weights (O, C/groups, kH, kW) has one filter for every channel, and runs on the CPU."""
    return device.type == "cpu" and w_shape[1] == 1 and w_shape[0] == geometry.groups > 1


def convolve(
    index: Tensor,
    u: Tensor,
    by_weight: Tensor,
    geometry: Geometry,
    fill: int,
    scale: Tensor | None = None,
    constant: Tensor | None = None,
) -> Tensor:
    """scale·Σ_r u_r(x̂)·v_r(ŵ) + constant, (N, C, H', W') float32.

    ``index`` (N, C, H, W) uint8, of which the padding holds ``fill``; ``u`` (R, 256) float32, ``by_weight`` (C, R, kH, kW);
    ``scale`` and ``constant`` (C,).
    """
    layer = _layer(index.shape, len(u), tuple(by_weight.shape[2:]), geometry, fill)
    layer = layer._replace(adds=bool((u[:, fill] != 0).any()))
    y = torch.empty((layer.images, layer.outputs, layer.pixels, layer.channels))
    ends = ((torch.ones(layer.channels), scale), (torch.zeros(layer.channels), constant))
    scaling = (start.numpy() if given is None else given.float().contiguous().numpy() for start, given in ends)
    run = loops.convolve_together if use_threads(y.numel()) else loops.convolve
    run(
        _flat(index), *_tables(u), PERMUTES, layer, _blocks(by_weight), *scaling, y.view(-1).numpy(),
        0, layer.images * -(-layer.channels // (LANES * loops.GROUP)),
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def input_gradient(grad: Tensor, weight: Tensor, size: tuple[int, ...], geometry: Geometry) -> Tensor:
    """The gradient of a depthwise convolution for its input (N, C, H, W) = ``size``; ``weight`` (C, kH, kW)."""
    kernel = tuple(weight.shape[1:])
    reach = [(extent - 1) * dilation for extent, dilation in zip(kernel, geometry.dilation)]
    padding = tuple(far - padded for far, padded in zip(reach, geometry.padding))
    # An input of which the stride 1 and this padding would make an output of ``size``: what the gradients are spread to.
    spread = (size[0], size[1], *(side + far - 2 * padded for side, far, padded in zip(size[2:], reach, padding)))
    layer = _layer(spread, 1, kernel, Geometry((1, 1), padding, geometry.dilation, geometry.groups), 0)
    x = torch.empty((size[0], *size[2:], size[1]))
    run = loops.input_gradient_together if use_threads(x.numel()) else loops.input_gradient
    ends = torch.ones(size[1]).numpy(), torch.zeros(size[1]).numpy()
    run(
        _flat(grad.float()), *grad.shape[2:], *geometry.stride, layer, _blocks(weight.flip(1, 2)[:, None]), *ends,
        x.view(-1).numpy(), 0, size[0] * -(-size[1] // (LANES * loops.GROUP)),
    )  # fmt: skip
    return x.permute(0, 3, 1, 2)


def weight_gradient(
    index: Tensor, u: Tensor, grad: Tensor, kernel: tuple[int, ...], geometry: Geometry, fill: int
) -> Tensor:
    """Σ over pixels of u_r(x̂) times the output's gradient at every tap, (C, R, kH, kW).

    ``index`` (N, C, H, W) uint8, of which the padding holds ``fill``; ``u`` (R, 256); ``grad`` (N, C, H', W').
    """
    layer, rank = _layer(index.shape, len(u), kernel, geometry, fill), len(u)
    layer = layer._replace(adds=bool((u[:, fill] != 0).any()))
    blocks, groups = -(-layer.channels // LANES), -(-layer.images // loops.IMAGES)
    offsets = np.zeros(-(-rank * kernel[1] // TAPS) * TAPS, dtype=np.intp)
    places = np.arange(rank)[:, None] * layer.wide + np.arange(kernel[1]) * geometry.dilation[1]
    offsets[: places.size] = places.ravel() * LANES
    sums = np.empty((groups * blocks, kernel[0], offsets.size, LANES), dtype=np.float32)
    run = loops.weight_gradient_together if use_threads(index.numel()) else loops.weight_gradient
    run(_flat(index), _flat(grad.float()), *_tables(u), PERMUTES, layer, offsets, sums.reshape(-1), 0, len(sums))
    taps = torch.from_numpy(sums).view(groups, blocks, kernel[0], offsets.size, LANES).sum(dim=0)
    taps = taps[:, :, : places.size].unflatten(2, (rank, kernel[1])).permute(0, 4, 2, 1, 3)
    return taps.flatten(0, 1)[: layer.channels]


def product_gradients(
    grad: Tensor, index: Tensor, step: Tensor, w_index: Tensor, w_scale: Tensor,
    fill: int, geometry: Geometry, wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The straight-through gradients for x and w where wanted: of the exact convolution of what the codes stand for.

    ``index`` (N, C, H, W) and ``w_index`` (C, 1, kH, kW) uint8 with their scales; ``fill``: the index of zero.
    """
    grad_x = grad_w = None
    if wanted[0]:
        weight = (w_index.float() - WEIGHT_ZERO) * w_scale.view(-1, 1, 1, 1)
        grad_x = input_gradient(grad, weight.squeeze(1), index.shape, geometry)
    if wanted[1]:
        values = (torch.arange(SIZE, dtype=torch.float32) - fill) * step
        grad_w = weight_gradient(index, values[None], grad, tuple(w_index.shape[2:]), geometry, fill)
    return grad_x, grad_w


def _layer(size: tuple[int, ...], rank: int, kernel: tuple[int, ...], geometry: Geometry, fill: int) -> loops.Layer:
    """The numbers of a convolution of maps (N, C, H, W) = ``size``."""
    images, channels, height, width = size
    outputs, pixels = geometry.output_size((height, width), (kernel[0], kernel[1]))
    tiles = -(-pixels // PIXELS)
    seen = (tiles * PIXELS - 1) * geometry.stride[1] + (kernel[1] - 1) * geometry.dilation[1] + 1
    at_once = CODES // LANES
    return loops.Layer(
        images, height, width, channels, outputs, pixels, rank, kernel[0], kernel[1],
        *geometry.stride, *geometry.padding, *geometry.dilation, -(-seen // at_once) * at_once, tiles, fill, False,
    )  # fmt: skip


def _flat(x: Tensor) -> np.ndarray:
    """(N, C, H, W) as (N·H·W·C,)."""
    return x.permute(0, 2, 3, 1).contiguous().view(-1).numpy()


def _tables(u: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (R·256,), and their bytes by significance (R·4·256,)."""
    values = np.ascontiguousarray(u.numpy(), dtype=np.float32)
    planes = values.view(np.uint8).reshape(-1, SIZE, PLANES).transpose(0, 2, 1)
    return values.ravel(), np.ascontiguousarray(planes).ravel()


def _blocks(by_weight: Tensor) -> np.ndarray:
    """(C, R, kH, kW) → (blocks·kH·R·kW·16,): what sixteen channels want at a time."""
    missing = -len(by_weight) % LANES
    padded = F.pad(by_weight.float(), (0, 0, 0, 0, 0, 0, 0, missing)) if missing else by_weight.float()
    return padded.unflatten(0, (-1, LANES)).permute(0, 3, 2, 4, 1).contiguous().view(-1).numpy()
