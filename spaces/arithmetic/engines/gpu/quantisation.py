"""Codes and scales on a GPU, each by one Triton kernel where torch would launch a dozen; bit for bit the same numbers."""

import functools

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines import quantise_loops as loops
from spaces.arithmetic.engines.gpu.launching import LOWEST_CAPABILITY, launch, works

BLOCK = 1024  # values per program
ROW = 256  # of a weight, so many values at a time
APART = 4  # numbers from one to the next, so that each is where kernels find tensors: at a multiple of 16 bytes


@functools.cache
def works_on(device: torch.device) -> bool:
    """Whether a device runs these kernels, to the results of the CPU."""
    return works("quantisation", device, LOWEST_CAPABILITY, _agrees)


def codes(
    x: Tensor, step: Tensor, low: int | Tensor, high: int | Tensor, zero: int | Tensor, spare: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """index and clamped (uint8, as x lies in memory) of a dense ``x``, and the step: NaN where x / step is one somewhere.

    ``step`` is 0-dimensional float32, ``spare`` the same once more, which is returned instead of a copy; the others are numbers
    or 0-dimensional int32 tensors, all of them.
    """
    index, clamped = (torch.empty_like(x, dtype=torch.uint8) for _ in range(2))
    step_out = step.clone() if spare is None else spare  # programs that find a NaN write it while others read the step
    launch(
        "quantise_kernel", max(1, -(-x.numel() // BLOCK)), x, step, low, high, zero, index, clamped, step_out, x.numel(),
        LOADED=isinstance(zero, Tensor), BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return index, clamped, step_out


def look_up(index: Tensor, values: Tensor) -> Tensor:
    """values[index] as ``index`` (uint8, dense) lies in memory; values (256,) of any type."""
    out = torch.empty_like(index, dtype=values.dtype)
    programs = max(1, -(-index.numel() // BLOCK))
    launch("look_up_kernel", programs, index, values.contiguous(), out, index.numel(), BLOCK=BLOCK, num_warps=4)
    return out


def decode(index: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """values[index]·scale (O,) float32 of dense weight indices (O, …), as they lie in memory."""
    out, size = torch.empty_like(index, dtype=torch.float32), index.numel()
    launch(
        "decode_kernel", -(-size // BLOCK), index, values.contiguous(), scale.contiguous(), out, size, size // len(index),
        BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out


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


def moved_maximum(
    low: Tensor, high: Tensor, maximum: Tensor, momentum: float, levels: int, smallest: float
) -> tuple[Tensor, Tensor]:
    """Move the average ``maximum`` (in place) towards max(high, −low); twice the step that follows, float32 each.

    ``low`` and ``high`` may be those of many parts of a tensor (n,).
    """
    step, spare = torch.empty((2, APART), device=maximum.device)[:, 0].unbind()
    launch(
        "running_maximum_kernel", 1, low, high, maximum, step, spare, low.numel(), MOMENTUM=momentum, LEVELS=float(levels),
        SMALLEST_SCALE=smallest, BLOCK=_parts(low), num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return step, spare


def moved_range(
    low: Tensor, high: Tensor, minimum: Tensor, maximum: Tensor, momentum: float, levels: int, smallest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Move the averages (in place) towards the range with zero in it; twice the step, and the lowest, highest and zero code
    (3,).

    ``low`` and ``high`` as in ``moved_maximum``.
    """
    step, spare = torch.empty((2, APART), device=maximum.device)[:, 0].unbind()
    found = torch.empty(3, dtype=torch.int32, device=maximum.device)
    launch(
        "running_range_kernel", 1, low, high, minimum, maximum, step, spare, found, low.numel(), MOMENTUM=momentum,
        LEVELS=float(levels), SMALLEST_SCALE=smallest, BLOCK=_parts(low), num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return step, spare, found


def _parts(low: Tensor) -> int:
    """Of parts of a tensor, how many a kernel looks at together."""
    return min(BLOCK, 1 << (max(1, low.numel()) - 1).bit_length())


# -- tried out ---------------------------------------------------------------------------------------------------------


def _agrees(device: torch.device) -> bool:
    """Whether codes, weights and moving averages are those of the CPU's loops, bit for bit."""
    return _codes_agree(device) and _weights_agree(device) and _averages_agree(device)


def _codes_agree(device: torch.device) -> bool:
    x = torch.linspace(-40, 40, 5 * BLOCK // 2)
    x[::7] = x[::7].round() / 2  # many in the middle between two codes
    x[-1] = torch.nan
    expected, outside = torch.empty(x.shape, dtype=torch.uint8), torch.empty(x.shape, dtype=torch.uint8)
    for low, high, zero in ((-127, 127, 128), (-30, 225, 30)):
        loops.quantise(x, 0.25, low, high, zero, expected)
        loops.outside(x, 0.25, low, high, outside)
        numbers = (torch.tensor(number, dtype=torch.int32, device=device) for number in (low, high, zero))
        for limits in ((low, high, zero), tuple(numbers)):
            index, clamped, step = codes(x.to(device), torch.full((), 0.25, device=device), *limits)
            same = torch.equal(index.cpu(), expected) and torch.equal(clamped.cpu(), outside)
            if not same or not bool(step.isnan()):
                return False
            looked_up = look_up(index, torch.arange(256, device=device).flip(0).float())
            if not torch.equal(looked_up.cpu(), 255 - expected.float()):
                return False
    return True


def _weights_agree(device: torch.device) -> bool:
    for length in (9, 300):
        weight = torch.linspace(-1, 1, 7 * length).sin().view(7, length)
        index, scale = torch.empty(weight.shape, dtype=torch.uint8), torch.empty(7)
        numbers = (np.float32(127), np.float32(1e-32), 128)
        loops.quantise_rows(weight.data_ptr(), 7, length, *numbers, index.data_ptr(), scale.data_ptr())
        found = weight_codes(weight.to(device), 127, 1e-32, 128)
        if not torch.equal(found[0].cpu(), index) or not torch.equal(found[1].cpu(), scale):
            return False
        values = torch.arange(256).flip(0).float()
        decoded = decode(index.to(device), values.to(device), scale.to(device))
        if not torch.equal(decoded.cpu(), values[index.long()] * scale.view(-1, 1)):
            return False
    return True


def _averages_agree(device: torch.device) -> bool:
    low, high, minimum, maximum = (torch.full((), number, device=device) for number in (-1.7, 0.9, -0.3, 1.1))
    steps = moved_maximum(low, high, maximum, 0.1, 127, 1e-32)
    before, batch = float(np.float32(1.1)), float(np.float32(1.7))
    moved = np.float32(before + 0.1 * (batch - before))
    if maximum.item() != moved or any(step.item() != moved / np.float32(127) for step in steps):
        return False
    step, spare, found = moved_range(low, high, minimum, maximum, 0.1, 255, 1e-32)
    width = np.float32(maximum.item()) - np.float32(minimum.item())
    zero, same = round(-minimum.item() / step.item()), step.item() == spare.item() == width / np.float32(255)
    return same and found.tolist() == [-zero, 255 - zero, zero]
