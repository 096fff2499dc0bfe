"""A step of ApproxDARTS' supernet beside the same step in fp32: pytest tests/benchmarks/test_search_speed.py --benchmark-only

The supernet is that of the published protocol: 16 channels, 8 cells, 32×32 pixels, a softmax over all operations and all 13
signed circuits, here at batch 16 and with two threads. A step has both levels: gradients for the choices, and a step of
the weights.
"""

import pytest
import torch

from evaluation.device_check.supernet_step import SPACE, Search
from spaces.registry import SPACES
from spaces.shape import NetworkShape
from tests.benchmarks.conftest import FP32


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", [FP32, "mixture of 13"])
def test_step(benchmark, name):
    config = SPACES[SPACE].Config()  # four nodes
    search = Search(NetworkShape(16, 8, 10, (3, 32, 32)), config, 16, torch.device("cpu"), fp32=name == FP32)
    benchmark.group, benchmark.extra_info["circuit"] = "step of the supernet, batch 16", name
    benchmark.pedantic(search.step, rounds=5, warmup_rounds=1)
