"""Layers whose multiplications run through a circuit.

All compute y = s_x s_w Σ T[x̂, ŵ] + bias; for an unsigned circuit with the terms of its zero points (design, section 3).
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.convolution import convolve
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.gradients import GRADIENTS
from spaces.arithmetic.packed_weight import WeightCache
from spaces.arithmetic.precision import plain_fp32
from spaces.arithmetic.quantise import Codes, WeightQuantiser, divided, quantise_once, weight_codes
from spaces.arithmetic.running_scales import RunningMaximum, RunningRange, moved
from spaces.errors import InputError, suggest
from spaces.multipliers.multiplier import SIZE, Multiplier
from spaces.multipliers.products import layer_table


def activation_scale(signed: bool) -> nn.Module:
    """The module that follows the range of a layer's input, for circuits of this signedness."""
    return RunningMaximum() if signed else RunningRange()


class ApproxConv2d(nn.Conv2d):
    """``nn.Conv2d`` (same arguments, same parameters) whose products come from ``multiplier``.

    ``gradient``: "straight-through" (that of the exact convolution), or with the circuit's own slopes: "slope" or
    "difference" (see ``spaces.arithmetic.gradients``). ``compensate_bias`` subtracts the circuit's mean error under the
    layer's own operands, a constant per output channel that hardware adds to the bias.

    ``weight_quant`` maps the weight to codes and scales; its default spends all codes on the largest weight of a channel.
    ``activation_quant`` is a module that maps the input to the ``Scale`` of its codes, and may follow the batches of a
    training; its default follows their range. The gradient passes straight through both.
    """

    def __init__(
        self,
        *args: Any,
        multiplier: Multiplier,
        gradient: str = "straight-through",
        compensate_bias: bool = False,
        weight_quant: WeightQuantiser = weight_codes,
        activation_quant: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _equip(self, multiplier, gradient, compensate_bias, weight_quant, activation_quant)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) → (N, O, H', W'). Raises InputError for another number of channels, which engines do not check."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise InputError(f"the input must be (N, {self.in_channels}, H, W), not {tuple(x.shape)}")
        x, geometry = pad_if_needed(self, x)
        return _multiply(self, x, self.weight, geometry)


class ApproxLinear(nn.Linear):
    """``nn.Linear`` whose products come from ``multiplier``: a 1×1 convolution of a single pixel.

    ``gradient``, ``compensate_bias`` and the quantisers as in ``ApproxConv2d``.
    """

    def __init__(
        self,
        *args: Any,
        multiplier: Multiplier,
        gradient: str = "straight-through",
        compensate_bias: bool = False,
        weight_quant: WeightQuantiser = weight_codes,
        activation_quant: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _equip(self, multiplier, gradient, compensate_bias, weight_quant, activation_quant)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in_features) → (…, out_features)."""
        pixels = x.reshape(-1, self.in_features, 1, 1)
        y = _multiply(self, pixels, self.weight, Geometry())
        return y.view(*x.shape[:-1], self.out_features)


def _equip(
    layer: nn.Module,
    multiplier: Multiplier,
    gradient: str,
    compensate_bias: bool,
    weight_quant: WeightQuantiser,
    activation_quant: nn.Module | None,
) -> None:
    """Give a layer what it needs besides its weight. Raises InputError for an unknown gradient."""
    if gradient not in GRADIENTS:
        raise suggest(gradient, GRADIENTS, "gradient")
    layer.multiplier, layer.gradient = multiplier, gradient
    layer.activation_scale = activation_scale(multiplier.signed) if activation_quant is None else activation_quant
    layer.mean_error = MeanError(multiplier) if compensate_bias else None
    layer.kept = WeightCache(weight_quant)


def _multiply(layer: nn.Module, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The layer's output (N, O, H', W') for its input and for its weight as (O, C/groups, kH, kW)."""
    table = layer_table(layer.multiplier)
    scale = layer.activation_scale(x)
    x, geometry = without_unread(x, weight, geometry)
    codes = quantise_once(x, scale)
    if weight.dim() == 2:
        weight, packed = weight[:, :, None, None], layer.kept.get(weight, table, geometry)
    else:
        packed = layer.kept.get(weight, table, geometry)
    constant = None
    if layer.mean_error is not None:
        constant = -layer.mean_error(codes, packed.index) * (codes.scale.step * packed.scale)
    y = convolve(x, weight, codes, packed, table, geometry, layer.gradient, constant)
    return y if layer.bias is None else y + layer.bias.view(1, -1, 1, 1)


