"""A step of ApproxDARTS' supernet beside the same step in fp32: tox -e bench -- -k search_speed

The supernet is that of the published protocol: 16 channels, 8 cells, 32×32 pixels, all operations (softmax) or one drawn for
every edge (gumbel, the same ones for all), and all 13 signed multipliers. A step has both levels: gradients for the
choices, and a step of the weights.
"""

import pytest
import torch
from torch import nn

from evaluation.device_check.supernet_step import SPACE, Search
from spaces.arithmetic import emulate
from spaces.arithmetic.gradient_precision import used
from spaces.arithmetic.normalised_sum import normalised_sum
from spaces.registry import SPACES
from spaces.shape import NetworkShape
from tests.benchmarks.conftest import FP32

# What a supernet computes with: precision of gradients, and engine.
MIXTURES = {"mixture": ("fp32", "auto"), "gradients in bf16": ("bf16", "auto"), "float32 engine": ("fp32", "float32")}


@pytest.mark.parametrize("name", [FP32, *MIXTURES])
@pytest.mark.parametrize("batch", [16, 64])
@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_step(benchmark, relaxation, batch, name):
    device, (precision, engine) = torch.device("cpu"), MIXTURES.get(name, ("fp32", "auto"))
    shape, config = NetworkShape(16, 8, 10, (3, 32, 32)), SPACES[SPACE].Config()  # four nodes
    search = Search(shape, config, batch, device, fp32=name == FP32, relaxation=relaxation)
    benchmark.group, benchmark.extra_info["circuit"] = f"supernet, {relaxation}, batch {batch}", name
    try:
        emulate.use_engine(engine)
        with used(precision, device):
            benchmark.pedantic(search.step, rounds=5 if batch == 16 else 3, warmup_rounds=1)
    finally:
        emulate.use_engine("auto")


@pytest.mark.parametrize("name", [FP32, "one function"])
@pytest.mark.parametrize("channels, size", [(16, 32), (64, 8)])
def test_normalised_sum(benchmark, channels, size, name):
    """What a node makes of eight maps of 64 images, and the gradients; beside the same by torch, operation by operation."""
    maps = [torch.randn(64, channels, size, size).contiguous(memory_format=torch.channels_last) for _ in range(8)]
    weights, norms = torch.full((8,), 1 / 8), [nn.BatchNorm2d(channels, affine=False) for _ in maps]
    learning = [tensor.requires_grad_() for tensor in (weights, *maps)]
    grad = torch.randn_like(maps[0])

    def by_operations() -> torch.Tensor:
        return sum(norm(x) * weight for weight, x, norm in zip(weights, maps, norms))

    def by_function() -> torch.Tensor:
        return normalised_sum(weights, maps, norms)

    total = by_operations if name == FP32 else by_function
    benchmark.group, benchmark.extra_info["circuit"] = f"normalised sum, {channels} channels", name
    benchmark.pedantic(lambda: torch.autograd.grad(total(), learning, grad), rounds=9, warmup_rounds=2)
