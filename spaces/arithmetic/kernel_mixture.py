"""The mixture of a library by kernels on a GPU: straight from the codes, forwards and backwards."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spaces.arithmetic.convolution import counts, product_gradients, zero_point_share
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import depthwise as gradients
from spaces.arithmetic.engines.gpu import mixture as kernels
from spaces.arithmetic.gradients import gradient_factors
from spaces.arithmetic.quantise import Codes, weight_codes
from spaces.multipliers.products import ProductTable


class Choice(Protocol):
    """What a ``MultiplierChoice`` knows of its library."""

    tables: tuple[ProductTable, ...]
    u_by_code: Tensor | None
    basis: kernels.Basis

    def moves(self, index: int | Tensor) -> bool: ...


class KernelMixture(torch.autograd.Function):
    """Forward: the blend's sums, scaled. Backward: straight-through, and the blend's along the columns of its span."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        coordinates: Tensor,  # noqa: ARG004 - where the gradient goes; what is computed comes from ``choice``
        codes: Codes,
        choice: Choice,
        geometry: Geometry,
        weights: kernels.Weights | None,
    ) -> Tensor:
        """``weights`` are what is known of the weight already, if it is."""
        if weights is None:
            weights = kernels.weights_of(*weight_codes(weight), choice.basis, geometry.groups > 1)
        step, zero = codes.scale.step, codes.scale.zero
        ctx.border = zero if choice.moves(zero) else None  # whether the code of zero adds something where it pads
        y = kernels.convolve(codes.index, choice.u_by_code, choice.basis, weights, geometry, step, ctx.border)
        ctx.zero_point = zero + choice.tables[0].a_lo
        if counts(ctx.zero_point):
            y.sub_(zero_point_share(weights.index, step * weights.scale, ctx.zero_point).view(1, -1, 1, 1))
        ctx.save_for_backward(codes.index, codes.clamped, step, *weights)
        ctx.choice, ctx.geometry, ctx.dtypes = choice, geometry, (x.dtype, weight.dtype)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, clamped, step, *weights = ctx.saved_tensors
        x_wanted, w_wanted, blend_wanted = ctx.needs_input_grad[:3]
        grad, grad_x, grad_blend = grad.float(), None, None
        coded, depthwise = kernels.Weights(*weights), ctx.geometry.groups > 1
        held = (ctx.choice.basis, coded, ctx.geometry, step, ctx.border)
        if blend_wanted and depthwise:
            grad_blend, grad_x = kernels.depthwise_gradients(index, clamped, grad, *held)
        elif blend_wanted:
            grad_blend = kernels.dense_table_gradient(index, grad, *held)
        elif x_wanted and depthwise and gradients.works_on(grad.device):  # the first feature is ŵ itself
            kernel = (coded.index.shape[2], coded.index.shape[3])
            grad_x = gradients.input_gradient(
                grad, index.shape, clamped, coded.features, kernel, ctx.geometry, coded.scale
            )
        factors = gradient_factors(ctx.choice.tables[0], "straight-through")
        wanted = (x_wanted and grad_x is None, w_wanted)
        more_x, grad_w = product_gradients(
            grad, index, step, coded.index, coded.scale, factors, ctx.zero_point, ctx.geometry, wanted, clamped
        )
        grad_x = grad_x if more_x is None else more_x
        if grad_x is not None:
            grad_x = grad_x.to(ctx.dtypes[0]) if x_wanted else None
        if grad_w is not None:
            grad_w = grad_w.to(ctx.dtypes[1])
        return grad_x, grad_w, grad_blend, None, None, None, None