class MeanError(nn.Module):
    """The mean error of a layer's sums: Σ over its products of the circuit's error, averaged over the layer's inputs.

    ``histogram`` (256,) is a moving average, over training batches, of how often each activation code occurs. Weights
    are taken as they are. A layer that has seen no training batch uses the batch at hand.
    """

    def __init__(self, multiplier: Multiplier, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        table = layer_table(multiplier)
        error = torch.tensor(table.table - table.exact, dtype=torch.float32)
        self.register_buffer("error", error, persistent=False)
        self.register_buffer("histogram", torch.zeros(SIZE))
        # Whether any code was seen, for one value of the histogram
        self._known: tuple[tuple[Any, ...], bool] | None = None

    def _seen_any(self) -> bool:
        """Waits for a GPU, but once after a training alone."""
        state = (self.histogram.data_ptr(), self.histogram._version)
        if self._known is None or self._known[0] != state:
            self._known = (state, bool(self.histogram.any()))
        return self._known[1]

    @torch.no_grad()
    def forward(self, codes: Codes, w_index: Tensor) -> Tensor:
        """(O,) in units of the product; updates the histogram in training mode."""
        histogram = self.histogram
        if self.training:
            batch = _shares(codes.index)
            histogram.copy_(torch.where(histogram.any(), moved(histogram, batch, self.momentum), batch))
        elif not self._seen_any():
            histogram = _shares(codes.index)
        with plain_fp32(histogram.device):
            by_weight = histogram @ self.error  # (256,): the mean error of a product with each weight
        return by_weight[w_index.int()].sum(dim=(1, 2, 3))


def _shares(index: Tensor) -> Tensor:
    """How often each of the 256 indices occurs, as shares (256,) float32; counted without waiting for a GPU."""
    counts = torch.zeros(SIZE, dtype=torch.int64, device=index.device)
    ones = torch.ones((), dtype=torch.int64, device=index.device).expand(index.numel())
    return divided(counts.index_add_(0, index.flatten().int(), ones).float(), index.numel())


def pad_if_needed(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Geometry]:
    """The input and geometry with which symmetric zero padding suffices; other padding is applied to ``x`` here."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    if conv.padding_mode == "zeros" and left == right and top == bottom:
        return x, Geometry(conv.stride, (top, left), conv.dilation, conv.groups)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    return x, Geometry(conv.stride, (0, 0), conv.dilation, conv.groups)


def without_unread(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """The pixels that a 1×1 kernel with a stride reads, with no stride left; anything else as it is.

    To be called with the range of the whole ``x`` known, so that it makes no difference to results.
    """
    down, across = geometry.stride
    if (down, across) == (1, 1) or geometry.padding != (0, 0) or tuple(weight.shape[2:]) != (1, 1):
        return x, geometry
    return _EveryOther.apply(x, down, across), replace(geometry, stride=(1, 1))


class _EveryOther(torch.autograd.Function):
    """Every so many rows and columns of x (N, C, H, W). The gradient is channels-last, other than that of two slices,
    which takes all that follows backwards several times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: int, across: int) -> Tensor:
        ctx.size, ctx.steps = x.shape, (down, across)
        return x[:, :, ::down, ::across].contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        down, across = ctx.steps
        whole = torch.empty(ctx.size, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last).zero_()
        whole[:, :, ::down, ::across] = grad
        return whole, None, None
