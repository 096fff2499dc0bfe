"""Σ_i w_i·norm_i(x_i): what a node of a supernet adds up, in one function."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spaces.arithmetic.engines.cpu import normalised as loops
from spaces.arithmetic.engines.gpu import normalised as kernels


def normalised_sum(weights: Tensor, maps: Sequence[Tensor], norms: Sequence[nn.Module]) -> Tensor:
    """Σ_i weights[i]·norms[i](maps[i]), (N, C, H, W).

    ``weights`` (parts,), ``maps`` of (N, C, H, W); ``norms`` are ``nn.BatchNorm2d`` without affine parameters, or
    ``nn.Identity``.
    """
    if _fused(weights, maps, norms):
        return _NormalisedSum.apply(weights, norms, *maps)
    total = None
    for weight, x, norm in zip(weights, maps, norms, strict=True):
        weighted = norm(x) * weight
        total = weighted if total is None else total + weighted
    assert total is not None, "at least one map"
    return total


def _fused(weights: Tensor, maps: Sequence[Tensor], norms: Sequence[nn.Module]) -> bool:
    """Whether there are loops or kernels for it; what they do not know is left to torch, which computes or refuses it."""
    if not (len(weights) == len(maps) == len(norms) and len({x.shape for x in maps}) == 1):
        return False
    first = maps[0]
    several = first.dim() == 4 and first.numel() > first.shape[1]
    kinds = {_kind(norm) for norm in norms if type(norm) is not nn.Identity}
    if len(kinds) > 1 or None in kinds:
        return False
    plain = all(x.dtype == torch.float32 and x.device == first.device for x in (weights, *maps))
    batch = [id(norm) for norm in norms if type(norm) is not nn.Identity]
    apart = len(set(batch)) == len(batch)  # averages that move twice would do so at once
    there = first.device.type == "cpu" or (apart and kernels.works_on(first.device))
    return several and plain and there and all(norm.training for norm in norms)


def _kind(norm: nn.Module) -> tuple[float, float] | None:
    """ε and momentum of a batch normalisation that the loops know."""
    if type(norm) is not nn.BatchNorm2d or norm.affine or norm.momentum is None or not norm.track_running_stats:
        return None
    return (norm.eps, norm.momentum) if norm.running_mean.dtype == norm.running_var.dtype == torch.float32 else None


class _NormalisedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, norms: Sequence[nn.Module], *maps: Tensor) -> Tensor:
        batch = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]
        ctx.normalised = [isinstance(norm, nn.BatchNorm2d) for norm in norms]
        nothing = torch.empty(0)
        running = [
            (norm.running_mean, norm.running_var) if isinstance(norm, nn.BatchNorm2d) else (nothing, nothing)
            for norm in norms
        ]
        epsilon, momentum = (batch[0].eps, batch[0].momentum) if batch else (0.0, 0.0)
        engine = _engine(weights)
        whole = engine.Maps.of(maps, ctx.normalised)
        known = engine.statistics(whole, running, epsilon, momentum)
        if batch:
            torch._foreach_add_([norm.num_batches_tracked for norm in batch], 1)
        ctx.save_for_backward(weights, known, *maps)
        return engine.weighted_sum(whole, known, weights.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, known, *maps = ctx.saved_tensors
        engine, wanted = _engine(weights), ctx.needs_input_grad[2:]
        whole = engine.Maps.of(maps, ctx.normalised)
        of_weights, of_maps = engine.gradients(whole, known, weights.detach(), grad, wanted)
        return of_weights if ctx.needs_input_grad[0] else None, None, *of_maps


def _engine(weights: Tensor) -> Any:
    """The module that computes it on the weights' device."""
    return loops if weights.device.type == "cpu" else kernels
