"""Every product looked up in the table, by a Triton kernel: for any table, on CUDA devices."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu.launching import LOWEST_CAPABILITY, device_refusal, launch
from spaces.multipliers.products import ProductTable

PIXELS = 128  # per program: lanes run over pixels
SHARED_OUTPUTS, OWN_OUTPUTS = 32, 8  # per program, of one group and so of the same inputs, or of several groups


def border_of(fill: int | Tensor, length: int, device: torch.device) -> Tensor:
    """(length,) uint8: what padded positions hold. A tensor stays on its device, so that nothing has to be waited for."""
    if isinstance(fill, Tensor):
        return fill.to(torch.uint8).expand(length).contiguous()
    return _constant_border(fill, length, device)


@functools.cache  # for ever: a graph that a user records keeps nothing but its address
def _constant_border(fill: int, length: int, device: torch.device) -> Tensor:
    return torch.full((length,), fill, dtype=torch.uint8, device=device)


@functools.lru_cache(maxsize=64)
def _device_table(table: ProductTable, device: torch.device) -> tuple[Tensor, int]:
    """The table (256, 256) by weight, then activation, less an offset with which 16 bits hold it if any do."""
    by_weight = table.table.T.astype(np.int64)
    offset = int(by_weight.min()) + (1 << 15)
    if by_weight.max() - offset < 1 << 15:
        return torch.tensor(by_weight - offset, dtype=torch.int16, device=device).contiguous(), offset
    return torch.tensor(by_weight, dtype=torch.int32, device=device).contiguous(), 0


@dataclass(frozen=True)
class Packed:
    """What a convolution with these weights needs to know."""

    weights: Tensor  # (taps, C/g, O) uint8
    kernel: tuple[int, int]
    table: Tensor  # (256, 256) int16 or int32 by weight, then activation
    correction: int  # what the table's offset adds up to, modulo 2^32 as the sums are
    geometry: Geometry


def refusal(table: ProductTable, device: torch.device) -> str:  # noqa: ARG001 (any table will do)
    """Why the engine cannot be used: Triton is missing, or it is no CUDA device."""
    return device_refusal(device, LOWEST_CAPABILITY)


def channels(table: ProductTable) -> int:  # noqa: ARG001
    """No factors: products are looked up."""
    return 0


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed:
    """Weight indices (O, C/groups, kH, kW) uint8 in the order in which the kernel reads them."""
    entries, offset = _device_table(table, weights.device)
    correction = (weights[0].numel() * offset + 2**31) % 2**32 - 2**31
    taps = weights.permute(2, 3, 1, 0).flatten(0, 1).contiguous()
    return Packed(taps, tuple(weights.shape[2:]), entries, correction, geometry)


def conv2d(x: Tensor, packed: Packed, fill: int | Tensor, scale: Tensor | None = None) -> Tensor:
    """Σ T[x̂, ŵ] (N, O, H', W') of uint8 indices (N, C, H, W): int32, or float32 where scaled; channels-last as x."""
    geometry, (taps, inner, outputs) = packed.geometry, packed.weights.shape
    out_height, out_width = geometry.output_size(x.shape[2:], packed.kernel)
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        (len(x), outputs, out_height, out_width),
        dtype=torch.int32 if scale is None else torch.float32,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    if y.numel() == 0:
        return y
    per_group = outputs // geometry.groups
    shared = geometry.groups == 1 or per_group >= SHARED_OUTPUTS // 2
    block = OWN_OUTPUTS
    if shared:
        block = SHARED_OUTPUTS if per_group > SHARED_OUTPUTS // 2 else SHARED_OUTPUTS // 2
    tiles = geometry.groups * -(-per_group // block) if shared else -(-outputs // block)
    pixels = y.numel() // outputs
    launch(
        "gather_kernel", tiles * -(-pixels // PIXELS),
        x.contiguous(), border_of(fill, 1, x.device), packed.weights, packed.table,
        y if scale is None else scale.contiguous(), y,
        packed.correction, pixels, *x.shape[2:], out_height, out_width,
        x.shape[1], outputs, inner, per_group, taps, packed.kernel[1], tiles,
        *geometry.stride, *geometry.padding, *geometry.dilation,
        SHARED=shared, SCALED=scale is not None, CHANNELS_LAST=last, OUTPUTS=block, PIXELS=PIXELS,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return y
