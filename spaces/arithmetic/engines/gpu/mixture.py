"""Convolutions through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients, by Triton kernels.

The features u_r(x̂) exist in registers alone, forwards and backwards, where torch's operations need R maps of them in memory.
What is padded has the code ``border`` (an int, or 0-dimensional on the device), or adds nothing where that is None.
"""

import functools
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu.gather import border_of
from spaces.arithmetic.engines.gpu.launching import launch, works
from spaces.arithmetic.engines.mixture import mixture as by_torch
from spaces.arithmetic.precision import plain_fp32

LOWEST_CAPABILITY = (8, 0)  # Ampere: the first whose tensor cores know TF32
MOST_FEATURES = 16  # of a code, and columns of their span, which registers hold
TILE_M, TILE_N, TILE_K = 64, 64, 64  # pixels, outputs, and features at a time
MOST_PRODUCTS = 2048  # outputs × features: with more, registers spill
TILE_FEATURES, TILE_OUTPUTS = 128, 16  # channels × features of a tile of gradients, and outputs at a time
TILE_DEPTHWISE = 256  # pixels of one word of channels; pixels × channels of a tile of gradients
MOST_CHANNELS = 16  # of that
BLOCK = 256  # weights per program
Border: TypeAlias = int | Tensor | None


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of the CPU but for the order of additions."""
    return works("mixtures", device, LOWEST_CAPABILITY, _agrees)


def suits(device: torch.device, features: int, w_shape: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether the kernels compute a layer with weights (O, C/groups, kH, kW) and so many features on the device."""
    ordinary = geometry.groups == 1 or (w_shape[1] == 1 and w_shape[0] == geometry.groups)
    return features <= MOST_FEATURES and ordinary and works_on(device)


def features_by_code(values: Tensor) -> Tensor:
    """u, v or a span (R, 256) by code, filled up with zeros: (256, a power of two), which is loaded at once for a code."""
    rank = values.shape[0]
    return F.pad(values.t(), (0, (1 << (rank - 1).bit_length()) - rank)).contiguous()


