"""Factors in bytes on the tensor cores, by a Triton kernel: a convolution that expands features as it goes.

Indices are loaded as bytes, turned into features in registers and multiplied there: neither features nor windows ever
lie in memory.
"""

import functools
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.gpu.gather import border_of
from spaces.arithmetic.engines.gpu.launching import device_refusal, launch
from spaces.multipliers.byte_factors import MOST_CHANNELS, ByteFactors, as_bits, byte_factors, known_byte_factors
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

LOWEST_CAPABILITY = (8, 0)  # Ampere: before, tensor cores do not multiply bytes in the shapes that Triton uses
MOST_BITS = 8  # features cut out of an index in one pass; a word that is looked up holds four
FEWEST_PRODUCTS = 16  # inputs × outputs of a group: with fewer, nearly all of a tensor core's tile would be padding
FEW_CHANNELS = 32  # of a group, below which a block of K spans several taps
DIRECT_TILE = 2048  # pixels × outputs per program without tensor cores
MANY_PROGRAMS = 256  # enough to keep a large device busy


@dataclass(frozen=True, eq=False)
class _Features:
    """The table's byte factors as the kernels want them, in chunks of ``width`` features of one weight."""

    width: int
    bits: tuple[int, int] | None  # masks and flips, one byte per feature; None: features come from ``words``
    words: Tensor  # (chunks, 256) int32 by activation index, one feature per byte
    weights: Tensor  # (256, chunks, width) int8 by weight index
    shifts: Tensor  # (chunks,) int32: the sums so far count 2^shift times what the next chunk's do
    constant: Tensor | None  # (256,) int64 by weight index, None where it is zero


def _chunks(factors: ByteFactors, width: int) -> list[list[int]]:
    """The features' numbers, heaviest first, at most ``width`` together and those of one weight only."""
    chunks = []
    for weight in sorted(set(factors.weight.tolist()), reverse=True):
        alike = np.flatnonzero(factors.weight == weight).tolist()
        chunks += [alike[start : start + width] for start in range(0, len(alike), width)]
    return chunks or [[]]


@functools.lru_cache(maxsize=128)
def _features(table: ProductTable, device: torch.device) -> _Features:
    factors = known_byte_factors(table)
    chunks, bits = _chunks(factors, MOST_BITS), as_bits(factors.u)
    all_bits: tuple[int, int] | None = None
    if len(chunks) == 1 and bits:
        masks, flips = (sum(int(byte) << 8 * r for r, byte in enumerate(part)) for part in bits)
        all_bits = (masks, flips)
    else:
        chunks = _chunks(factors, 4)
    width = max(1, *map(len, chunks))
    words = np.zeros((len(chunks), SIZE, 4), dtype=np.int8)
    weights = np.zeros((SIZE, len(chunks), width), dtype=np.int8)
    for number, chunk in enumerate(chunks):
        weights[:, number, : len(chunk)] = factors.v[chunk].T
        if all_bits is None:
            words[number, :, : len(chunk)] = factors.u[:, chunk]
    powers = [int(factors.weight[chunk[0]]).bit_length() - 1 if chunk else 0 for chunk in chunks] + [0]
    return _Features(
        width,
        all_bits,
        torch.tensor(words.view(np.int32)[..., 0], device=device),
        torch.tensor(weights, device=device),
        torch.tensor(-np.diff(powers), dtype=torch.int32, device=device),
        torch.tensor(factors.constant, device=device) if factors.constant.any() else None,
    )


@dataclass(frozen=True)
class Packed:
    """What a convolution with these weights needs to know."""

    weights: Tensor  # int8, in the order of the kernel that will run
    constant: Tensor  # (O,) int32, added to every sum
    features: _Features
    shape: tuple[int, int, int, int]  # (O, C/g, kH, kW)
    geometry: Geometry
    blocks: tuple[int, int] | None  # outputs per tile and inputs per step of the tensor cores; None: without them


def refusal(table: ProductTable, device: torch.device) -> str:
    """Why the engine cannot be used: no Triton, no suitable CUDA device, or no small factors."""
    if reason := device_refusal(device, LOWEST_CAPABILITY):
        return reason
    if byte_factors(table) is None:
        return f"the table of {table.name} has no integer factors, or more than {MOST_CHANNELS}"
    return ""


def channels(table: ProductTable) -> int:
    """Factor channels per input channel."""
    return known_byte_factors(table).channels


