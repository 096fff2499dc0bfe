"""Codes and scales on a GPU, each by one Triton kernel where torch would launch a dozen; bit for bit the same numbers."""

import torch
from torch import Tensor

from spaces.arithmetic.engines.gpu.launching import launch

BLOCK = 1024  # values per program
ROW = 256  # of a weight, so many values at a time


def codes(
    x: Tensor, step: Tensor, low: int | Tensor, high: int | Tensor, zero: int | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """index and clamped (uint8, as x lies in memory) of a dense ``x``, and the step: NaN where x / step is one somewhere.

    ``step`` is 0-dimensional float32; the others are numbers or 0-dimensional int32 tensors, all of them.
    """
    index, clamped = (torch.empty_like(x, dtype=torch.uint8) for _ in range(2))
    step_out = step.clone()
    launch(
        "quantise_kernel", max(1, -(-x.numel() // BLOCK)), x, step, low, high, zero, index, clamped, step_out, x.numel(),
        LOADED=isinstance(zero, Tensor), BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return index, clamped, step_out


def weight_codes(weight: Tensor, largest: int, smallest_scale: float, zero: int) -> tuple[Tensor, Tensor]:
    """Indices (uint8) of a dense weight (O, …), and its scale per output channel (O,)."""
    index, scale = torch.empty_like(weight, dtype=torch.uint8), torch.empty(len(weight), device=weight.device)
    length = weight.numel() // len(weight)
    block = min(ROW, 1 << (length - 1).bit_length())
    rows = max(1, BLOCK // block // 2)
    launch(
        "weight_codes_kernel", -(-len(weight) // rows), weight, index, scale, len(weight), length,
        LARGEST=float(largest), SMALLEST_SCALE=smallest_scale, ZERO=zero, ROWS=rows, BLOCK=block,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return index, scale


def moved_maximum(low: Tensor, high: Tensor, maximum: Tensor, momentum: float, levels: int, smallest: float) -> Tensor:
    """Move the average ``maximum`` (in place) towards max(high, −low); the step (0-dimensional float32) that follows."""
    step = torch.empty_like(maximum)
    launch(
        "running_maximum_kernel", 1, low, high, maximum, step,
        MOMENTUM=momentum, LEVELS=float(levels), SMALLEST_SCALE=smallest, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return step


def moved_range(
    low: Tensor, high: Tensor, minimum: Tensor, maximum: Tensor, momentum: float, levels: int, smallest: float
) -> tuple[Tensor, Tensor]:
    """Move the averages (in place) towards the range with zero in it; step, and the lowest, highest and zero code (3,)."""
    step, found = torch.empty_like(maximum), torch.empty(3, dtype=torch.int32, device=maximum.device)
    launch(
        "running_range_kernel", 1, low, high, minimum, maximum, step, found,
        MOMENTUM=momentum, LEVELS=float(levels), SMALLEST_SCALE=smallest, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return step, found
