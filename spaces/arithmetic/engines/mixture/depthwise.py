"""The gradient of depthwise layers for a real-valued table of low rank, Σ_r u_r(x̂)·v_r(ŵ); on the CPU.

What an activation meets with each tap is a window over the output's gradients. Windows are added up by the activation's
code, and only these sums meet the weights, so that the rank plays no part in the loop over pixels. Results do not depend
on the number of threads.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from spaces.arithmetic.engines.cpu.simd import window_adder
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.loops import use_threads
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


def _sums(index: Tensor, grad: Tensor, by_weight: Tensor, geometry: Geometry) -> Tensor:
    """The windows around activations, summed over equal codes.

    The gradients are laid out in planes that have zeros where no output is, so that a window is a few neighbours in each
    of kH rows; the kernel's last row and column meet the first of them.
    """
    codes, g = index.transpose(0, 1).contiguous().numpy(), grad.permute(0, 2, 3, 1).contiguous().numpy()
    channels, images, height, width = codes.shape
    dilation, lanes = geometry.dilation, _lanes(by_weight, geometry)
    assert lanes is not None
    reach = [(extent - 1) * gap for extent, gap in zip(by_weight.shape[3:], dilation)]
    first = [far - padding for far, padding in zip(reach, geometry.padding)]
    planes = np.empty((channels, images, height + reach[0], width + lanes), dtype=np.float32)
    spread = 2 if images * height * width >= _MANY else 1
    sums = np.empty((channels, spread * SIZE, by_weight.shape[3], lanes), dtype=np.float32)
    lay_out, add_up = (_lay_out_together, _add_up_together) if use_threads(codes.size) else (_lay_out, _add_up)
    lay_out(g, *geometry.stride, *first, planes)
    add_up(codes, planes, dilation[0], spread, sums)
    return torch.from_numpy(sums)


# -- loops -------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _lay_out_image(g, n, stride_h, stride_w, top, left, planes):
    """planes[c, n, top + i·stride_h, left + j·stride_w] = g[n, i, j, c], elsewhere 0; g (N, H', W', C)."""
    for c in range(planes.shape[0]):
        planes[c, n] = 0
    for i in range(g.shape[1]):
        row = i * stride_h + top
        if 0 <= row < planes.shape[2]:
            for c in range(g.shape[3]):
                line = planes[c, n, row]
                for j in range(g.shape[2]):
                    column = j * stride_w + left
                    if 0 <= column < line.size:
                        line[column] = g[n, i, j, c]


@njit(cache=True, nogil=True)
def _lay_out(g, stride_h, stride_w, top, left, planes):
    for n in range(g.shape[0]):
        _lay_out_image(g, n, stride_h, stride_w, top, left, planes)


@njit(cache=True, nogil=True, parallel=True)
def _lay_out_together(g, stride_h, stride_w, top, left, planes):
    for n in prange(g.shape[0]):
        _lay_out_image(g, n, stride_h, stride_w, top, left, planes)


def _channel_adder(height: int, lanes: int) -> Callable[..., Any]:
    add = window_adder(lanes, height)

    @njit(nogil=True)
    def run(codes, planes, dilation, spread, sums):
        """With a spread of 2 neighbours have sums each, as the next addition to one waits for the one before."""
        width = planes.shape[2]
        flat, lines = sums.reshape(-1), planes.reshape(-1)
        flat[:] = 0
        for n in range(codes.shape[0]):
            for y in range(codes.shape[1]):
                start, line = (n * planes.shape[1] + y) * width, codes[n, y]
                for j in range(line.size):
                    row = (np.intp(line[j]) + (j & (spread - 1)) * SIZE) * (height * lanes)
                    add(flat, row, lines, start + j, dilation * width)

    return run


_add_channel_of_3, _add_channel_of_5 = (_channel_adder(*window) for window in _WINDOWS)


@njit(cache=True, nogil=True)
def _add_channel(codes, planes, dilation, spread, sums):
    if sums.shape[1] == 3:
        _add_channel_of_3(codes, planes, dilation, spread, sums)
    else:
        _add_channel_of_5(codes, planes, dilation, spread, sums)


@njit(cache=True, nogil=True)
def _add_up(codes, planes, dilation, spread, sums):
    for c in range(codes.shape[0]):
        _add_channel(codes[c], planes[c], dilation, spread, sums[c])


@njit(cache=True, nogil=True, parallel=True)
def _add_up_together(codes, planes, dilation, spread, sums):
    for c in prange(codes.shape[0]):
        _add_channel(codes[c], planes[c], dilation, spread, sums[c])
