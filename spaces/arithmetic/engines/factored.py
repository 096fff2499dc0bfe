"""The table as a sum of products, T = U·V: one ordinary convolution with R × the input channels, bit for bit."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.factors import Factors, factorise
from spaces.multipliers.multiplier import Multiplier

HIGHEST_RANK = 64  # beyond, looking every product up is faster than so many channels
EXACT_FLOAT32 = 1 << 24  # integers up to here, and so sums that stay below it in any order, are exact in float32


def expand_activations(codes: Tensor, u: Tensor, lo: int) -> Tensor:
    """Codes (N, C, H, W) → features U[x̂] (N, C·R, H, W), the R features of a channel side by side; u (256, R)."""
    batch, channels, height, width = codes.shape
    index = (codes - lo).permute(0, 2, 3, 1).to(torch.int32)
    if u.shape[1] == 1:
        features = u.view(-1).index_select(0, index.flatten())
    else:
        features = F.embedding(index, u)
    if channels * u.shape[1] == 1:
        return features.view(batch, 1, height, width)
    # channels-last in memory, without a copy
    return features.view(batch, height, width, channels * u.shape[1]).permute(0, 3, 1, 2)


def expand_weights(codes: Tensor, v: Tensor, lo: int) -> Tensor:
    """Codes (O, C/g, kH, kW) → features V[ŵ] (O, C/g·R, kH, kW) in the order of ``expand_activations``; v (R, 256)."""
    features = F.embedding((codes - lo).to(torch.int32), v.t().contiguous())  # (O, C/g, kH, kW, R)
    return features.permute(0, 1, 4, 2, 3).flatten(1, 2)


def conv_features(features: Tensor, weights: Tensor, geometry: Geometry) -> Tensor:
    """The widened convolution of features (N, C·R, H, W) with weight features (O, C/g·R, kH, kW)."""
    outputs, inner = weights.shape[:2]
    if inner > 1 and outputs == geometry.groups:
        # Depthwise: R inputs a group is a slow path of the library; R depthwise convolutions, added up, are not.
        single = geometry.conv2d(features, weights.reshape(outputs * inner, 1, *weights.shape[2:]), outputs * inner)
        return single.unflatten(1, (outputs, inner)).sum(dim=2)
    return geometry.conv2d(features, weights)


@functools.lru_cache(maxsize=256)
def _tensors(multiplier: Multiplier, device: torch.device) -> tuple[Tensor, Tensor] | None:
    factors = factorise(multiplier)
    if factors is None or not 0 < factors.rank <= HIGHEST_RANK or factors.largest_term >= EXACT_FLOAT32:
        return None
    return tuple(torch.tensor(part, dtype=torch.float32, device=device).contiguous() for part in (factors.u, factors.v))


def supports(multiplier: Multiplier) -> bool:
    """Whether the table has few integer factors, small enough for exact float arithmetic."""
    return _tensors(multiplier, torch.device("cpu")) is not None


def conv2d(x_codes: Tensor, w_codes: Tensor, multiplier: Multiplier, geometry: Geometry) -> Tensor:
    """Exact sums Σ T[x̂, ŵ] (N, O, H', W'), held in float32 where they fit and in float64 otherwise.

    float32 is exact while Σ|u·v| over one output stays below 2^24; beyond, the input channels are split and the parts
    added in float64.
    """
    u, v = _tensors(multiplier, x_codes.device)
    if geometry.padding != (0, 0) and u[-multiplier.lo].any():
        x_codes, geometry = geometry.pad(x_codes), geometry.unpadded()  # the padded code 0 has features of its own
    features = expand_activations(x_codes, u, multiplier.lo)
    weights = expand_weights(w_codes, v, multiplier.lo)
    products = w_codes[0].numel()
    parts = math.ceil(products * factorise(multiplier).largest_term / (EXACT_FLOAT32 - 1))
    if parts == 1:
        return conv_features(features, weights, geometry)
    return _split_conv(features, weights, geometry, parts, factorise(multiplier))


def _split_conv(features: Tensor, weights: Tensor, geometry: Geometry, parts: int, factors: Factors) -> Tensor:
    """The widened convolution in slices of the input channels of every group, each exact in float32."""
    groups, inner, kernel = geometry.groups, weights.shape[1], weights.shape[2:]
    if math.prod(kernel) * factors.largest_term >= EXACT_FLOAT32:  # one input channel alone is too much
        return conv_features(features.double(), weights.double(), geometry)
    channels = inner // factors.rank
    width = factors.rank * max(1, channels // parts)
    while width > factors.rank and width // factors.rank * math.prod(kernel) * factors.largest_term >= EXACT_FLOAT32:
        width -= factors.rank
    grouped = features.unflatten(1, (groups, inner))
    total = None
    for start in range(0, inner, width):
        part = grouped[:, :, start : start + width].flatten(1, 2)
        sums = conv_features(part, weights[:, start : start + width], geometry).double()
        total = sums if total is None else total + sums
    return total
