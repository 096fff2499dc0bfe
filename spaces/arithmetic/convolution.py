"""The convolution through a table as a differentiable function."""

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spaces.arithmetic import emulate
from spaces.arithmetic.engines import feature_loops, look_ups, quantise_loops
from spaces.arithmetic.engines.cpu import depthwise_convolution as depthwise
from spaces.arithmetic.engines.cpu import pointwise_gradients
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import depthwise as gpu_depthwise
from spaces.arithmetic.engines.gpu import quantisation
from spaces.arithmetic.engines.gpu.mixture import weight_features
from spaces.arithmetic.gradient_precision import gradient_dtype
from spaces.arithmetic.gradients import (
    GradientFactors,
    Term,
    convolution_gradients,
    gradient_factors,
    gradient_terms,
)
from spaces.arithmetic.packed_weight import PackedWeight
from spaces.arithmetic.quantise import WEIGHT_ZERO, Codes, dense, flat, is_dense
from spaces.multipliers.products import ProductTable


def convolve(
    x: Tensor,
    weight: Tensor,
    codes: Codes,
    packed: PackedWeight,
    table: ProductTable,
    geometry: Geometry,
    gradient: str = "straight-through",
    constant: Tensor | None = None,
) -> Tensor:
    """y = s_x s_w (Σ T[x̂, ŵ] − z Σ ŵ) + constant, (N, O, H', W') in x's dtype; z is x's zero point.

    ``x`` and ``weight`` are where gradients go; what is computed comes from ``codes`` and ``packed``. ``constant`` (O,)
    gets no gradient.
    """
    factors = gradient_factors(table, gradient)
    return _Convolution.apply(x, weight, codes, packed, table, geometry, factors, constant)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        codes: Codes,
        packed: PackedWeight,
        table: ProductTable,
        geometry: Geometry,
        factors: GradientFactors | None,
        constant: Tensor | None,
    ) -> Tensor:
        scale = codes.scale.step * packed.scale
        y = emulate.ENGINES[packed.engine].conv2d(codes.index, packed.packed, codes.scale.zero, scale)
        zero_point = codes.scale.zero + table.a_lo
        if counts(zero_point):
            taken = zero_point_share(packed.index, scale, zero_point)
            constant = -taken if constant is None else constant - taken
        if constant is not None:
            y.add_(constant.view(1, -1, 1, 1))
        ctx.save_for_backward(codes.index, codes.clamped, codes.scale.step, packed.index, packed.scale)
        ctx.geometry, ctx.factors, ctx.zero_point, ctx.dtypes = geometry, factors, zero_point, (x.dtype, weight.dtype)
        ctx.fill, straight_through = codes.scale.zero, factors is gradient_factors(table, "straight-through")
        # A product with the code of zero is that of zero, and moves with its weight by nothing: so says this alone.
        ctx.pads = not straight_through and geometry.padding != (0, 0)
        ctx.depthwise = straight_through and depthwise.suit(tuple(packed.index.shape), geometry, x.device)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Asked for with a graph of its own, which no loop over codes has, it says so when that is used.
        return (once_differentiable(_backward) if torch.is_grad_enabled() else _backward)(ctx, grad)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    index, clamped, step, w_index, w_scale = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    if ctx.depthwise:
        grad_x, grad_w = depthwise.product_gradients(
            grad, index, step, w_index, w_scale, ctx.fill, ctx.geometry, wanted
        )
    else:
        geometry = ctx.geometry
        if ctx.pads:
            index, geometry = geometry.pad(index, ctx.fill), geometry.unpadded()
        grad_x, grad_w = product_gradients(
            grad.float(), index, step, w_index, w_scale, ctx.factors, ctx.zero_point, geometry, wanted,
            None if ctx.pads else clamped,
        )  # fmt: skip
        if grad_x is not None and ctx.pads:
            top, left = ctx.geometry.padding
            grad_x = cleared(grad_x[:, :, top : grad_x.shape[2] - top, left : grad_x.shape[3] - left], clamped)
    if grad_x is not None:
        grad_x = (cleared(grad_x, clamped) if ctx.depthwise else grad_x).to(ctx.dtypes[0])
    return grad_x, None if grad_w is None else grad_w.to(ctx.dtypes[1]), *[None] * 6


