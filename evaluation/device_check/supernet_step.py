"""A step of ApproxDARTS' supernet beside the same step in fp32: its time, its launches, how busy it keeps a GPU.

A step has both levels: gradients for the choices, and a step of the weights.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.device_check import timing
from evaluation.training.tasks.image_classification import ImageClassification
from methods import METHODS
from methods.bilevel import only
from methods.relaxations import RELAXATIONS
from spaces.arithmetic.mixture import MultiplierMixture
from spaces.graphed_step import WARM, GraphedStep, recorder_of
from spaces.multipliers import catalogue
from spaces.registry import SPACES
from spaces.shape import NetworkShape
from spaces.space import DifferentiableSpace

SPACE = METHODS["approxdarts"].native_space
LONGEST = 20  # kernels


class Search:
    """A supernet with its choices, the optimiser of its weights and one batch of images.

    ``step`` is a step of both levels, ``graphed`` the same one, replayed as a graph where the device can.
    """

    def __init__(
        self,
        shape: NetworkShape,
        config: Any,
        batch: int,
        device: torch.device,
        fp32: bool,
        relaxation: str = "softmax",
    ) -> None:
        space = SPACES[SPACE](catalogue.library(catalogue.names()), config)
        assert isinstance(space, DifferentiableSpace), "the native space of a search by gradient"
        choices = space.choices(shape)
        self.relaxation = RELAXATIONS[relaxation](choices, torch.Generator(device).manual_seed(0))
        self.net = space.supernet(shape, choices)
        if fp32:
            _replace_mixtures(self.net)
        self.net.to(device=device, memory_format=torch.channels_last)
        self.weights = list(self.net.parameters())
        self.choices = {
            name: 1e-3 * torch.randn((choice.count, len(choice.options)), device=device)
            for name, choice in choices.items()
        }
        self.optimiser = torch.optim.SGD(self.weights, lr=0.025, momentum=0.9, weight_decay=3e-4, foreach=True)
        images = torch.randn((batch, *shape.input_shape), device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, shape.classes, (batch,), device=device)
        changed = [*self.weights, *self.net.buffers()]
        self.graphed = GraphedStep(self.step, changed, recorder_of(device))

    def step(self) -> None:
        choices = list(self.choices.values())
        with only(choices, self.weights):
            torch.autograd.grad(self._loss(), choices, allow_unused=True)
        self.optimiser.zero_grad()
        with only(self.weights, choices):
            self._loss().backward()
        self.optimiser.step()

    def _loss(self) -> Tensor:
        relaxed = self.relaxation(self.choices)
        self.net.choose(relaxed.weights, relaxed.sampled)
        return ImageClassification().loss(self.net(self.images), self.labels)


def _replace_mixtures(net: nn.Module) -> None:
    """Put an ordinary layer of the same shape in the place of every one that mixes circuits."""
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if type(layer) is MultiplierMixture:
                own = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
                bias = layer.bias is not None
                setattr(parent, name, nn.Conv2d(*own, layer.dilation, layer.groups, bias))
            elif isinstance(layer, MultiplierMixture):  # the classifier, on a single pixel
                setattr(parent, name, nn.Linear(layer.in_channels, layer.out_channels))


def measured(
    device: torch.device, quick: bool, tell: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Seconds, launches, busy share and longest kernels of both steps, and their ratio ``vs_fp32``.

    On a GPU ``graph_seconds``, too: of the step replayed as a graph, by which the two are compared, and of which launches and
    kernels are. On a CPU there are none of these but seconds. ``tell`` gets all that is known whenever there is more of it.
    """
    shape, config, batch = size(device, quick)
    found: dict[str, Any] = {"channels": shape.channels, "cells": shape.cells, "batch": batch}
    found |= {"space": SPACE, **dataclasses.asdict(config)}
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[]), timing.tf32(False):
        torch.manual_seed(0)
        for name in ("fp32", "mixture"):
            search = Search(shape, config, batch, device, fp32=name == "fp32")
            found[name] = {"graph_seconds": None, "launches": None, "busy_share": None, "longest": []}
            rounds = 2 if quick else 5
            if on_gpu:
                # Launched one by one, which takes seconds, as often as a graph asks for; the first also compiles.
                found[name]["seconds"] = _median(search.graphed, device, WARM - 1, warm=1)
                found[name]["graph_seconds"] = _median(search.graphed, device, rounds, warm=1)
                found[name] |= _profile(search, device, found[name]["graph_seconds"])
                del search.graphed  # and the memory of its graph
            else:
                found[name]["seconds"] = _median(search.step, device, rounds, warm=2)
            tell(found)
        seconds = "graph_seconds" if on_gpu else "seconds"
        found["vs_fp32"] = found["mixture"][seconds] / found["fp32"][seconds]
        tell(found)
    return found


def size(device: torch.device, quick: bool) -> tuple[NetworkShape, Any, int]:
    """Network, settings of the space and batch; on a GPU those of the published search."""
    if device.type == "cuda":
        return NetworkShape(16, 8, 10, (3, 32, 32)), SPACES[SPACE].Config(), 16 if quick else 64
    size, channels, batch = (12, 4, 8) if quick else (32, 16, 16)
    return (
        NetworkShape(channels, 3, 10, (3, size, size)),
        SPACES[SPACE].small if quick else SPACES[SPACE].Config(),
        batch,
    )


def _median(step: Callable[[], None], device: torch.device, rounds: int, warm: int) -> float:
    times = []
    for _ in range(rounds + warm):
        _synchronise(device)
        begin = time.perf_counter()
        step()
        _synchronise(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[warm:])


def _profile(search: Search, device: torch.device, took: float) -> dict[str, Any]:
    """Kernels in the graph of a step, the share of the ``took`` seconds of one in which any of them ran, and the longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        search.graphed()
        _synchronise(device)
    on_gpu = [event for event in profiler.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    found = [(event.key, event.count, event.self_device_time_total / 1e6) for event in on_gpu]
    busy, launches = sum(seconds for _, _, seconds in found), sum(calls for _, calls, _ in found)
    longest = sorted(found, key=lambda each: -each[2])[:LONGEST]
    return {
        "launches": launches,
        "busy_share": min(1.0, busy / took),
        "longest": [dict(zip(("name", "calls", "seconds"), each)) for each in longest],
    }


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
