"""Integer sums in floating point: how much fits, and how to split what does not."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numba import njit
from torch import Tensor

from spaces.arithmetic.engines.memory import floats_at
from spaces.arithmetic.engines.threads import share

EXACT_FLOAT32 = 1 << 24  # integers up to here, and so sums that stay below it in any order, are exact in float32
_BLOCK = 32768  # numbers per task


def slices_of_terms(
    weight: np.ndarray, largest: np.ndarray, inner: int, exact: bool
) -> Iterator[tuple[int, slice, slice | None]]:
    """How to compute Σ_r weight_r Σ_channels … in calls: (weight, features, channels of every group).

    ``weight`` (R,) ascends; ``largest`` (R,) bounds what one channel adds through feature r. Features of one weight go
    together; with one channel per group every feature goes alone (so wide depthwise convolutions are a slow path of the
    library). If ``exact``, no call's sums reach 2^24: then channels, and in the end features, are split.
    """
    first = 0
    while first < len(weight):
        last = first + 1
        while last < len(weight) and weight[last] == weight[first] and inner > 1:
            if exact and largest[first : last + 1].sum() >= EXACT_FLOAT32:
                break
            last += 1
        per_channel = int(largest[first:last].sum())
        parts = math.ceil(inner / max(1, (EXACT_FLOAT32 - 1) // max(1, per_channel))) if exact else 1
        if parts == 1:
            yield int(weight[first]), slice(first, last), None
        else:
            width = math.ceil(inner / parts)
            for start in range(0, inner, width):
                yield int(weight[first]), slice(first, last), slice(start, min(inner, start + width))
        first = last


def finish(sums: Tensor, constant: Tensor | None, scale: Tensor | None) -> Tensor:
    """Exact ``sums`` (N, O, H, W) plus ``constant`` (O,); then rounded to float32 and scaled, if there is a ``scale``.

    Works in place where it can. The caller sees to it that the dtype of ``sums`` holds everything.
    """
    channels_last = sums.is_contiguous(memory_format=torch.channels_last) and sums.device.type == "cpu"
    if constant is not None and scale is not None and channels_last and sums.dtype == torch.float32:
        rows = sums.permute(0, 2, 3, 1).view(-1, sums.shape[1])
        added, factors = constant.float().contiguous(), scale.contiguous()
        pixels, outputs = rows.shape
        some = max(1, _BLOCK // outputs)
        arguments = (rows.data_ptr(), pixels, outputs, added.data_ptr(), factors.data_ptr(), some)
        share(_add_and_scale, arguments, -(-pixels // some), rows.numel())
        return sums
    if constant is not None:
        sums = sums.add_(constant.to(sums.dtype).view(1, -1, 1, 1))
    return sums if scale is None else sums.to(torch.float32).mul_(scale.view(1, -1, 1, 1))


@njit(cache=True, nogil=True)
def _add_and_scale(sums, pixels, outputs, constant, scale, some, begin, end):
    """sums = (sums + constant)·scale (P, O), in place; tasks from ``begin`` to ``end``, of ``some`` pixels each."""
    added, factors = floats_at(constant), floats_at(scale)
    for pixel in range(begin * some, min(pixels, end * some)):
        own = floats_at(sums + 4 * pixel * outputs)
        for o in range(outputs):
            own[o] = (own[o] + added[o]) * factors[o]
