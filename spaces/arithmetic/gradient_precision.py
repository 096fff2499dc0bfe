"""In what precision quantised layers compute their gradients: fp32, or bf16 where that is faster.

bf16 keeps 8 bits of every factor and adds up in fp32. Codes are integers up to 256, which it holds exactly, so that what is
rounded is the output's gradient, the weights that it meets, and the result. The forward pass does not know of any of this.
"""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from spaces.arithmetic.engines import timing
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.precision import plain_fp32
from spaces.errors import suggest
from spaces.warmup import preparing

PRECISIONS = ("auto", "bf16", "fp32")
_ENOUGH = 64 * 64  # weights of a pointwise layer, from which bf16 saves more than it costs to convert to it
_SHARE = 0.7  # of fp32's time, so that no noise decides
_REPEATS = 7
_LAYER = (16, 64, 64, 3, 16)  # images, inputs, outputs, kernel and side of the layer that is timed
_used = "fp32"


@contextmanager
def used(name: str, device: torch.device) -> Iterator[None]:
    """Inside, quantised layers compute their gradients in this precision. Raises InputError for an unknown name."""
    global _used
    before, _used = _used, settled(name, device)
    try:
        yield
    finally:
        _used = before


def settled(name: str, device: torch.device) -> Literal["bf16", "fp32"]:
    """``name``, where "auto" becomes bf16 on a device that is much faster in it, and else fp32.

    A run decides once, as its results depend on it. Raises InputError for an unknown name.
    """
    if name not in PRECISIONS:
        raise suggest(name, PRECISIONS, "gradient precision")
    if name == "auto":
        return "bf16" if _gains(device) else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def gradient_dtype(w_shape: torch.Size, geometry: Geometry) -> torch.dtype:
    """What a layer with weights (O, C/groups, kH, kW) computes its gradients in, under the precision in use.

    By shape alone, so that results do not depend on what was measured. On a core with AMX, a layer's forward and backward
    pass takes 0.5 of its time with gradients in fp32 for 3×3 64→64, 0.9 for 3×3 16→16, 0.7 to 1 for pointwise layers
    from 64→64 on, and more for smaller ones; depthwise gradients alone took up to four times as long.
    """
    pointwise = tuple(w_shape[2:]) == (1, 1)
    gains = geometry.groups == 1 and (not pointwise or w_shape[0] * w_shape[1] >= _ENOUGH)
    return torch.bfloat16 if _used == "bf16" and gains else torch.float32


@functools.lru_cache(maxsize=16)
def _gains(device: torch.device) -> bool:
    """Whether gradients in bf16 are faster on the device, by a measurement that is kept on disk."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    fp32, bf16 = timing.kept("gradients", device, torch.get_num_threads(), _measured)
    return bf16 < _SHARE * fp32


def _measured() -> list[float]:
    """Seconds of the gradients of a dense layer on the CPU, in fp32 and in bf16; the shortest of several."""
    images, inputs, outputs, kernel, side = _LAYER
    grad, x = (
        torch.ones((images, count, side, side)).contiguous(memory_format=torch.channels_last)
        for count in (outputs, inputs)
    )
    weight = torch.ones((outputs, inputs, kernel, kernel))

    def run(grad: Tensor, x: Tensor, weight: Tensor) -> float:
        begin = time.perf_counter()
        padding = [kernel // 2] * 2
        torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [True, True, False]
        )
        return time.perf_counter() - begin

    with preparing(), plain_fp32(grad.device):
        halves = [operand.bfloat16() for operand in (grad, x, weight)]
        times = [(run(grad, x, weight), run(*halves)) for _ in range(_REPEATS)]
    return [min(column) for column in zip(*times)]
