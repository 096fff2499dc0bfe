"""Layers whose multiplications run through a circuit, or through a weighted mixture of circuits.

All compute y = s_x s_w Σ T[x̂, ŵ] + bias and pass gradients straight through: those of the exact convolution of the
dequantised operands, zero for an activation that was clamped.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic import emulate
from spaces.arithmetic.engines import factored
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.quantise import RunningMaximum, clamped_codes, weight_codes
from spaces.errors import InputError
from spaces.multipliers.factors import shared_basis
from spaces.multipliers.multiplier import SIZE, Multiplier


def _codes(ctx, x: Tensor, weight: Tensor, x_scale: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """Operand codes and output scale (1, O, 1, 1); keeps in ``ctx`` what the straight-through gradients need."""
    x_codes, clamped = clamped_codes(x, x_scale)
    w_codes, w_scale = weight_codes(weight)
    out_scale = (x_scale * w_scale).view(1, -1, 1, 1)
    ctx.geometry = geometry
    ctx.save_for_backward(x_codes, w_codes, clamped, x_scale, w_scale, out_scale)
    return x_codes, w_codes, out_scale


def _straight_through(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients for x and the weight: those of the exact convolution of the codes, unscaled, zero outside the clamp."""
    x_codes, w_codes, clamped, x_scale, w_scale, out_scale = ctx.saved_tensors
    grad_x, grad_w = _conv_gradients(grad * out_scale, x_codes, w_codes, ctx.geometry, ctx.needs_input_grad[:2])
    if grad_x is not None:
        grad_x = grad_x / x_scale
        grad_x = torch.addcmul(grad_x, grad_x, clamped, value=-1)
    if grad_w is not None:
        grad_w = grad_w / w_scale
    return grad_x, grad_w


def _conv_gradients(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool]) -> tuple:
    """Gradients of an ordinary convolution with respect to its input and its weight, where wanted."""
    if not any(wanted):
        return None, None
    g = geometry
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, g.stride, g.padding, g.dilation, False, [0, 0], g.groups, [*wanted, False]
    )[:2]


class _StraightThrough(torch.autograd.Function):
    """Forward: the circuit's sums, scaled. Backward: the exact convolution's gradients (design, section 3)."""

    @staticmethod
    def forward(ctx, x, weight, x_scale, circuit, geometry):
        x_codes, w_codes, out_scale = _codes(ctx, x, weight, x_scale, geometry)
        return (emulate.conv_sums(x_codes, w_codes, circuit, geometry) * out_scale).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return *_straight_through(ctx, grad), None, None, None


class ApproxConv2d(nn.Conv2d):
    """``nn.Conv2d`` (same arguments, same parameters) whose products come from ``multiplier``, a signed circuit."""

    def __init__(self, *args, multiplier: Multiplier, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.multiplier = _signed(multiplier)
        self.activation_scale = RunningMaximum()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) → (N, O, H', W')."""
        return _convolve(self, x, self.multiplier)


class ApproxLinear(nn.Linear):
    """``nn.Linear`` whose products come from ``multiplier``, a signed circuit: a 1×1 convolution of a single pixel."""

    def __init__(self, *args, multiplier: Multiplier, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.multiplier = _signed(multiplier)
        self.activation_scale = RunningMaximum()

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in_features) → (…, out_features)."""
        pixel = x.reshape(-1, self.in_features, 1, 1)
        scale = self.activation_scale(pixel)
        y = _StraightThrough.apply(pixel, self.weight[:, :, None, None], scale, self.multiplier, Geometry())
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


class MultiplierChoice(nn.Module):
    """The probabilities β with which a group of layers uses each circuit of a library, as one blended table.

    With the library's shared basis T_m = U V_m, the blend Σ_m β_m T_m = U (Σ_m β_m V_m) is the table of one more
    "circuit" of rank R.
    """

    def __init__(self, library: Sequence[Multiplier]) -> None:
        super().__init__()
        basis = shared_basis(tuple(_signed(multiplier) for multiplier in library))
        if basis is None:
            raise InputError("this library of multipliers has no shared integer basis; search fewer circuits at a time")
        u, v = (torch.tensor(part, dtype=torch.float32).contiguous() for part in basis)  # look-ups need contiguity
        self.lo = library[0].lo
        self.zero_has_features = bool(u[-self.lo].any())  # then a padded zero must go through the tables, too
        self.register_buffer("u", u, persistent=False)
        self.register_buffer("v", v, persistent=False)
        self.blended: Tensor | None = None  # (R, 256)

    def set(self, probabilities: Tensor) -> None:
        """Blend for probabilities (M,); differentiable. To be called before the layers run."""
        self.blended = torch.einsum("m,mrw->rw", probabilities, self.v)


