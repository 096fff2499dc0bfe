"""The mixture of a library in depthwise layers, on the CPU: straight from the codes, forwards and backwards."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spaces.arithmetic.convolution import cleared, counts, zero_point_share
from spaces.arithmetic.engines.cpu import depthwise_convolution as depthwise
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.mixture import depthwise as windows
from spaces.arithmetic.engines.mixture import mixture as mixtures
from spaces.arithmetic.quantise import Codes, weight_codes
from spaces.multipliers.products import ProductTable

_FEW_COLUMNS = 8  # of a library's span, up to which their gradients are faster than sums by code


class Choice(Protocol):
    """What a ``MultiplierChoice`` knows of its library."""

    tables: tuple[ProductTable, ...]
    v: Tensor
    span: Tensor

    @property
    def v_of_weights(self) -> np.ndarray: ...

    def moves(self, index: int | Tensor) -> bool: ...


class DepthwiseMixture(torch.autograd.Function):
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
        scale = codes.scale.step * w_scale
        zero_point, constant = codes.scale.zero + choice.tables[0].a_lo, None
        if counts(zero_point):
            constant = -zero_point_share(w_index, scale, zero_point)
        blocks = depthwise.decoded(w_index, choice.v_of_weights)
        tables = depthwise.Tables.of(blended)
        y = depthwise.convolve(codes.index, tables, blocks, geometry, codes.scale.zero, scale, constant)
        ctx.save_for_backward(codes.index, codes.clamped, codes.scale.step, w_index, w_scale)
        ctx.choice, ctx.fill, ctx.geometry, ctx.dtypes = choice, codes.scale.zero, geometry, (x.dtype, weight.dtype)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, clamped, step, w_index, w_scale = ctx.saved_tensors
        grad = grad.float().contiguous(memory_format=torch.channels_last)
        grad_x, grad_w = depthwise.product_gradients(
            grad, index, step, w_index, w_scale, ctx.fill, ctx.geometry, ctx.needs_input_grad[:2]
        )
        grad_blended = None
        if ctx.needs_input_grad[2]:
            by_weight = mixtures.weight_features(w_index, ctx.choice.v).squeeze(2)
            by_weight.mul_((w_scale * step).view(-1, 1, 1, 1))
            grad_blended = table_gradient(
                index, grad, by_weight, ctx.geometry, ctx.fill, ctx.choice.span, ctx.choice.moves(ctx.fill)
            )
        if grad_x is not None:
            grad_x = cleared(grad_x, clamped).to(ctx.dtypes[0])
        if grad_w is not None:
            grad_w = grad_w.to(ctx.dtypes[1])
        return grad_x, grad_w, grad_blended, None, None, None


def table_gradient(
    index: Tensor, grad: Tensor, by_weight: Tensor, geometry: Geometry, fill: int, span: Tensor, adds: bool
) -> Tensor:
    """The gradient (R, 256) for ``u``, which may be projected onto the span (256, K) of columns in which ``u`` lies.

    What a column of the span meets in the output's gradients is one more gradient of the weights; of many columns, sums
    by code are faster. ``adds``: whether the index ``fill`` of padded positions adds anything.
    """
    if span.shape[1] > _FEW_COLUMNS and windows.suit(index, by_weight[:, :, None], geometry):
        if adds:
            index, geometry = geometry.pad(index, fill), geometry.unpadded()
        return windows.table_gradient(index, grad, by_weight[:, :, None], geometry)
    met = depthwise.weight_gradient(
        index, _columns(span), grad, (by_weight.shape[2], by_weight.shape[3]), geometry, fill
    )
    return by_weight.transpose(0, 1).flatten(1) @ met.transpose(0, 1).flatten(1).t() @ span.t()


def _columns(span: Tensor) -> depthwise.Tables:
    """The tables of a span's columns, remembered with it."""
    known = getattr(span, "_known_columns", None)
    if known is None:
        known = span._known_columns = depthwise.Tables(span.t())
    return known
