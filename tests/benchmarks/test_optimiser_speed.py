"""An optimiser's step over the weights of a supernet: one by one, by lists, fused. tox -e bench -- -k optimiser."""

import pytest
import torch
from torch import nn

SHAPES = [(16, 16, 1, 1), (16, 1, 3, 3), (16, 1, 5, 5)] * 470


@pytest.mark.parametrize(
    "way", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=["single", "lists", "fused"]
)
@pytest.mark.benchmark(group="SGD step over 1,410 weights")
def test_optimiser_step(benchmark, way):
    weights = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimiser = torch.optim.SGD(weights, 0.01, 0.9, weight_decay=3e-4, **way)
    benchmark(optimiser.step)
