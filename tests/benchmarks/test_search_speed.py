"""A step of ApproxDARTS' supernet beside the same step in fp32: tox -e bench -- -k search_speed

The supernet is that of the published protocol: 16 channels, 8 cells, 32×32 pixels, all operations (softmax) or one drawn for
every edge (gumbel, the same ones for all), and all 13 signed multipliers. A step has both levels: gradients for the
choices, and a step of the weights.
"""

import pytest
import torch

from evaluation.device_check.supernet_step import SPACE, Search
from spaces.arithmetic import emulate
from spaces.arithmetic.gradient_precision import used
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
