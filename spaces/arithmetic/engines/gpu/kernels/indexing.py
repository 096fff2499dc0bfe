"""How kernels are declared, and where they find what a convolution's window reads."""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def jit(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``triton.jit``, but without recompiling where an ``int`` argument happens to be 1 or a multiple of 16."""
    numbers = [name for name, kind in kernel.__annotations__.items() if kind is int]
    return triton.jit(kernel, do_not_specialize=numbers)


@jit
def window_corners(pixel, pixels, out_height, out_width, stride_h, stride_w, pad_h, pad_w):
    """Output pixels, numbered over the batch → image, and row and column of the window's first tap in the input.

    Lanes beyond the last pixel repeat it, so that what they read is there.
    """
    pixel = tl.minimum(pixel, pixels - 1)
    row = pixel // out_width
    top = row % out_height * stride_h - pad_h
    left = pixel % out_width * stride_w - pad_w
    return row // out_height, top, left


@jit
def inside(row, column, height, width):
    """Which places lie in the image and not in its border."""
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


@jit
def outputs_of_group(tile, outputs, OUTPUTS: tl.constexpr):
    """A tile of OUTPUTS of one group → the group, the tile's outputs (of all), and which are among the group's."""
    tiles = tl.cdiv(outputs, OUTPUTS)
    group = tile // tiles
    inner = tile % tiles * OUTPUTS + tl.arange(0, OUTPUTS)
    return group, group * outputs + inner, inner < outputs
