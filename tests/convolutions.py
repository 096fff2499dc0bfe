"""Circuits, codes and sums by the definition: what the tests of engines and layers share."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from spaces.arithmetic.engines import self_test
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier

NAMES = catalogue.names()
LIBRARY = tuple(catalogue.get(name) for name in NAMES)
EXACT = catalogue.get("mul8s_1KV8")
ROUGH = catalogue.get("mul8s_1KVL")  # rank 4, with errors of a few hundred


def with_zero_row(constant: int = 5) -> Multiplier:
    """A circuit that returns ``constant`` too much for a zero activation: padding must add it, as hardware would."""
    table = ROUGH.table.astype(np.int64)
    table[128] += constant
    return Multiplier(name="mul8s_offset", signed=True, table=table, power_mw=0.3)


ZERO_ROW = with_zero_row()
FULL_RANK = Multiplier(  # with entries beyond those of any circuit, so that no factors are small
    name="random", signed=True, table=np.random.default_rng(0).integers(-(2**20), 2**20, (256, 256))
)
UNSIGNED = Multiplier(name="unsigned", signed=False, table=np.multiply.outer(np.arange(256), np.arange(256)))


def codes(*shape: int, low: int = -128, high: int = 127, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).integers(low, high + 1, shape)).to(torch.int16)


def loop_conv(x: np.ndarray, w: np.ndarray, multiplier: Multiplier, stride, padding, dilation, groups) -> np.ndarray:
    """The sums as the definition has them: a loop over every image, output, pixel, input channel and kernel tap."""
    table, low = multiplier.table.tolist(), -128 if multiplier.signed else 0
    images, channels, height, width = x.shape
    outputs, inner, rows, columns = w.shape
    assert inner * groups == channels
    tall = (height + 2 * padding[0] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    wide = (width + 2 * padding[1] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    y = np.zeros((images, outputs, tall, wide), dtype=np.int64)
    for n, o, i, j in np.ndindex(y.shape):
        first = o // (outputs // groups) * inner
        total = 0
        for c, k, m in np.ndindex(inner, rows, columns):
            row = i * stride[0] - padding[0] + k * dilation[0]
            column = j * stride[1] - padding[1] + m * dilation[1]
            inside = 0 <= row < height and 0 <= column < width
            a = int(x[n, first + c, row, column]) if inside else 0
            total += table[a - low][int(w[o, c, k, m]) - low]
        y[n, o, i, j] = total
    return y


@st.composite
def convolutions(draw, largest_group: int = 3, multipliers: tuple[Multiplier, ...] = LIBRARY):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner = draw(st.integers(1, largest_group))
    outputs = groups * draw(st.integers(1, 3))
    kernel = (draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 3, 5])))
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), d * (k - 1) + 6))
        for k, p, d in zip(kernel, padding, dilation)
    ]
    seed = draw(st.integers(0, 2**20))
    x = codes(draw(st.integers(1, 2)), groups * inner, *size, seed=seed)
    w = codes(outputs, inner, *kernel, seed=seed)
    multiplier = draw(st.sampled_from(multipliers))
    return x, w, multiplier, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def forget_self_tests() -> None:
    """Engines are tested, and warned of, again: a fault that a test planted is not remembered."""
    self_test._tested.cache_clear()
    self_test._warned.clear()
