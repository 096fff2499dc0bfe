"""8-bit codes and their scales.

Signed circuits: symmetric codes x̂ = clamp(round(x / s), −127, 127), one scale per activation tensor and one per output
channel of a weight (Jacob et al., CVPR 2018, without the code −128 so that the range is symmetric). Unsigned circuits:
affine codes 0..255 for activations, with the zero point z = round(−min / s), and the signed codes plus 128 for weights.

Codes are kept as indices into the circuit's table, one byte each: code − lowest operand.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines import quantise_loops as loops
from spaces.arithmetic.engines.gpu import quantisation
from spaces.multipliers.products import WEIGHT_ZERO

LARGEST_CODE = 127
_LARGEST = np.float32(LARGEST_CODE)
LEVELS = 255  # between the lowest and the highest affine code
SMALLEST_SCALE = np.finfo(np.float32).tiny * np.float32(2**20)  # keeps x / s finite for an all-zero tensor


@dataclass(frozen=True)
class Scale:
    """How activations become codes: index = clamp(round(x / step), low, high) + zero."""

    step: Tensor  # 0-dimensional float32
    low: int | Tensor
    high: int | Tensor
    zero: int | Tensor  # the index of zero; on a GPU, where it depends on values, 0-dimensional int32, not waited for
    spare: Tensor | None = None  # the step once more, in a tensor that nobody else holds

    @functools.cached_property
    def number(self) -> float:
        """The step as a number; waits for a GPU."""
        return float(self.step)

    @classmethod
    def symmetric(cls, maximum: Tensor) -> "Scale":
        """For a signed circuit: s = max|x| / 127."""
        return cls(scale_from_maximum(maximum), -LARGEST_CODE, LARGEST_CODE, 128)

    @classmethod
    def of_maximum(cls, maximum: float) -> "Scale":
        """``symmetric`` of a float32 number on the CPU: the same step, in a fraction of the time that tensors of one take."""
        step = np.float32(maximum) / _LARGEST
        number = float(SMALLEST_SCALE if step < SMALLEST_SCALE else step)  # a NaN stays one
        scale = cls(torch.from_numpy(np.asarray(number, dtype=np.float32)), -LARGEST_CODE, LARGEST_CODE, WEIGHT_ZERO)
        scale.__dict__["number"] = number
        return scale

    @classmethod
    def affine(cls, minimum: Tensor, maximum: Tensor) -> "Scale":
        """For an unsigned circuit: s = (max − min) / 255; zero lies inside the range and has a code of its own."""
        step = divided(maximum - minimum, LEVELS).clamp_min(float(SMALLEST_SCALE))
        zero = (-minimum / step).round().nan_to_num(nan=0.0).clamp(0, LEVELS)
        zero = int(zero) if zero.device.type == "cpu" else zero.int()
        return cls(step, -zero, LEVELS - zero, zero)

    @property
    def kernels_take(self) -> bool:
        """Whether the codes are all numbers or all on the device, as those of the scales here are."""
        kinds = {part.dtype if isinstance(part, Tensor) else int for part in (self.low, self.high, self.zero)}
        return kinds in ({int}, {torch.int32}) and self.step.dtype == torch.float32


@dataclass(frozen=True)
class Codes:
    """Quantised activations: ``index`` (uint8, the shape of x) and, if any were clamped, ``clamped`` (uint8, 0 or 1)."""

    index: Tensor
    clamped: Tensor | None
    scale: Scale  # with a step of NaN where x held one, so that it reaches the layer's output


def scale_from_maximum(maximum: Tensor) -> Tensor:
    """The scale s = max|x| / 127 that spends the whole code range on ``maximum`` (any shape)."""
    return divided(maximum, LARGEST_CODE).clamp_min(float(SMALLEST_SCALE))


def divided(values: Tensor, by: float) -> Tensor:
    """``values`` divided by a number, rounded as a division is on every device.

    On CUDA, torch multiplies by the reciprocal of a number, which may differ in the last place.
    """
    return values / (by if values.device.type == "cpu" else torch.full_like(values, by))


def quantise(x: Tensor, scale: Scale) -> Codes:
    """The codes of ``x`` (any shape, any floating dtype).

    A NaN gets the code of zero, so that it cannot point beyond a table.
    """
    x = x.detach()
    if x.device.type != "cpu":
        return _quantise_on_device(x, scale)
    x = dense(x.float())
    index = torch.empty_like(x, dtype=torch.uint8)
    flags = loops.quantise(x, scale.number, scale.low, scale.high, scale.zero, index)
    clamped = None
    if flags & loops.CLAMPED:
        clamped = torch.empty_like(index)
        loops.outside(x, scale.number, scale.low, scale.high, clamped)
    if flags & loops.NAN:
        scale = Scale(torch.full_like(scale.step, torch.nan), scale.low, scale.high, scale.zero)
    return Codes(index, clamped, scale)


def quantise_once(x: Tensor, scale: Scale) -> Codes:
    """``quantise``, remembered with ``x``: layers that read one tensor at one scale share its codes.

    On a GPU, where comparing scales would wait for them, nothing is remembered.
    """
    if x.device.type != "cpu" or x.is_inference():
        return quantise(x, scale)
    key = (x._version, scale.number, scale.low, scale.zero)
    known = getattr(x, "_known_codes", None)
    if known is None or known[0] != key:
        known = (key, quantise(x, scale))
        x._known_codes = known  # lives as long as the tensor
    return known[1]


def is_dense(x: Tensor) -> bool:
    """Whether a tensor fills its memory, in one of the two orders that layers use."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def dense(x: Tensor) -> Tensor:
    """A tensor that fills its memory; where it does not, a copy, channels-last if it has so many dimensions."""
    if is_dense(x):
        return x
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


