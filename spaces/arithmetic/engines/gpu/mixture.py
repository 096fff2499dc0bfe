"""Convolutions through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients, by Triton kernels.

The features u_r(x̂) exist in registers alone, forwards and backwards, where torch's operations need R maps of them in memory.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu.launching import launch, works
from spaces.arithmetic.engines.mixture import mixture as by_torch
from spaces.arithmetic.precision import plain_fp32

LOWEST_CAPABILITY = (8, 0)  # Ampere: the first whose tensor cores know TF32
MOST_FEATURES = 16  # of a code, and columns of their span, which registers hold
TILE_M, TILE_N, TILE_K = 64, 64, 16  # pixels, outputs, and features or outputs at a time: with more, registers spill
TILE_FEATURES = 128  # channels × features of a tile of gradients
TILE_DEPTHWISE = 512  # pixels × channels
MOST_CHANNELS = 32  # of a depthwise tile


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of the CPU but for the order of additions."""
    return works("mixtures", device, LOWEST_CAPABILITY, _agrees)


def suits(device: torch.device, features: int, w_shape: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether the kernels compute a layer with weights (O, C/groups, kH, kW) and so many features on the device."""
    ordinary = geometry.groups == 1 or (w_shape[1] == 1 and w_shape[0] == geometry.groups)
    return features <= MOST_FEATURES and ordinary and works_on(device)


def features_by_code(values: Tensor) -> Tensor:
    """u or v (R, 256) by code and filled up with zeros, (256, a power of two): what a code is expanded to in one load."""
    rank = values.shape[0]
    return F.pad(values.t(), (0, (1 << (rank - 1).bit_length()) - rank)).contiguous()


def weight_features(w_index: Tensor, by_code: Tensor) -> Tensor:
    """v_r(ŵ), (taps, O, C/groups, R), for indices (O, C/groups, kH, kW) and v as ``features_by_code`` has it."""
    return by_code[w_index.permute(2, 3, 0, 1).int()].flatten(0, 1).contiguous()


def convolve(
    index: Tensor, u: Tensor, weights: Tensor, kernel: tuple[int, int], geometry: Geometry, scale: Tensor
) -> Tensor:
    """The sums times ``scale`` (O,): (N, O, H', W') float32, channels-last; padded positions add nothing.

    ``index`` (N, C, H, W) uint8, ``u`` as ``features_by_code`` and ``weights`` as ``weight_features`` have them.
    """
    x = index.permute(0, 2, 3, 1).contiguous()
    size = geometry.output_size(x.shape[1:3], kernel)
    y = torch.empty((len(x), *size, weights.shape[1]), device=x.device)
    pixels, channels, outputs, rank = y[..., 0].numel(), x.shape[3], y.shape[3], u.shape[1]
    shape = (pixels, *x.shape[1:3], *size, channels)
    if geometry.groups == 1:
        block = _power(outputs, TILE_N)
        launch(
            "blend_matrix_kernel", -(-pixels // TILE_M) * -(-outputs // block), x, u, weights, scale.contiguous(), y,
            *shape, outputs, len(weights), kernel[1], *_moves(geometry),
            RANK=rank, BLOCK_M=TILE_M, BLOCK_N=block, BLOCK_K=TILE_K, num_warps=4, num_stages=2,
        )  # fmt: skip
    else:
        block = _power(channels, MOST_CHANNELS, least=1)
        programs = -(-pixels // (TILE_DEPTHWISE // block)) * -(-channels // block)
        launch(
            "blend_depthwise_kernel", programs, x, u, weights, scale.contiguous(), y,
            *shape, len(weights), kernel[1], *_moves(geometry),
            RANK=rank, PIXELS=TILE_DEPTHWISE // block, CHANNELS=block, num_warps=4,
        )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def gradients(
    index: Tensor,
    grad: Tensor,
    weights: Tensor,
    kernel: tuple[int, int],
    geometry: Geometry,
    scale: Tensor,
    span: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients for u (256, R) and for the feature u_0(x̂) (N, C, H, W), from that of ``convolve`` (N, O, H', W').

    The first one is projected onto the orthonormal columns ``span`` (256, K), in which all that u can be lies.
    """
    x, pull = (part.permute(0, 2, 3, 1).contiguous() for part in (index, grad))
    channels, outputs, rank, columns = x.shape[3], pull.shape[3], weights.shape[3], span.shape[1]
    grad_x = torch.empty(x.shape, device=x.device)
    pixels = x[..., 0].numel()
    depthwise = geometry.groups > 1
    block = _power(
        channels, MOST_CHANNELS if depthwise else TILE_FEATURES // rank, least=1 if depthwise else -(-16 // rank)
    )
    height = TILE_DEPTHWISE // block if depthwise else TILE_M
    programs = -(-pixels // height) * -(-channels // block)
    sums = torch.empty((programs, columns, rank), device=x.device)
    tensors = (pull, scale.contiguous(), weights, x, span.contiguous(), grad_x, sums)
    shape, moves = (pixels, *x.shape[1:3], *pull.shape[1:3], channels), _moves(geometry)
    if depthwise:
        launch(
            "blend_depthwise_gradient_kernel", programs, *tensors, *shape, len(weights), kernel[1], *moves,
            RANK=rank, SPAN=columns, PIXELS=height, CHANNELS=block, num_warps=4,
        )  # fmt: skip
    else:
        launch(
            "blend_matrix_gradient_kernel", programs, *tensors, *shape, outputs, len(weights), kernel[1], *moves,
            RANK=rank, SPAN=columns, BLOCK_M=height, CHANNELS=block, BLOCK_K=TILE_K,
            num_warps=8 if block * rank > TILE_N else 4, num_stages=2,
        )  # fmt: skip
    with plain_fp32(x.device):
        return span @ sums.sum(dim=0), grad_x.permute(0, 3, 1, 2)


def _moves(geometry: Geometry) -> tuple[int, ...]:
    return (*geometry.stride, *geometry.padding, *geometry.dilation)


def _power(count: int, most: int, least: int = 16) -> int:
    """The power of two that holds ``count``, within limits."""
    return max(least, min(most, 1 << (count - 1).bit_length()))


# -- tried out ---------------------------------------------------------------------------------------------------------

_TOLERANCE = 1e-4  # of the largest value
_TRIED = (  # images, channels, height, width; outputs, kernel; geometry
    ((2, 20, 9, 8), 24, 1, Geometry()),
    ((2, 3, 9, 8), 40, 3, Geometry((2, 2), (1, 1))),
    ((2, 40, 9, 8), 40, 3, Geometry((1, 1), (2, 2), (2, 2), 40)),
)


def _agrees(device: torch.device) -> bool:
    """Whether a few layers' sums and gradients are near those of torch's operations on the CPU."""
    generator = torch.Generator().manual_seed(0)
    for size, outputs, side, geometry in _TRIED:
        w_size = (outputs, size[1] // geometry.groups, side, side)
        index, w_index = (torch.randint(0, 256, n, generator=generator, dtype=torch.uint8) for n in (size, w_size))
        u, v, span = (torch.randn((n, 256), generator=generator) for n in (5, 5, 7))
        span, scale = torch.linalg.qr(span.t())[0], torch.rand(outputs, generator=generator)
        features = by_torch.weight_features(w_index, v) * scale.view(-1, 1, 1, 1, 1)
        y = by_torch.convolve(index, u, features, geometry)
        expected = [y, *by_torch.gradients(index, y, features, geometry, 0, span)]
        expected[1] = expected[1] @ span @ span.t()

        weights = weight_features(w_index.to(device), features_by_code(v.to(device)))
        held = (weights, (side, side), geometry, scale.to(device))
        there = index.to(device)
        found = [convolve(there, features_by_code(u.to(device)), *held)]
        found += gradients(there, y.to(device), *held, span.to(device))
        found[1] = found[1].t()[:5]
        if not all(_near(a.cpu(), b) for a, b in zip(found, expected)):
            return False
    return True


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
