"""A training step of small networks beside the same step in fp32: tox -e bench -- -k training_speed

Networks drawn for the table of trained networks (space bench), and as finalists of the quick protocol: their layers are so
small that what is around the sums decides.
"""

import numpy as np
import pytest
import torch

from evaluation import datasets
from evaluation.settings.protocols import named_protocol
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.loop import Schedule, Training
from spaces.multipliers import catalogue
from spaces.registry import SPACES
from spaces.shape import NetworkShape
from tests.benchmarks.conftest import FP32

# Protocol, space, data set, and which of the networks that a seed draws.
NETWORKS = {
    "bench, first": ("bench", "bench", "fashion14", 0),
    "bench, second": ("bench", "bench", "fashion14", 1),
    "quick, first": ("quick", "cells", "digits", 0),
    "quick, second": ("quick", "cells", "digits", 1),
}


@pytest.mark.parametrize("name", [FP32, "approximate"])
@pytest.mark.parametrize("network", NETWORKS)
def test_training_step(benchmark, network, name):
    protocol_name, space_name, data, number = NETWORKS[network]
    protocol, images = named_protocol(protocol_name), datasets.load(data).train
    part = DeviceImages(images, *channel_statistics(images), torch.device("cpu"))
    space = SPACES[space_name](catalogue.library(catalogue.names()), SPACES[space_name].Config(), "all", "edge")
    shape = NetworkShape(protocol.final_channels, protocol.final_cells, 10, images.images.shape[1:])
    rng = np.random.default_rng(5)
    architecture = [space.sample(rng) for _ in range(number + 1)][-1]
    torch.manual_seed(0)
    training = Training(space.build(architecture, shape, name), part, Schedule.final(protocol), torch.Generator())
    training.network.train()
    batch = next(part.shuffled(protocol.batch, torch.Generator().manual_seed(0)))
    benchmark.group, benchmark.extra_info["circuit"] = f"training step, {network}", name
    benchmark.pedantic(training.step, batch, rounds=20, warmup_rounds=3)
