"""A step of ApproxDARTS' supernet beside the same step in fp32: pytest tests/benchmarks/test_search_speed.py --benchmark-only

The supernet is that of the published protocol: 16 channels, 8 cells, 32×32 pixels, a softmax over all operations and all 13
signed circuits, here at batch 16 and with two threads. A step has both levels: gradients for the choices, and a step of
the weights.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.factory import FixedLayers
from spaces.cells import supernet
from spaces.cells.space import CellSpace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape
from tests.benchmarks.conftest import FP32


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Search:
    """A supernet with its choices, the weights' optimiser and one batch."""

    def __init__(self, batch: int) -> None:
        space = CellSpace(catalogue.library(catalogue.names()), 4)
        self.net = supernet.CellSupernet(space, NetworkShape(16, 8, 10, 3, (32, 32)))
        self.net.to(memory_format=torch.channels_last)
        self.weights = list(self.net.parameters())
        self.choices = [1e-3 * torch.randn(2, 14, 8), 1e-3 * torch.randn(space.sites.count, len(space.library))]
        self.optimiser = torch.optim.SGD(self.weights, lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 10, (batch,))

    def step(self) -> None:
        torch.autograd.grad(self._loss(self.choices, self.weights), self.choices, allow_unused=True)
        self.optimiser.zero_grad()
        self._loss(self.weights, self.choices).backward()
        self.optimiser.step()

    def _loss(self, learning: list[Tensor], still: list[Tensor]) -> Tensor:
        for tensors, flag in ((learning, True), (still, False)):
            for tensor in tensors:
                tensor.requires_grad_(flag)
        self.net.choose(*(choice.softmax(-1) for choice in self.choices))
        return F.cross_entropy(self.net(self.images), self.labels)


@pytest.mark.parametrize("name", [FP32, "mixture of 13"])
def test_step(benchmark, monkeypatch, name):
    if name == FP32:
        monkeypatch.setattr(supernet, "MixtureLayers", lambda choice: FixedLayers("fp32", None))  # noqa: ARG005
    search = Search(batch=16)
    benchmark.group, benchmark.extra_info["circuit"] = "step of the supernet, batch 16", name
    benchmark.pedantic(search.step, rounds=5, warmup_rounds=1)
