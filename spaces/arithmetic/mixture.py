"""Layers that mix the circuits of a library: the differentiable choice of the multiplier."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from spaces.arithmetic.convolution import cleared, product_gradients, zero_point_share
from spaces.arithmetic.engines.features import Features, describe, expand, expand_once
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.gradients import convolution_gradients, gradient_factors
from spaces.arithmetic.layers import activation_scale, pad_if_needed
from spaces.arithmetic.phases import Phases
from spaces.arithmetic.quantise import Codes, quantise_once, weight_codes
from spaces.errors import InputError
from spaces.multipliers.factors import shared_basis
from spaces.multipliers.multiplier import SIZE, Multiplier
from spaces.multipliers.products import ProductTable, layer_table


class MultiplierChoice(nn.Module):
    """The probabilities β with which a group of layers uses each circuit of a library, as one blended table.

    With the library's shared basis T_m = U V_m, the blend Σ_m β_m T_m = U (Σ_m β_m V_m) is the table of one more
    "circuit" of rank R.
    """

    def __init__(self, library: Sequence[Multiplier]) -> None:
        super().__init__()
        if len({circuit.signed for circuit in library}) > 1:
            raise InputError("signed and unsigned multipliers cannot be mixed")
        self.signed = library[0].signed
        self.tables = tuple(layer_table(circuit) for circuit in library)
        basis = shared_basis(self.tables)
        if basis is None:
            raise InputError("this library of multipliers has no shared integer basis; search fewer circuits at a time")
        self.register_buffer("v", torch.tensor(basis[1], dtype=torch.float32).contiguous(), persistent=False)
        self.blended: Tensor | None = None  # (R, 256)

    def set(self, probabilities: Tensor) -> None:
        """Blend for probabilities (M,); differentiable. To be called before the layers run."""
        self.blended = torch.einsum("m,mrw->rw", probabilities, self.v)


@functools.lru_cache(maxsize=1024)
def _features(tables: tuple[ProductTable, ...], channels: int) -> Features:
    return describe(shared_basis(tables)[0].astype(np.float32), channels)


class MultiplierMixture(nn.Conv2d):
    """A convolution whose products are the mixture Σ_m β_m T_m of a library, at the cost of one widened convolution.

    ``choice`` holds β and may be shared between layers. Gradients with respect to β are exact: those of the sum of M
    separate convolutions.
    """

    def __init__(self, *args, choice: MultiplierChoice, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.choice = choice
        self.activation_scale = activation_scale(choice.signed)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) → (N, O, H', W'); ``choice.set`` must have been called."""
        x, geometry = pad_if_needed(self, x)
        codes = quantise_once(x, self.activation_scale(x))
        y = _Mixture.apply(x, self.weight, self.choice.blended, codes, self.choice.tables, geometry)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


class _Mixture(torch.autograd.Function):
    """Forward: the blend's sums, scaled. Backward: straight-through, and exact for the blended table."""

    @staticmethod
    def forward(ctx, x, weight, blended, codes: Codes, tables, geometry):
        w_index, w_scale = weight_codes(weight)
        wanted, index = ctx.needs_input_grad[2], codes.index
        size = geometry.output_size(x.shape[2:], tuple(weight.shape[2:]))
        ctx.phases = Phases.of(x.shape, (len(x), len(weight), *size), geometry)
        index, geometry = ctx.phases.split_input(index), ctx.phases.geometry
        features, inside = _activation_features(index, codes.scale.zero, tables, geometry, keep=wanted)
        scale = codes.scale.step * w_scale
        by_weight = blended.detach().float()[:, w_index.int()]  # (R, O, C/groups, kH, kW)
        y = _sums(features, by_weight, inside).mul_(scale.view(1, -1, 1, 1))
        zero_point = codes.scale.zero + tables[0].a_lo
        if zero_point:
            y.sub_(zero_point_share(w_index, scale, zero_point).view(1, -1, 1, 1))
        ctx.save_for_backward(index, codes.clamped, codes.scale.step, w_index, w_scale)
        ctx.features, ctx.inside = (features, inside) if wanted else (None, None)
        ctx.geometry, ctx.zero_point, ctx.table = geometry, zero_point, tables[0]
        ctx.dtypes, ctx.rank = (x.dtype, weight.dtype), blended.shape[0]
        return ctx.phases.join_output(y).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        index, clamped, step, w_index, w_scale = ctx.saved_tensors
        grad, wanted, grad_blended = ctx.phases.split_output(grad.float()), ctx.needs_input_grad[:2], None
        factors = gradient_factors(ctx.table, "straight-through")
        grad_x, grad_w = product_gradients(
            grad, index, step, w_index, w_scale, factors, ctx.zero_point, ctx.geometry, wanted
        )
        if grad_x is not None:
            grad_x = cleared(ctx.phases.join_input(grad_x), clamped).to(ctx.dtypes[0])
        if grad_w is not None:
            grad_w = grad_w.to(ctx.dtypes[1])
        if ctx.needs_input_grad[2]:
            scaled = grad * (step * w_scale).view(1, -1, 1, 1)
            grad_blended = _blended_gradient(scaled, ctx.features, w_index, ctx.rank, ctx.inside)
        return grad_x, grad_w, grad_blended, None, None, None


def _activation_features(
    index: Tensor, zero: int, tables: tuple[ProductTable, ...], geometry: Geometry, keep: bool
) -> tuple[Tensor, Geometry]:
    """Features U[x̂] (N, C·R, H, W) float32, padded where the code of zero has features; and how windows move over them."""
    described = _features(tables, index.shape[1] // geometry.groups)
    if described.moves(zero, 0) and geometry.padding != (0, 0):
        return expand(geometry.pad(index, zero), described, geometry.groups), geometry.unpadded()
    return (expand_once if keep else expand)(index, described, geometry.groups), geometry


def _sums(features: Tensor, by_weight: Tensor, geometry: Geometry) -> Tensor:
    """The convolution of features (N, C·R, H, W) with weight features (R, O, C/groups, kH, kW)."""
    rank, outputs, inner = by_weight.shape[:3]
    if inner > 1 or outputs != geometry.groups:
        return geometry.conv2d(features, by_weight.transpose(0, 1).flatten(1, 2))
    # Depthwise: R inputs a group are a slow path of the library; R depthwise convolutions, added up, are not.
    apart = replace(geometry, groups=outputs * rank)
    return apart.conv2d(features, by_weight.transpose(0, 1).flatten(0, 1)).unflatten(1, (outputs, rank)).sum(dim=2)


def _blended_gradient(grad: Tensor, features: Tensor, w_index: Tensor, rank: int, geometry: Geometry) -> Tensor:
    """The gradient for the blended table (R, 256): the weight features' gradients, added up by weight code."""
    outputs, inner, *kernel = w_index.shape
    like = torch.empty((outputs, rank * inner, *kernel), device=grad.device)
    by_weight = convolution_gradients(grad, features, like, geometry, (False, True))[1]
    by_weight = by_weight.unflatten(1, (rank, inner)).transpose(0, 1)
    table = torch.zeros(rank, SIZE, dtype=grad.dtype, device=grad.device)
    return table.index_add_(1, w_index.int().flatten(), by_weight.reshape(rank, -1))
