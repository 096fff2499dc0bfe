"""How fast the emulated layers are beside the ordinary convolution: tox -e bench. Compare within one run only."""

import pytest
import torch
from torch import nn

from spaces.arithmetic.layers import ApproxConv2d, MultiplierChoice, MultiplierMixture
from spaces.multipliers import catalogue

SHAPES = {"pointwise": (32, 64, 1, 1), "depthwise": (64, 64, 3, 64), "ordinary": (64, 64, 3, 1)}


def layer(kind: str, inputs: int, outputs: int, kernel: int, groups: int) -> nn.Conv2d:
    shape = {"padding": kernel // 2, "groups": groups, "bias": False}
    if kind == "fp32":
        return nn.Conv2d(inputs, outputs, kernel, **shape)
    if kind == "mixture":
        choice = MultiplierChoice([catalogue.get(name) for name in catalogue.names()])
        choice.set(torch.full((13,), 1 / 13))
        return MultiplierMixture(inputs, outputs, kernel, choice=choice, **shape)
    return ApproxConv2d(inputs, outputs, kernel, multiplier=catalogue.get(kind), **shape)


@pytest.mark.parametrize("kind", ["fp32", "mul8s_1KV8", "mul8s_1L2H", "mul8s_1KX2", "mixture"])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward(benchmark, shape, kind):
    conv = layer(kind, *SHAPES[shape]).to(memory_format=torch.channels_last)
    x = torch.randn(32, SHAPES[shape][0], 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn_like(conv(x))
    benchmark.group = shape
    benchmark(lambda: torch.autograd.grad(conv(x), (x, conv.weight), grad))
