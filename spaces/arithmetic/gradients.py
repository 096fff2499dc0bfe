"""Gradients of approximate convolutions.

The default is straight-through: the gradient of the exact convolution of the dequantised operands. Two others know the
circuit (Meng, Burleson, De Micheli: Gradient Estimation Methods of Approximate Multipliers, arXiv 2509.10519): tables of
∂T/∂a and ∂T/∂b, in one dimension ("slope": a regression line for every row and column of the truth table) or in two
("difference": central differences of the smoothed truth table).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.precision import plain_fp32
from spaces.arithmetic.undilated import Undilated
from spaces.errors import suggest
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

GRADIENTS = ("straight-through", "slope", "difference")
SMOOTHING = 4  # products on either side that a smoothed one averages
# Of a product on a GPU: pixels of a part, of parts without number, and numbers that all parts may give
PART, SMALLEST_PART, LEAST_PARTS, MOST_PRODUCTS = 1024, 32, 128, 2**22
_TOLERANCE = 1e-2  # of a gradient table's norm, which factors may leave out


@dataclass(frozen=True, eq=False)
class Term:
    """One product of a gradient table's sum, left[a]·right[b]: (256,) float32 each, on the device where it is needed."""

    left: Tensor
    right: Tensor
    left_is_one: bool
    right_is_one: bool
    left_is_line: bool  # integers that follow each other, 0 among them


@dataclass(frozen=True, eq=False)
class GradientFactors:
    """∂T/∂a ≈ Σ_r a_left[a, r]·a_right[r, b] and ∂T/∂b ≈ Σ_r b_left[a, r]·b_right[r, b]; float32 (256, R), (R, 256)."""

    a_left: np.ndarray
    a_right: np.ndarray
    b_left: np.ndarray
    b_right: np.ndarray


@functools.lru_cache(maxsize=512)
def gradient_terms(factors: GradientFactors, device: torch.device) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """The terms of ∂T/∂a and of ∂T/∂b, copied to the device once."""
    return _terms(factors.a_left, factors.a_right, device), _terms(factors.b_left, factors.b_right, device)


def _terms(left: np.ndarray, right: np.ndarray, device: torch.device) -> tuple[Term, ...]:
    return tuple(
        Term(
            torch.tensor(a, device=device),
            torch.tensor(b, device=device),
            bool((a == 1).all()),
            bool((b == 1).all()),
            bool((np.diff(a) == 1).all() and a[0] <= 0 <= a[-1] and a[0] == np.round(a[0])),
        )
        for a, b in zip(left.T, right)
    )


@functools.lru_cache(maxsize=256)
def gradient_factors(table: ProductTable, method: str) -> GradientFactors:
    """The factors of a table's gradients under ``method``. Raises InputError for an unknown one.

    Straight-through and slope are products of one factor that is 1. Differences keep as many factors as leave out at
    most 1 % of the gradient table's norm.
    """
    one = np.ones((1, SIZE), dtype=np.float32)
    if method == "straight-through":
        values_a, values_b = (values.astype(np.float32) for values in (table.a_values, table.b_values))
        return GradientFactors(one.T, values_b[None], values_a[:, None], one)
    entries = table.table.astype(np.float64)
    if method == "slope":
        by_weight, by_activation = regression_slopes(entries), regression_slopes(entries.T)
        return GradientFactors(
            one.T, by_weight[None].astype(np.float32), by_activation[:, None].astype(np.float32), one
        )
    if method == "difference":
        return GradientFactors(*_low_rank(smoothed_differences(entries)), *_low_rank(smoothed_differences(entries.T).T))
    raise suggest(method, GRADIENTS, "gradient")


def regression_slopes(entries: np.ndarray) -> np.ndarray:
    """The slope (256,) of the least-squares line through every column of (256, 256), against the row's number."""
    centred = np.arange(SIZE) - (SIZE - 1) / 2
    return centred @ entries / (centred @ centred)


def smoothed_differences(entries: np.ndarray, reach: int = SMOOTHING) -> np.ndarray:
    """Differences along the first axis of (256, n) after a moving average over 2·reach + 1 entries.

    At the ends, where the window is cut, the average still stands for its window's middle; differences are central, and
    one-sided at the first and last entry.
    """
    index = np.arange(len(entries))
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach, len(entries) - 1)
    sums = np.vstack([np.zeros((1, entries.shape[1])), np.cumsum(entries, axis=0)])
    average = (sums[last + 1] - sums[first]) / (last - first + 1)[:, None]
    return np.gradient(average, (first + last) / 2, axis=0)


def _low_rank(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, sizes, v = np.linalg.svd(entries)
    left_out = np.sqrt(np.append(np.cumsum(sizes[::-1] ** 2)[::-1], 0.0))
    rank = max(1, int((left_out > _TOLERANCE * left_out[0]).sum()))
    return (u[:, :rank] * sizes[:rank]).astype(np.float32), v[:rank].astype(np.float32)


# -- the convolution's gradients ---------------------------------------------------------------------------------------


def convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool] = (True, True)
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of an ordinary convolution for its input and its weight, where wanted.

    Each depends on the other's values alone, so that what belongs to an unwanted one may be uninitialised memory.
    """
    if not any(wanted):
        return None, None
    by_products = grad.device.type == "cpu" or grad.dtype == torch.float32  # in bf16, GPUs are as fast without
    if by_products and geometry.is_pointwise(weight.shape[2:]):
        with plain_fp32(grad.device):
            return _pointwise_gradients(grad, x, weight, wanted)
    undilated = Undilated.of(x.shape, grad.shape, geometry)
    x, grad, g = undilated.split_input(x), undilated.split_output(grad), undilated.geometry
    with plain_fp32(grad.device):
        grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, g.stride, g.padding, g.dilation, False, [0, 0], g.groups, [*wanted, False]
        )
    return (undilated.join_input(grad_x) if wanted[0] else None), grad_w


def _pointwise_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """As matrix products, twice as fast; of channels-last tensors, without a copy."""
    matrix, pixels = weight.flatten(1), grad.permute(0, 2, 3, 1)
    grad_x = (pixels @ matrix).permute(0, 3, 1, 2) if wanted[0] else None
    if not wanted[1]:
        return grad_x, None
    pull, activations = pixels.flatten(0, 2), x.permute(0, 2, 3, 1).flatten(0, 2)
    grad_w = pull.t() @ activations if grad.device.type == "cpu" else _in_parts(pull, activations)
    return grad_x, grad_w[:, :, None, None]


def _in_parts(pull: Tensor, activations: Tensor) -> Tensor:
    """pullᵀ·activations of (pixels, O) and (pixels, C): a small matrix of long sums, which GPUs find faster part by part."""
    pixels, products = len(pull), pull.shape[1] * activations.shape[1]
    most = min(max(LEAST_PARTS, pixels // PART), pixels // SMALLEST_PART, MOST_PRODUCTS // products)
    parts = math.gcd(pixels, 1 << max(1, most).bit_length() - 1)
    if parts == 1:
        return pull.t() @ activations
    pull, activations = (one.reshape(parts, pixels // parts, one.shape[1]) for one in (pull, activations))
    return torch.bmm(pull.transpose(1, 2), activations).sum(dim=0)
