"""The mixture of a library in pointwise layers, on the CPU: straight from the codes, forwards and backwards."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spaces.arithmetic.convolution import counts, product_gradients, zero_point_share
from spaces.arithmetic.depthwise import Choice
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.mixture import pointwise
from spaces.arithmetic.gradients import gradient_factors
from spaces.arithmetic.quantise import Codes, weight_codes


class PointwiseMixture(torch.autograd.Function):
    """Forward: the blend's sums, scaled. Backward: straight-through, and exact for the blended table."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        blended: Tensor,
        codes: Codes,
        choice: Choice,
        geometry: Geometry,
    ) -> Tensor:
        w_index, w_scale = weight_codes(weight)
        step, zero_point, constant = codes.scale.step, codes.scale.zero + choice.tables[0].a_lo, None
        if counts(zero_point):
            constant = -zero_point_share(w_index, step * w_scale, zero_point)
        weights = pointwise.Weights.of(w_index, w_scale, choice.v.float().contiguous())
        y = pointwise.convolve(codes.index, blended.detach().float(), weights, step, constant)
        ctx.save_for_backward(codes.index, codes.clamped, step, w_index, w_scale, weights.blocks)
        ctx.choice, ctx.geometry, ctx.dtypes = choice, geometry, (x.dtype, weight.dtype)
        ctx.zero, ctx.zero_point = codes.scale.zero, zero_point
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, clamped, step, w_index, w_scale, blocks = ctx.saved_tensors
        grad, grad_blended = grad.float().contiguous(memory_format=torch.channels_last), None
        if ctx.needs_input_grad[2]:
            weights = pointwise.Weights(blocks, w_scale, len(w_index))
            grad_blended = pointwise.table_gradient(index, grad, weights, ctx.zero).mul_(step)
        factors = gradient_factors(ctx.choice.tables[0], "straight-through")
        grad_x, grad_w = product_gradients(
            grad,
            index,
            step,
            w_index,
            w_scale,
            factors,
            ctx.zero_point,
            ctx.geometry,
            ctx.needs_input_grad[:2],
            clamped,
        )
        if grad_x is not None:
            grad_x = grad_x.to(ctx.dtypes[0])
        if grad_w is not None:
            grad_w = grad_w.to(ctx.dtypes[1])
        return grad_x, grad_w, grad_blended, None, None, None