class _MixtureStraightThrough(torch.autograd.Function):
    """As ``_StraightThrough``, with the exact gradient for the blended table, and through it for β."""

    @staticmethod
    def forward(ctx, x, weight, blended, x_scale, choice, geometry):
        x_codes, w_codes, out_scale = _codes(ctx, x, weight, x_scale, geometry)
        features = factored.expand_activations(x_codes, choice.u, choice.lo)
        weights = factored.expand_weights(w_codes, blended, choice.lo)
        ctx.lo, ctx.rank = choice.lo, blended.shape[0]
        ctx.features = features if ctx.needs_input_grad[2] else None
        return factored.conv_features(features, weights, geometry) * out_scale

    @staticmethod
    def backward(ctx, grad):
        grad_blended = _blended_gradient(ctx, grad) if ctx.needs_input_grad[2] else None
        return *_straight_through(ctx, grad), grad_blended, None, None, None


def _blended_gradient(ctx, grad: Tensor) -> Tensor:
    """The gradient for the blended table (R, 256): the weight features' gradients, gathered by weight code."""
    _, w_codes, _, _, _, out_scale = ctx.saved_tensors
    rank = ctx.rank
    outputs, inner, *kernel = w_codes.shape
    like = w_codes.new_empty(outputs, inner * rank, *kernel)
    grad_features = _conv_gradients(grad * out_scale, ctx.features, like, ctx.geometry, (False, True))[1]
    by_code = grad_features.reshape(outputs, inner, rank, -1).permute(2, 0, 1, 3).reshape(rank, -1)
    index = (w_codes - ctx.lo).to(torch.int32).flatten()
    return torch.zeros(rank, SIZE, dtype=grad.dtype, device=grad.device).index_add_(1, index, by_code)


class MultiplierMixture(nn.Conv2d):
    """A convolution whose products are the mixture Σ_m β_m T_m of a library, at the cost of one widened convolution.

    ``choice`` holds β and may be shared between layers. Gradients with respect to β are exact: those of the sum of M
    separate convolutions.
    """

    def __init__(self, *args, choice: MultiplierChoice, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.choice = choice
        self.activation_scale = RunningMaximum()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) → (N, O, H', W'); ``choice.set`` must have been called."""
        return _convolve(self, x, self.choice)


def _convolve(conv: nn.Conv2d, x: Tensor, source: Multiplier | MultiplierChoice) -> Tensor:
    """The layer's output, with products from one circuit or from the blend of a choice."""
    scale = conv.activation_scale(x)
    x, geometry = _pad_if_needed(conv, x)
    x, geometry, restore = _without_dilation(x, geometry)
    if isinstance(source, Multiplier):
        y = _StraightThrough.apply(x, conv.weight, scale, source, geometry)
    else:
        if source.zero_has_features:
            x, geometry = geometry.pad(x), geometry.unpadded()
        y = _MixtureStraightThrough.apply(x, conv.weight, source.blended, scale, source, geometry)
    y = restore(y)
    return y if conv.bias is None else y + conv.bias.view(1, -1, 1, 1)


def _without_dilation(x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry, Callable[[Tensor], Tensor]]:
    """The same depthwise convolution without dilation, where that is exact, and how to put its output in order.

    A dilation d sees every d-th pixel: with stride d one of the d² interleaved images, with stride 1 each of them by
    itself, as so many more images of the batch. The library's backward pass is several times slower with dilation.
    """
    d, padding = geometry.dilation[0], geometry.padding
    depthwise = geometry.groups == x.shape[1] > 1
    even = all(size % d == 0 for size in (*padding, *x.shape[2:]))
    if d == 1 or geometry.dilation != (d, d) or not depthwise or not even:
        return x, geometry, lambda y: y
    plain = Geometry((1, 1), (padding[0] // d, padding[1] // d), (1, 1), geometry.groups)
    if geometry.stride == (d, d):
        return x[:, :, ::d, ::d].contiguous(memory_format=torch.channels_last), plain, lambda y: y
    if geometry.stride != (1, 1):
        return x, geometry, lambda y: y
    batch = x.shape[0]
    phases = x.unflatten(2, (-1, d)).unflatten(4, (-1, d)).permute(0, 3, 5, 1, 2, 4).flatten(0, 2)

    def interleave(y: Tensor) -> Tensor:
        return y.unflatten(0, (batch, d, d)).permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)

    return phases.contiguous(memory_format=torch.channels_last), plain, interleave


def _pad_if_needed(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Geometry]:
    """The input and geometry with which symmetric zero padding suffices; other padding is applied to ``x`` here."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    if conv.padding_mode == "zeros" and left == right and top == bottom:
        return x, Geometry(conv.stride, (top, left), conv.dilation, conv.groups)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    return x, Geometry(conv.stride, (0, 0), conv.dilation, conv.groups)


def _signed(multiplier: Multiplier) -> Multiplier:
    if not multiplier.signed:
        raise InputError(f"multiplier {multiplier.name} is unsigned; layers compute with signed codes")
    return multiplier