def weight_features(w_index: Tensor, by_code: Tensor) -> Tensor:
    """v_r(ŵ), (taps, O, C/groups, R), for dense indices (O, C/groups, kH, kW), v as ``features_by_code`` has it."""
    outputs, inputs, *kernel = w_index.shape
    features = torch.empty((kernel[0] * kernel[1], outputs, inputs, by_code.shape[1]), device=w_index.device)
    size = features.numel() // by_code.shape[1]
    steps = (w_index.stride(0), w_index.stride(1), w_index.stride(3) if kernel[1] > 1 else w_index.stride(2))
    launch(
        "weight_features_kernel", -(-size // BLOCK), w_index, by_code, features, outputs, inputs, size, *steps,
        RANK=by_code.shape[1], BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return features


def convolve(
    index: Tensor, u: Tensor, v: Tensor, w_index: Tensor, geometry: Geometry, scale: Tensor, border: Border = None
) -> Tensor:
    """The sums times ``scale`` (O,): (N, O, H', W') float32, channels-last.

    ``index`` (N, C, H, W) and ``w_index`` (O, C/groups, kH, kW) uint8; ``u`` and ``v`` as ``features_by_code`` has them.
    """
    if geometry.groups > 1:
        return _convolve_depthwise(index, u, v, w_index, geometry, scale, border)
    index, geometry = _padded(index, geometry, border)
    x, kernel, weights = index.permute(0, 2, 3, 1).contiguous(), w_index.shape[2:], weight_features(w_index, v)
    size = geometry.output_size(x.shape[1:3], kernel)
    y = torch.empty((len(x), *size, len(w_index)), device=x.device)
    pixels, channels, outputs, rank = y[..., 0].numel(), x.shape[3], y.shape[3], u.shape[1]
    block = _power(outputs, TILE_N)
    launch(
        "blend_matrix_kernel", -(-pixels // TILE_M) * -(-outputs // block), x, u, weights, scale.contiguous(), y,
        pixels, *x.shape[1:3], *size, channels, outputs, len(weights), kernel[1], *_moves(geometry),
        RANK=rank, BLOCK_M=TILE_M, BLOCK_N=block, CHANNELS=_channels(channels, rank, block), num_warps=4,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def _convolve_depthwise(
    index: Tensor, u: Tensor, v: Tensor, w_index: Tensor, geometry: Geometry, scale: Tensor, border: Border
) -> Tensor:
    x, w_index, (height, width) = index.permute(0, 2, 3, 1).contiguous(), w_index.contiguous(), w_index.shape[2:]
    size, channels = geometry.output_size(x.shape[1:3], (height, width)), x.shape[3]
    y, tables = (torch.empty(n, device=x.device) for n in ((len(x), *size, channels), (w_index.numel(), 256)))
    launch("depthwise_tables_kernel", w_index.numel(), w_index, u, v, tables, RANK=u.shape[1], num_warps=4)
    unit, pixels = 4 if channels % 4 == 0 and x.data_ptr() % 4 == 0 else 1, y[..., 0].numel()
    launch(
        "blend_depthwise_kernel", -(-pixels // TILE_DEPTHWISE) * (channels // unit),
        x.view(-1).view(torch.int32) if unit == 4 else x, tables, scale.contiguous(), y, _border(border, x),
        pixels, *x.shape[1:3], *size, channels // unit, height, *_moves(geometry),
        UNIT=unit, ADDS=border is not None, KERNEL_WIDTH=width, PIXELS=TILE_DEPTHWISE, num_warps=4,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def gradients(
    index: Tensor, grad: Tensor, v: Tensor, w_index: Tensor, geometry: Geometry, scale: Tensor, span: Tensor,
    border: Border = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients for u (256, R) and for the feature u_0(x̂) (N, C, H, W), from that of ``convolve`` (N, O, H', W').

    The first one is projected onto the orthonormal columns ``span`` (256, a power of two), in which all that u can be lies.
    """
    if geometry.groups > 1:
        return _depthwise_gradients(index, grad, v, w_index, geometry, scale, span, border)
    (down, across), (height, width) = (0, 0) if border is None else geometry.padding, index.shape[2:]
    index, geometry = _padded(index, geometry, border)
    x, pull = (part.permute(0, 2, 3, 1).contiguous() for part in (index, grad))
    channels, outputs, rank, weights = x.shape[3], pull.shape[3], v.shape[1], weight_features(w_index, v)
    pixels, block = x[..., 0].numel(), _power(channels, TILE_FEATURES // rank, least=-(-16 // rank))
    programs = -(-pixels // TILE_M) * -(-channels // block)
    grad_x, sums = _room(x, programs, span, rank)
    launch(
        "blend_matrix_gradient_kernel", programs, pull, scale.contiguous(), weights, x, span, grad_x, sums,
        pixels, *x.shape[1:3], *pull.shape[1:3], channels, outputs, len(weights), w_index.shape[3],
        *geometry.padding, *geometry.dilation, STRIDE_H=geometry.stride[0], STRIDE_W=geometry.stride[1],
        RANK=rank, SPAN=span.shape[1], BLOCK_M=TILE_M, CHANNELS=block, BLOCK_K=TILE_OUTPUTS,
        num_warps=8 if block * rank > TILE_N else 4, num_stages=2,
    )  # fmt: skip
    with plain_fp32(x.device):
        inner = grad_x[:, down : down + height, across : across + width]
        return span @ sums.sum(dim=0), inner.permute(0, 3, 1, 2)


def _depthwise_gradients(
    index: Tensor, grad: Tensor, v: Tensor, w_index: Tensor, geometry: Geometry, scale: Tensor, span: Tensor,
    border: Border,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    x, pull = (part.permute(0, 2, 3, 1).contiguous() for part in (index, grad))
    channels, rank, (height, width) = x.shape[3], v.shape[1], w_index.shape[2:]
    around = (0, 0) if border is None else geometry.padding
    pixels = len(x) * (x.shape[1] + 2 * around[0]) * (x.shape[2] + 2 * around[1])
    block = _power(channels, MOST_CHANNELS, least=1)
    programs = -(-pixels // (TILE_DEPTHWISE // block)) * -(-channels // block)
    grad_x, sums = _room(x, programs, span, rank)
    launch(
        "blend_depthwise_gradient_kernel", programs, pull, scale.contiguous(), w_index.contiguous(), v, x, span, grad_x, sums,
        _border(border, x), *around, pixels, *x.shape[1:3], *pull.shape[1:3], channels, height,
        *geometry.padding, *geometry.dilation, STRIDE_H=geometry.stride[0], STRIDE_W=geometry.stride[1], KERNEL_WIDTH=width,
        RANK=rank, SPAN=span.shape[1], PIXELS=TILE_DEPTHWISE // block, CHANNELS=block, num_warps=4,
    )  # fmt: skip
    with plain_fp32(x.device):
        return span @ sums.sum(dim=0), grad_x.permute(0, 3, 1, 2)


def _room(x: Tensor, programs: int, span: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """For the gradient of x, and for every program's sums."""
    return torch.empty(x.shape, device=x.device), torch.empty((programs, span.shape[1], rank), device=x.device)


def _padded(index: Tensor, geometry: Geometry, border: Border) -> tuple[Tensor, Geometry]:
    return (index, geometry) if border is None else (geometry.pad(index, border), geometry.unpadded())


def _border(border: Border, x: Tensor) -> Tensor:
    """(1,) uint8; anything where padded positions add nothing."""
    return border_of(0 if border is None else border, 1, x.device)


def _moves(geometry: Geometry) -> tuple[int, ...]:
    return (*geometry.stride, *geometry.padding, *geometry.dilation)


def _channels(channels: int, rank: int, outputs: int) -> int:
    """Codes of a pixel that are expanded together: enough features for the tensor cores, and no more than registers hold."""
    features = min(TILE_K, MOST_PRODUCTS // outputs)
    return max(-(-16 // rank), min(features // rank, _power(channels, features, least=1)))


def _power(count: int, most: int, least: int = 16) -> int:
    """The power of two that holds ``count``, within limits."""
    return max(least, min(most, 1 << (count - 1).bit_length()))


# -- tried out ---------------------------------------------------------------------------------------------------------

_TOLERANCE = 1e-4  # of the largest value
_TRIED = (  # images, channels, height, width; outputs, kernel; geometry; border
    ((2, 20, 9, 8), 24, 1, Geometry(), None),
    ((2, 3, 9, 8), 40, 3, Geometry((2, 2), (1, 1)), 128),
    ((2, 40, 9, 8), 40, 3, Geometry((1, 1), (2, 2), (2, 2), 40), 128),
    ((2, 6, 9, 8), 6, 5, Geometry((2, 2), (2, 2), (1, 1), 6), None),
)


def _agrees(device: torch.device) -> bool:
    """Whether a few layers' sums and gradients are near those of torch's operations on the CPU."""
    generator = torch.Generator().manual_seed(0)
    for size, outputs, side, geometry, border in _TRIED:
        w_size = (outputs, size[1] // geometry.groups, side, side)
        index, w_index = (torch.randint(0, 256, n, generator=generator, dtype=torch.uint8) for n in (size, w_size))
        u, v, span = (torch.randn((n, 256), generator=generator) for n in (5, 5, 7))
        span, scale = torch.linalg.qr(span.t())[0], torch.rand(outputs, generator=generator)
        columns = features_by_code(span.t()).to(device)
        features = by_torch.weight_features(w_index, v) * scale.view(-1, 1, 1, 1, 1)
        padded, moved = _padded(index, geometry, border)
        y = by_torch.convolve(padded, u, features, moved)
        expected = [y, *by_torch.gradients(padded, y, features, moved, 0, span)]
        expected[1] = expected[1] @ span @ span.t()
        down, across = (size - seen for size, seen in zip(expected[2].shape[2:], index.shape[2:]))
        expected[2] = expected[2][:, :, down // 2 :, across // 2 :][:, :, : index.shape[2], : index.shape[3]]

        there, *by_code = index.to(device), features_by_code(v.to(device)), features_by_code(u.to(device))
        held = (by_code[0], w_index.to(device), geometry, scale.to(device))
        found = [convolve(there, by_code[1], *held, border)]
        found += gradients(there, y.to(device), *held, columns, border)
        found[1] = found[1].t()[:5]
        if not all(_near(a.cpu(), b) for a, b in zip(found, expected)):
            return False
    return True


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