def _blocks(outputs: int, inputs: int, width: int, looked_up: bool) -> tuple[int, int]:
    """Outputs per tile and inputs per step for a group.

    Little padding is best, and few tiles, for each makes its features anew: assumed to cost as much as 48 outputs.
    What a step holds in shared memory must fit consumer devices too (99 KiB per program).
    """
    sizes = (16, 32, 64) if width > 4 or looked_up else (16, 32, 64, 128)
    block_n = min(sizes, key=lambda size: -(-outputs // size) * (size + 48))
    block_k = 32 if width > 4 or looked_up else min((64, 32), key=lambda size: -(-inputs // size) * size)
    return block_n, block_k


def pack(weights: Tensor, table: ProductTable, geometry: Geometry) -> Packed:
    """Weight indices (O, C/groups, kH, kW) uint8 as features, ordered as the kernel for their shape reads them."""
    features = _features(table, weights.device)
    (outputs, inner), groups = weights.shape[:2], geometry.groups
    index = weights.permute(0, 2, 3, 1).flatten(1, 2).int()  # (O, taps, C/g)
    constant = torch.zeros(outputs, dtype=torch.int32, device=weights.device)
    if features.constant is not None:  # modulo 2^32, as the sums are
        constant = features.constant[index].sum(dim=(1, 2)).add_(2**31).remainder_(2**32).sub_(2**31).int()
    wide = features.weights[index]  # (O, taps, C/g, chunks, width)
    if groups > 1 and inner * (outputs // groups) < FEWEST_PRODUCTS:
        ordered, blocks = wide.permute(3, 1, 2, 4, 0).contiguous(), None
    else:
        flat = inner < FEW_CHANNELS
        wide = wide.flatten(1, 2).unsqueeze(1) if flat else wide
        blocks = _blocks(outputs // groups, wide.shape[2], features.width, features.bits is None)
        ordered = _in_blocks(wide.unflatten(0, (groups, outputs // groups)), *blocks)
    return Packed(ordered, constant, features, tuple(weights.shape), geometry, blocks)


def _in_blocks(wide: Tensor, block_n: int, block_k: int) -> Tensor:
    """(groups, outputs, taps, inputs, chunks, width) → (chunks, steps, width, groups, padded outputs, BLOCK_K)."""
    outputs, inputs = wide.shape[1], wide.shape[3]
    wide = F.pad(wide, (0, 0, 0, 0, 0, -inputs % block_k, 0, 0, 0, -outputs % block_n))
    return wide.flatten(2, 3).unflatten(2, (-1, block_k)).permute(4, 2, 5, 0, 1, 3).contiguous()


def conv2d(x: Tensor, packed: Packed, fill: int | Tensor, scale: Tensor | None = None) -> Tensor:
    """Σ T[x̂, ŵ] (N, O, H', W') of indices (N, C, H, W) uint8, as int32, or scaled as float32; channels-last."""
    geometry, features = packed.geometry, packed.features
    size = geometry.output_size(x.shape[2:], packed.shape[2:])
    dtype = torch.int32 if scale is None else torch.float32
    y = torch.empty((len(x), *size, packed.shape[0]), dtype=dtype, device=x.device)
    if y.numel() == 0:
        return y.permute(0, 3, 1, 2)
    x = pixels_of(x)
    scales = y if scale is None else scale.contiguous()
    tensors = (
        x, border_of(fill, packed.shape[1], x.device), packed.weights, features.words, features.shifts, packed.constant,
        scales, y,
    )  # fmt: skip
    sizes = (y.numel() // packed.shape[0], *x.shape[1:3], *size)
    moves = (*geometry.stride, *geometry.padding, *geometry.dilation)
    common = {
        "CHUNKS": features.words.shape[0],
        "WIDTH": features.width,
        "BITS": features.bits is not None,
        "SCALED": scale is not None,
        "enable_fp_fusion": False,  # the scale is one multiplication
    }
    launch_as_shaped = _launch_direct if packed.blocks is None else _launch_matrix
    launch_as_shaped(packed, tensors, sizes, moves, common)
    return y.permute(0, 3, 1, 2)


def _launch_direct(
    packed: Packed,
    tensors: tuple[Tensor, ...],
    sizes: tuple[int, ...],
    moves: tuple[int, ...],
    common: dict[str, Any],
) -> None:
    (outputs, inner, *kernel), groups = packed.shape, packed.geometry.groups
    pixels = sizes[0]
    bits = [
        word for part in packed.features.bits or (0, 0) for word in struct.unpack("<2i", part.to_bytes(8, "little"))
    ]
    unit = math.gcd(groups, tensors[0].data_ptr(), 16)
    block = min(64, 1 << (outputs - 1).bit_length())
    programs = -(-pixels // (DIRECT_TILE // block)) * -(-outputs // block)
    launch(
        "direct_kernel", programs, *tensors, *bits, *sizes, groups // unit, kernel[0] * kernel[1], kernel[1], *moves,
        UNIT=unit, GROUP_INPUTS=inner, GROUP_OUTPUTS=outputs // groups, PIXELS=DIRECT_TILE // block, OUTPUTS=block,
        num_warps=4, **common,
    )  # fmt: skip


def _launch_matrix(
    packed: Packed,
    tensors: tuple[Tensor, ...],
    sizes: tuple[int, ...],
    moves: tuple[int, ...],
    common: dict[str, Any],
) -> None:
    (outputs, inner, *kernel), groups = packed.shape, packed.geometry.groups
    assert packed.blocks is not None
    (block_n, block_k), width, pixels = packed.blocks, common["WIDTH"], sizes[0]
    masks, flips = packed.features.bits or (0, 0)
    unit, out_unit = math.gcd(inner, tensors[0].data_ptr(), 16), math.gcd(outputs // groups, 4)
    columns = groups * -(-outputs // groups // block_n)
    # Single bytes, each with an address of its own, need more registers than a large tile leaves.
    block_m = 64 if unit < 4 or columns * -(-pixels // 128) < MANY_PROGRAMS else 128
    launch(
        "matrix_kernel", columns * -(-pixels // block_m), *tensors, *sizes,
        groups, inner // unit, outputs // groups // out_unit, packed.weights.shape[1], kernel[1], *moves,
        UNIT=unit, OUT_UNIT=out_unit, MASKS=masks, FLIPS=flips, FLAT=inner < FEW_CHANNELS,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        num_warps=8 if block_m * block_n > 128 * 64 else 4, num_stages=3 if width * block_n <= 256 else 2, **common,
    )  # fmt: skip