def counts(zero_point: int | Tensor) -> bool:
    """Whether a zero point adds anything; one on a GPU may."""
    return not isinstance(zero_point, int) or zero_point != 0


def zero_point_share(w_index: Tensor, scale: Tensor, zero_point: int | Tensor) -> Tensor:
    """s_x s_w z Σ ŵ, (O,): what the zero point of unsigned activations adds to every sum."""
    return (w_index.float() - WEIGHT_ZERO).sum(dim=(1, 2, 3)) * scale * zero_point


def product_gradients(
    grad: Tensor, index: Tensor, step: Tensor, w_index: Tensor, w_scale: Tensor,
    factors: GradientFactors, zero_point: int | Tensor, geometry: Geometry, wanted: tuple[bool, bool],
    clamped: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of s_x s_w (Σ T[x̂, ŵ] − z Σ ŵ) for x, zero where it is ``clamped``, and for w, by the factors of T's.

    ∂/∂x = Σ_r p_r(x̂) ⊙ (the exact convolution's gradient with the weights s_w q_r(ŵ)), and ∂/∂w likewise with the
    activations s_x p′_r(x̂). The zero point's share, −z Σ ŵ, is one more factor of 1. Padded positions pass no gradient.
    """
    terms_x, terms_w = gradient_terms(factors, grad.device)
    terms_x, terms_w = terms_x if wanted[0] else (), _with_zero_point(terms_w, zero_point) if wanted[1] else ()
    several = max(len(terms_x), len(terms_w)) > 1  # terms that may cancel each other need all of their bits
    plain = all(term.left_is_one for term in terms_x) and all(term.right_is_one for term in terms_w)
    if not several and plain and gpu_depthwise.suits(grad.device, w_index.shape, geometry):
        return _depthwise_gradients(grad, index, step, w_index, w_scale, terms_x, terms_w, geometry, clamped)
    dtype = torch.float32 if several else gradient_dtype(w_index.shape, geometry)
    lines = plain and not several and all(term.left_is_line for term in terms_w)
    if lines and dtype == torch.float32 and pointwise_gradients.suits(grad.device, w_index.shape, geometry):
        line, values = (terms_w[0].left if terms_w else None), (terms_x[0].right if terms_x else None)
        return pointwise_gradients.product_gradients(grad, index, step, line, w_index, w_scale, values, clamped)
    if dtype == torch.bfloat16:
        grad_x, grad_w = _gradients_in_bf16(
            grad, index, step, w_index, w_scale, (*terms_x, None)[0], (*terms_w, None)[0], geometry
        )
        return None if grad_x is None else cleared(grad_x, clamped), grad_w
    grad_x = grad_w = None
    for for_x, for_w in itertools.zip_longest(terms_x, terms_w):
        # What an unwanted gradient belongs to is only a shape, and memory in the right order.
        if for_w is not None:
            activations = look_up(index, for_w.left * step)
        else:
            activations = torch.empty_like(index, dtype=torch.float32)
        weights = torch.empty(w_index.shape, device=grad.device)
        if for_x is not None:
            weights = decoded(w_index, for_x.right, w_scale)
        part_x, part_w = convolution_gradients(
            grad, activations, weights, geometry, (for_x is not None, for_w is not None)
        )
        if part_x is not None:
            part_x = part_x if for_x.left_is_one else part_x * look_up(index, for_x.left)
            grad_x = part_x if grad_x is None else grad_x.add_(part_x)
        if part_w is not None:
            part_w = part_w if for_w.right_is_one else part_w * for_w.right[w_index.int()]
            grad_w = part_w if grad_w is None else grad_w.add_(part_w)
    return None if grad_x is None else cleared(grad_x, clamped), grad_w


def _depthwise_gradients(
    grad: Tensor, index: Tensor, step: Tensor, w_index: Tensor, w_scale: Tensor,
    terms_x: tuple[Term, ...], terms_w: tuple[Term, ...], geometry: Geometry, clamped: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The same for one term each by kernels on a GPU, straight from the codes."""
    grad_x, grad_w, kernel = None, None, (w_index.shape[2], w_index.shape[3])
    for term in terms_x:
        features = weight_features(dense(w_index), term.right.view(-1, 1), depthwise=True)
        grad_x = gpu_depthwise.input_gradient(grad, index.shape, clamped, features, kernel, geometry, w_scale)
    for term in terms_w:
        grad_w = gpu_depthwise.weight_gradient(grad, index, term.left, term.left_is_line, kernel, geometry, step)
    return grad_x, grad_w


def _gradients_in_bf16(
    grad: Tensor, index: Tensor, step: Tensor, w_index: Tensor, w_scale: Tensor,
    for_x: Term | None, for_w: Term | None, geometry: Geometry,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The same for one term each, from operands in bf16, which holds codes exactly as long as they have no scale.

    That for x may be bf16, too.
    """
    wanted, bf16 = (for_x is not None, for_w is not None), torch.bfloat16
    activations, weights = torch.empty_like(index, dtype=bf16), torch.empty_like(w_index, dtype=bf16)
    if for_x:
        weights = decoded(w_index, for_x.right, w_scale).to(bf16)
    if for_w:
        activations = look_up(index, for_w.left.to(bf16))
    grad_x, grad_w = convolution_gradients(grad.to(bf16), activations, weights, geometry, wanted)
    if grad_x is not None and for_x and not for_x.left_is_one:
        grad_x = grad_x * look_up(index, for_x.left)
    if grad_w is not None and for_w:
        grad_w = grad_w.float() * step
        grad_w = grad_w if for_w.right_is_one else grad_w * for_w.right[w_index.int()]
    return grad_x, grad_w


def _with_zero_point(terms: tuple[Term, ...], zero_point: int | Tensor) -> tuple[Term, ...]:
    """The terms of ∂(T[x̂, ŵ] − z ŵ)/∂ŵ: a zero point z takes itself off, as one more term or off the only one."""
    if not counts(zero_point):
        return terms
    first = terms[0]
    if len(terms) == 1 and first.right_is_one:
        return (replace(first, left=first.left - zero_point, left_is_one=False),)
    ones = torch.ones_like(first.right)
    return (*terms, Term(torch.zeros_like(first.left) - zero_point, ones, False, True, False))


def look_up(index: Tensor, values: Tensor) -> Tensor:
    """values[index], in the same order of memory; index (N, C, H, W) uint8, values (256,) float32 or bfloat16."""
    if index.device.type != "cpu":
        by_kernel = is_dense(index) and quantisation.works_on(index.device)
        return quantisation.look_up(index, values) if by_kernel else values[index.int()]
    looked_up = torch.empty_like(index, dtype=values.dtype)  # dense, as index is
    if values.dtype == torch.float32:
        look_ups.floats(index, values.contiguous(), looked_up)
    else:
        codes = flat(index).view(len(index), -1).numpy()
        bits, target = (part.view(torch.uint16) for part in (values, flat(looked_up)))
        feature_loops.expand_words(codes, bits.numpy(), 0, target.view(len(index), -1).numpy())
    return looked_up


def decoded(w_index: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """values[w_index]·scale, (O, C/groups, kH, kW) float32, with one scale for every output."""
    if w_index.device.type != "cpu":
        if is_dense(w_index) and quantisation.works_on(w_index.device):
            return quantisation.decode(w_index, values, scale)
        return values[w_index.int()] * scale.view(-1, 1, 1, 1)
    weights = torch.empty(w_index.shape)
    look_ups.scaled_rows(w_index.contiguous(), values.contiguous(), scale.contiguous(), weights)
    return weights


def cleared(values: Tensor, where: Tensor | None) -> Tensor:
    """``values`` with zeros where ``where`` is 1; None means nowhere. Of bf16, it may be as float32."""
    if where is None:
        return values
    if values.device.type == "cpu" and is_dense(values) and values.stride() == where.stride():
        if values.dtype == torch.bfloat16:
            return quantise_loops.widened(values, where)
        quantise_loops.clear(values, where)
        return values
    return values.masked_fill_(where.view(torch.bool), 0.0)
