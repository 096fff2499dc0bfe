"""oneDNN's quantised convolution, on the CPU's matrix units (AMX, VNNI), and whether it can be trusted.

The operators are not a stable interface of torch, and a CPU without the right instructions lets 16-bit sums saturate. So
a self-test on extreme and random data must pass before they are used.
"""

import functools
import itertools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.exact_float import EXACT_FLOAT32
from spaces.arithmetic.engines.geometry import Geometry
from spaces.warmup import preparing

OFFSET = 128  # a byte that the library may take for zero
_LARGEST_WINDOW = EXACT_FLOAT32 // (255 * 128)  # products of one feature and channel that float32 holds exactly


@functools.lru_cache(maxsize=64)
def ones(outputs: int) -> Tensor:
    """A scale that changes nothing."""
    return torch.ones(outputs)


@functools.lru_cache(maxsize=64)
def _zeros(outputs: int) -> Tensor:
    return torch.zeros(outputs, dtype=torch.int64)


def prepack(weights: Tensor, zero_point: int, geometry: Geometry) -> Tensor:
    """Weights (O, C/groups, kH, kW) int8 in the order in which the library wants them."""
    g = geometry
    return torch.ops.onednn.qconv_prepack(
        weights.contiguous(), ones(weights.shape[0]), 1.0, zero_point, g.stride, g.padding, g.dilation, g.groups, None
    )


def convolve(features: Tensor, zero_point: int, prepacked: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """float32(Σ (f − zero_point)·v)·scale; features uint8, sums in 32 bits."""
    g, zeros = geometry, _zeros(scale.numel())
    return torch.ops.onednn.qconv2d_pointwise(
        features, 1.0, zero_point, prepacked, scale, zeros, None,
        g.stride, g.padding, g.dilation, g.groups, 1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip


@functools.cache
def failure() -> str:
    """Why the matrix units cannot be used; empty when they compute every test convolution exactly."""
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise") or not hasattr(torch.ops.onednn, "qconv_prepack"):
        return "this torch has no quantised convolution of oneDNN"
    try:
        with preparing():
            failed = [case for case in _CASES if not _agrees(*case)]
    except Exception as error:  # an unstable operator fails in its own ways; each means the same to us
        reason = f"its self-test failed ({type(error).__name__}: {str(error).splitlines()[0]})"
    else:
        if not failed:
            return ""
        reason = f"its self-test gave wrong sums ({len(failed)} of {len(_CASES)} convolutions; no 8-bit matrix units?)"
    warnings.warn(f"the int8 engine is left out: {reason}; other engines are exact, but slower", stacklevel=2)
    return reason


@functools.lru_cache(maxsize=4096)
def computes(shape: torch.Size, w_shape: torch.Size, zero_point: int, geometry: Geometry) -> bool:
    """Whether the library is exact for layers of this shape (C, H, W), tried on one random image when it first occurs."""
    if w_shape[2] * w_shape[3] > _LARGEST_WINDOW:
        return False
    largest = max(1, min(127, EXACT_FLOAT32 // (256 * int(np.prod(w_shape[1:])))))  # so that float32 is exact, too
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1, *shape), generator=generator, dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randint(-largest, largest + 1, w_shape, generator=generator, dtype=torch.int8)
    expected = geometry.conv2d(x.contiguous().float() - zero_point, w.float())
    got = convolve(x, zero_point, prepack(w, zero_point, geometry), ones(w_shape[0]), geometry)
    if not torch.equal(got, expected):
        warnings.warn(
            f"oneDNN's quantised convolution is wrong for input {tuple(shape)}, weight {tuple(w_shape)} and {geometry}; "
            "such layers are computed in float64 instead",
            stacklevel=2,
        )
        return False
    return True


# Channels, outputs, kernel, zero point and geometry, as ``conv2d`` asks for them.
_LAYERS = (
    (64, 32, 3, 0, Geometry((1, 1), (1, 1), (1, 1), 1)),
    (64, 32, 3, OFFSET, Geometry((1, 1), (0, 0), (1, 1), 1)),
    (40, 24, 1, OFFSET, Geometry((2, 2), (0, 0), (1, 1), 1)),
    (24, 16, 3, OFFSET, Geometry((1, 1), (0, 0), (2, 2), 1)),
    (16, 16, 3, 0, Geometry((1, 1), (2, 2), (2, 2), 16)),
    (12, 8, 3, 0, Geometry((1, 2), (1, 0), (1, 1), 4)),
    (1500, 5, 1, OFFSET, Geometry()),
)
_CASES = tuple(itertools.product(_LAYERS, (False, True)))


def _agrees(layer: tuple[Any, ...], extreme: bool) -> bool:
    """Whether one convolution is exact, by a route through float64, and scaled with a single rounding of the sum."""
    channels, outputs, kernel, zero_point, geometry = layer
    generator = torch.Generator().manual_seed(channels)
    w_shape = (outputs, channels // geometry.groups, kernel, kernel)
    if extreme:  # where 16-bit sums of two products would saturate
        x = torch.full((2, channels, 7, 9), 255, dtype=torch.uint8)
        w = torch.randint(0, 2, w_shape, generator=generator) * 255 - 128
    else:
        x = torch.randint(0, 256, (2, channels, 7, 9), generator=generator).to(torch.uint8)
        w = torch.randint(-128, 128, w_shape, generator=generator)
    x, w = x.contiguous(memory_format=torch.channels_last), w.to(torch.int8)
    scale = torch.rand(outputs, generator=generator) + 1e-3
    expected = geometry.conv2d(x.double() - zero_point, w.double()).float() * scale.view(1, -1, 1, 1)
    return torch.equal(convolve(x, zero_point, prepack(w, zero_point, geometry), scale, geometry), expected)