def flat(x: Tensor) -> Tensor:
    """The memory of a dense tensor as it lies (n,)."""
    return x.as_strided((x.numel(),), (1,))


def _quantise_on_device(x: Tensor, scale: Scale) -> Codes:
    if quantisation.works_on(x.device) and scale.kernels_take:
        x = dense(x)
        index, clamped, step = quantisation.codes(x, scale.step, scale.low, scale.high, scale.zero, scale.spare)
        return Codes(index, clamped, Scale(step, scale.low, scale.high, scale.zero))
    return codes_by_torch(x, scale)


def codes_by_torch(x: Tensor, scale: Scale) -> Codes:
    """For devices without Triton."""
    codes = (x.float() / scale.step).round_()
    nan = codes.isnan().any()
    clamped = ((codes < scale.low) | (codes > scale.high)).to(torch.uint8)
    index = (codes.nan_to_num_(nan=0.0).clamp_(scale.low, scale.high) + scale.zero).to(torch.uint8)
    step = torch.where(nan, torch.full_like(scale.step, torch.nan), scale.step)
    return Codes(index, clamped, Scale(step, scale.low, scale.high, scale.zero))


# A weight (O, …) → its codes as indices (uint8; a code plus 128, from 1 to 255) and one scale per output channel (O,)
# float32, on the device of the weight: what is multiplied is scale · code.
WeightQuantiser = Callable[[Tensor], tuple[Tensor, Tensor]]


def weight_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (uint8) of a weight (O, …) and its scale per output channel (O,); no code needs a clamp."""
    weight = weight.detach().float()
    if weight.device.type == "cpu":
        outputs = weight.shape[0]
        weight, index, scale = weight.contiguous(), torch.empty(weight.shape, dtype=torch.uint8), torch.empty(outputs)
        size, written = (outputs, weight.numel() // outputs), (index.data_ptr(), scale.data_ptr())
        loops.quantise_rows(weight.data_ptr(), *size, _LARGEST, SMALLEST_SCALE, WEIGHT_ZERO, *written)
        return index, scale
    if quantisation.works_on(weight.device):
        weight = dense(weight)
        return quantisation.weight_codes(weight, LARGEST_CODE, float(SMALLEST_SCALE), WEIGHT_ZERO)
    return weight_codes_by_torch(weight)


def weight_codes_by_torch(weight: Tensor) -> tuple[Tensor, Tensor]:
    """For devices without Triton."""
    scale = scale_from_maximum(weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True))
    index = (weight / scale).round_().nan_to_num_(nan=0.0).add_(WEIGHT_ZERO).to(torch.uint8)
    return index, scale.flatten()
