"""Numbers in the place of codes, on the CPU: float32 values by index, as the gradients of a layer need them.

Where the processor permutes bytes in registers, 64 codes at a time. All memory is told by its address.
"""

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from spaces.arithmetic.engines.cpu.depthwise_simd import PLANES, look_up_bytes, look_up_each
from spaces.arithmetic.engines.memory import BYTE, CODES, INTEGER, has_permutes, written
from spaces.arithmetic.engines.threads import share
from spaces.multipliers.multiplier import SIZE

_PERMUTES = has_permutes()
_MANY = 1024  # codes, from which taking the values apart into bytes pays
_BLOCK = 32768  # codes per task


def floats(index: Tensor, values: Tensor, out: Tensor) -> None:
    """out = values[index]; index uint8 and out float32 are dense and lie in the same order, values (256,) float32."""
    count = index.numel()
    many = int(_PERMUTES and count >= _MANY)
    arguments = (index.data_ptr(), values.data_ptr(), out.data_ptr(), count, many)
    share(_floats, arguments, -(-count // _BLOCK), count)


def scaled_rows(index: Tensor, values: Tensor, scale: Tensor, out: Tensor) -> None:
    """out[o] = values[index[o]]·scale[o]; index (O, …) uint8 and out float32, values (256,), scale (O,) float32."""
    rows = index.shape[0]
    _scaled_rows(index.view(rows, -1).numpy(), values.numpy(), scale.numpy(), out.view(rows, -1).numpy())


@intrinsic
def _take_apart(typing, table, planes):  # noqa: ARG001
    """The first bytes of 256 float32 numbers, the second ones and so on, as ``look_up_bytes`` wants them."""

    def write(memory, table, planes):
        with cgutils.for_range(memory.builder, memory.number(SIZE)) as entry:
            number = memory.load(table, entry.index, INTEGER)
            for plane in range(PLANES):
                byte = memory.builder.trunc(memory.builder.lshr(number, ir.Constant(INTEGER, 8 * plane)), BYTE)
                memory.store(byte, planes, memory.sum(entry.index, plane * SIZE))

    return written(2, write)


@njit(cache=True, nogil=True, error_model="numpy")
def _floats(index, values, out, count, many, begin, end):
    """Tasks from ``begin`` to ``end``, of a block of codes each."""
    first, last = begin * _BLOCK, min(count, end * _BLOCK)
    whole = (last - first) // CODES if many else 0
    if whole:
        planes = np.empty(PLANES * SIZE + CODES, dtype=np.uint8)
        start = (planes.ctypes.data + CODES - 1) // CODES * CODES
        _take_apart(values, start)
        look_up_bytes(index + first, start, out + 4 * first, whole)
        planes[0] = 0  # to here it must be kept
    first += whole * CODES
    look_up_each(index + first, values, out + 4 * first, last - first)


@njit(cache=True, nogil=True, error_model="numpy")
def _scaled_rows(index, values, scale, out):
    for o in range(index.shape[0]):
        for k in range(index.shape[1]):
            out[o, k] = values[index[o, k]] * scale[o]
