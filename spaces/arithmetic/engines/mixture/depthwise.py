"""The gradient of depthwise layers for a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ); on the CPU.

What an activation meets with each tap is a window over the output's gradients. Windows are added up by the activation's
code, and only these sums meet the weights, so that the rank plays no part in the loop over pixels. Results do not depend
on the number of threads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry, pixels_of
from spaces.arithmetic.engines.memory import FLOAT, bytes_at, floats_at, written
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE

_WINDOWS = ((3, 4), (5, 8))  # heights of kernels, and numbers that hold a row of their windows
_ENOUGH = 8  # numbers of the sums of a channel for each of its pixels, up to which all this pays
_MANY = 4096  # pixels of a channel, from which waiting for additions costs more than twice the sums


def suit(index: Tensor, by_weight: Tensor, geometry: Geometry) -> bool:
    """Whether this is fast for codes (N, C, H, W) and weight features (O, R, C/groups, kH, kW)."""
    outputs, _, inner, height, _ = by_weight.shape
    lanes = _lanes(by_weight, geometry)
    if index.device.type != "cpu" or inner > 1 or outputs != geometry.groups or lanes is None:
        return False
    return SIZE * height * lanes <= _ENOUGH * (index.numel() // index.shape[1])


def _span(by_weight: Tensor, geometry: Geometry) -> int:
    return (by_weight.shape[4] - 1) * geometry.dilation[1] + 1


def _lanes(by_weight: Tensor, geometry: Geometry) -> int | None:
    fitting = (lanes for height, lanes in _WINDOWS if height == by_weight.shape[3])
    return next((lanes for lanes in fitting if lanes >= _span(by_weight, geometry)), None)


def table_gradient(index: Tensor, grad: Tensor, by_weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient for ``u`` (R, 256), from that of the layer's output (N, C, H', W').

    ``index`` (N, C, H, W) uint8, ``by_weight`` (C, R, 1, kH, kW).
    """
    sums = _sums(index, grad, by_weight, geometry)  # (C, spread·256, kH, lanes)
    channels, spread = sums.shape[0], sums.shape[1] // SIZE
    weights = torch.zeros((*sums.shape[:1], *sums.shape[2:], by_weight.shape[1]))
    seen = slice(0, _span(by_weight, geometry), geometry.dilation[1])
    weights[:, :, seen] = by_weight.squeeze(2).flip(2, 3).permute(0, 2, 3, 1)
    by_code = torch.matmul(sums.flatten(2), weights.flatten(1, 2))
    return by_code.view(channels * spread, SIZE, -1).sum(dim=0).t()


class _Planes(NamedTuple):
    """Of each channel of an image, its output's gradients and zeros between and around them; and the codes that meet them."""

    images: int
    channels: int
    height: int  # of a plane
    width: int
    rows: int  # of the codes
    columns: int
    grad_rows: int
    grad_columns: int
    down: int  # between neighbouring gradients
    along: int
    top: int  # where they begin
    left: int


def _sums(index: Tensor, grad: Tensor, by_weight: Tensor, geometry: Geometry) -> Tensor:
    """The windows around activations, summed over equal codes, (C, spread·256, kH, lanes).

    The gradients are laid out in planes that have zeros where no output is, so that a window is a few neighbours in each
    of kH rows; the kernel's last row and column meet the first of them.
    """
    codes, g = index.transpose(0, 1).contiguous(), pixels_of(grad)
    channels, images, height, width = codes.shape
    dilation, rows, lanes = geometry.dilation, by_weight.shape[3], _lanes(by_weight, geometry)
    assert lanes is not None
    reach = [(extent - 1) * gap for extent, gap in zip(by_weight.shape[3:], dilation)]
    top, left = (far - padding for far, padding in zip(reach, geometry.padding))
    size = (height + reach[0], width + lanes)
    (_, below, across, _), (down, along) = g.shape, geometry.stride
    layout = _Planes(images, channels, *size, height, width, below, across, down, along, top, left)
    planes = torch.empty((channels, images, *size))
    spread = 2 if images * height * width >= _MANY else 1
    sums = torch.empty((channels, spread * SIZE, rows, lanes))
    share(_lay_out, (g.data_ptr(), layout, planes.data_ptr()), images, codes.numel())
    found = (codes.data_ptr(), layout, planes.data_ptr(), dilation[0], spread, rows, sums.data_ptr())
    share(_add_up, found, channels, codes.numel())
    return sums


# -- loops: tasks from ``begin`` to ``end`` ----------------------------------------------------------------------------


_loop = njit(cache=True, nogil=True)


@_loop
def _lay_out(g, layout, planes, begin, end):
    """Images: planes[c, n, top + i·down, left + j·along] = g[n, i, j, c], elsewhere 0; g (N, H', W', C)."""
    size = layout.height * layout.width
    for n in range(begin, end):
        for c in range(layout.channels):
            plane = floats_at(planes + 4 * (c * layout.images + n) * size)
            for i in range(size):
                plane[i] = np.float32(0)
        for i in range(layout.grad_rows):
            row = i * layout.down + layout.top
            if 0 <= row < layout.height:
                values = floats_at(g + 4 * (n * layout.grad_rows + i) * layout.grad_columns * layout.channels)
                for c in range(layout.channels):
                    line = floats_at(planes + 4 * ((c * layout.images + n) * size + row * layout.width))
                    for j in range(layout.grad_columns):
                        column = j * layout.along + layout.left
                        if 0 <= column < layout.width:
                            line[column] = values[j * layout.channels + c]


def _window_adder(height: int, lanes: int) -> Callable[..., Any]:
    """add(sums, row, plane, start, step): sums[row + i·lanes + l] += plane[start + i·step + l] for i < height, l < lanes.

    A loop over so few numbers, which might overlap for all that the compiler knows, is several times slower.
    """
    vector = ir.VectorType(FLOAT, lanes)

    @intrinsic
    def add(typing, sums, row, plane, start, step):  # noqa: ARG001
        def write(memory, sums, row, plane, start, step):
            for line in range(height):
                part = memory.load(plane, memory.sum(start, memory.product(step, line)), vector)
                own = memory.sum(row, line * lanes)
                memory.store(memory.builder.fadd(memory.load(sums, own, vector), part), sums, own)

        return written(5, write)

    return add


_add_3, _add_5 = (_window_adder(*window) for window in _WINDOWS)


@_loop
def _add_up(codes, layout, planes, dilation, spread, rows, sums, begin, end):
    """Channels. With a spread of 2 neighbours have sums each, as the next addition to one waits for the one before."""
    lanes = 4 if rows == 3 else 8
    for c in range(begin, end):
        own = sums + 4 * c * spread * SIZE * rows * lanes
        values = floats_at(own)
        for i in range(spread * SIZE * rows * lanes):
            values[i] = np.float32(0)
        for n in range(layout.images):
            image = c * layout.images + n
            plane = planes + 4 * image * layout.height * layout.width
            for y in range(layout.rows):
                line, start = bytes_at(codes + (image * layout.rows + y) * layout.columns), y * layout.width
                for j in range(layout.columns):
                    row = (np.intp(line[j]) + (j & (spread - 1)) * SIZE) * (rows * lanes)
                    if rows == 3:
                        _add_3(own, row, plane, start + j, dilation * layout.width)
                    else:
                        _add_5(own, row, plane, start + j, dilation * layout.width)
