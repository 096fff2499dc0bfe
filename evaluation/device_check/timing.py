"""Time of a row of calls on a device: on a GPU of its kernels alone, where they can be captured as a graph."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from spaces.arithmetic.engines import graphs

ROUNDS = 7


def seconds(call: Callable[[], object], device: torch.device, quick: bool, eager: bool = False) -> tuple[float, str]:
    """Seconds per call, the median of several rounds, and how it was measured: "graph", "eager" or "cpu"."""
    for _ in range(3):  # compiles, measures engines, fills caches
        call()
    if device.type != "cuda":
        return _on_cpu(call, 3 if quick else ROUNDS), "cpu"
    times, graph = graphs.seconds(call, 10 if quick else 40, ROUNDS, recorded=not eager)
    return statistics.median(times), "graph" if graph else "eager"


def _on_cpu(call: Callable[[], object], rounds: int) -> float:
    begin = time.perf_counter()
    call()
    repeats = max(1, min(100, int(0.01 / max(time.perf_counter() - begin, 1e-6))))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - begin) / repeats)
    return statistics.median(times)


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Let fp32 convolutions be in TF32, or not; cuDNN picks the fastest algorithm."""
    cudnn = torch.backends.cudnn
    value: str | bool
    # Since torch 2.9: where one operator's setting was changed, the common one cannot be read.
    if hasattr(cudnn, "conv"):
        holder, name, value = cudnn.conv, "fp32_precision", "tf32" if wanted else "ieee"
    else:
        holder, name, value = cudnn, "allow_tf32", wanted
    before = getattr(holder, name), cudnn.benchmark
    setattr(holder, name, value)
    cudnn.benchmark = True
    try:
        yield
    finally:
        setattr(holder, name, before[0])
        cudnn.benchmark = before[1]
