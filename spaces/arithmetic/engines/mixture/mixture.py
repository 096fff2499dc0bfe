"""Convolutions through a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ), and their gradients.

Each activation is expanded into its R values u_r, so that the sums are one ordinary convolution. The gradients for these
values come from R transposed convolutions; those for the table's left side are their sums over equal codes. Pointwise and
depthwise layers on the CPU have loops of their own. Nothing depends on the number of threads.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines import feature_loops as loops
from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.precision import plain_fp32


def weight_features(w_index: Tensor, v: Tensor) -> Tensor:
    """v_r(ŵ), (O, R, C/groups, kH, kW), for indices (O, C/groups, kH, kW) and ``v`` (R, 256)."""
    if w_index.device.type != "cpu":
        return v[:, w_index.int()].transpose(0, 1)
    features = torch.empty((w_index.shape[0], v.shape[0], *w_index.shape[1:]))
    loops.expand_floats(w_index.flatten(1).numpy(), v.numpy(), features.flatten(1).numpy())
    return features


def convolve(index: Tensor, u: Tensor, by_weight: Tensor, geometry: Geometry) -> Tensor:
    """The sums (N, O, H', W') float32; padded positions add nothing.

    ``index`` (N, C, H, W) uint8; ``u`` (R, 256) by activation index; ``by_weight`` as ``weight_features`` has them.
    """
    with plain_fp32(index.device):
        if index.device.type == "cpu" and geometry.is_pointwise(by_weight.shape[3:]):
            return (_expand(index, u, 1) @ by_weight.flatten(1).t()).permute(0, 3, 1, 2)
        if not _depthwise(by_weight, geometry):
            return geometry.conv2d(_expand(index, u, geometry.groups).permute(0, 3, 1, 2), by_weight.flatten(1, 2))
        features, (outputs, rank) = _expand(index, u, 1), by_weight.shape[:2]
        if index.device.type == "cpu" and (geometry.dilation[1] == 1 or by_weight.shape[4] == 1):
            return _side_by_side(features, by_weight, geometry)
        # R inputs a group are a slow path of libraries; R depthwise convolutions, added up, are not.
        apart = replace(geometry, groups=outputs * rank)
        sums = apart.conv2d(features.permute(0, 3, 1, 2), by_weight.transpose(0, 1).flatten(0, 1))
        return sums.permute(0, 2, 3, 1).unflatten(3, (rank, outputs)).sum(dim=3).permute(0, 3, 1, 2)  # channels-last


def _side_by_side(features: Tensor, by_weight: Tensor, geometry: Geometry) -> Tensor:
    """A depthwise convolution of features (N, H, W, R·C): R columns for each of the map's, in R times as wide steps."""
    rank = by_weight.shape[1]
    maps = features.unflatten(3, (rank, -1)).flatten(2, 3).permute(0, 3, 1, 2)  # (N, C, H, W·R)
    wide = Geometry(
        (geometry.stride[0], geometry.stride[1] * rank),
        (geometry.padding[0], geometry.padding[1] * rank),
        (geometry.dilation[0], 1),
        geometry.groups,
    )
    columns = by_weight.permute(0, 2, 3, 4, 1).flatten(3, 4)  # (C, 1, kH, kW·R)
    return wide.conv2d(maps, columns)


def gradients(
    index: Tensor,
    grad: Tensor,
    by_weight: Tensor,
    geometry: Geometry,
    row: int | None,
    span: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """The gradients for ``u`` (R, 256), and for the feature u_row(x̂) (N, C, H, W), from that of ``convolve``'s sums.

    ``u`` is known to lie in the span of orthonormal columns ``span`` (256, K); the gradient may be projected onto it.
    """
    with plain_fp32(index.device):
        on_cpu = index.device.type == "cpu"
        parts = _feature_gradients(grad, by_weight, index.shape, geometry, together=not on_cpu)
        table = _sums_by_code(index, parts) if on_cpu else _projected(index, parts, span)
        return table, None if row is None else parts[row]


def _feature_gradients(
    grad: Tensor, by_weight: Tensor, size: torch.Size, geometry: Geometry, together: bool
) -> list[Tensor]:
    """The gradients for every u_r(x̂), R × (N, C, H, W) with (N, C, H, W) = ``size``; ``together``: in one call."""
    depthwise, rank, groups = _depthwise(by_weight, geometry), by_weight.shape[1], geometry.groups
    if depthwise and not together:
        return [_input_gradient(grad, kernel, size, geometry) for kernel in by_weight.unbind(1)]
    wide = torch.Size((size[0], size[1] * rank, *size[2:]))
    if depthwise:
        apart, taps = replace(geometry, groups=groups * rank), by_weight.transpose(0, 1).flatten(0, 1)
        return list(_input_gradient(grad.repeat(1, rank, 1, 1), taps, wide, apart).chunk(rank, dim=1))
    maps = _input_gradient(grad, by_weight.flatten(1, 2), wide, geometry)
    return [part.flatten(1, 2) for part in maps.unflatten(1, (groups, rank, -1)).unbind(2)]


def _input_gradient(grad: Tensor, weight: Tensor, size: torch.Size, geometry: Geometry) -> Tensor:
    """The gradient of an ordinary convolution for its input, (N, C, H, W) = ``size``."""
    if grad.device.type == "cpu" and geometry.is_pointwise(weight.shape[2:]):
        return (pixels_of(grad) @ weight.flatten(1)).permute(0, 3, 1, 2)
    like = torch.empty(size, device=grad.device, memory_format=torch.channels_last)  # only its shape and order count
    return torch.ops.aten.convolution_backward(
        grad, like, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, [0, 0],
        geometry.groups, [True, False, False],
    )[0]  # fmt: skip


def _sums_by_code(index: Tensor, parts: list[Tensor]) -> Tensor:
    """(R, 256): maps R × (N, C, H, W), summed over equal codes of ``index`` (N, C, H, W)."""
    codes = pixels_of(index).flatten(0, 2).numpy()
    return torch.from_numpy(np.stack([loops.sum_by_code(codes, _flat_pixels(part)) for part in parts]))


def _projected(index: Tensor, parts: list[Tensor], span: Tensor) -> Tensor:
    """The same, projected: additions to a few addresses are what GPUs are slow at, and not in a fixed order."""
    return torch.stack([part.flatten() for part in parts]) @ span[index.int().flatten()] @ span.t()


def _flat_pixels(part: Tensor) -> np.ndarray:
    return np.ascontiguousarray(part.permute(0, 2, 3, 1).flatten(0, 2).numpy())


def _depthwise(by_weight: Tensor, geometry: Geometry) -> bool:
    return by_weight.shape[2] == 1 and by_weight.shape[0] == geometry.groups > 1


def _expand(index: Tensor, u: Tensor, groups: int) -> Tensor:
    """Indices (N, C, H, W) → u_r(x̂) as (N, H, W, groups·R·C/groups)."""
    pixels = pixels_of(index)
    if index.device.type != "cpu":
        return _expand_on_device(pixels, u, groups)
    features = torch.empty((*pixels.shape[:3], pixels.shape[3] * u.shape[0]))
    codes = pixels.view(-1, pixels.shape[3] // groups).numpy()
    loops.expand_floats(codes, u.contiguous().numpy(), features.view(codes.shape[0], -1).numpy())
    return features


def _expand_on_device(pixels: Tensor, u: Tensor, groups: int) -> Tensor:
    return u.t()[pixels.unflatten(3, (groups, -1)).int()].transpose(4, 5).flatten(3, 5)
