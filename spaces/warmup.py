"""Time that goes into getting ready rather than into work: compiling, measuring engines, a GPU's first steps.

It is spent once per process or machine and is part of what a run takes, so it is counted, and booked apart.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from numba.core import event

T = TypeVar("T")
FACTOR = 2.0  # a first step that takes more than so many times the second one has made something ready


class _Clock:
    """Seconds of all outermost stretches so far."""

    def __init__(self) -> None:
        self.total, self.depth, self.since = 0.0, 0, 0.0

    def start(self) -> None:
        if self.depth == 0:
            self.since = time.perf_counter()
        self.depth += 1

    def stop(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.total += time.perf_counter() - self.since


_clock = _Clock()


def seconds() -> float:
    """Seconds that this process has spent on getting ready, so far."""
    return _clock.total


@contextmanager
def preparing() -> Iterator[None]:
    """The block gets something ready. Blocks may lie inside each other; the outermost counts."""
    _clock.start()
    try:
        yield
    finally:
        _clock.stop()


class _Compilations(event.Listener):
    """Counts what numba compiles; what it loads from its cache is no compilation."""

    def on_start(self, event: event.Event) -> None:  # noqa: ARG002
        _clock.start()

    def on_end(self, event: event.Event) -> None:  # noqa: ARG002
        _clock.stop()


event.register("numba:compile", _Compilations())


def first_step_watched(batches: Iterable[T], device: torch.device) -> Iterator[T]:
    """The batches of an epoch; on a GPU, what the first step takes longer than the second counts as getting ready.

    Kernels are compiled, tuned and captured when they first run. Both steps are waited for, as the device is idle there
    anyway; a first step of less than ``FACTOR`` times the second one counts for nothing. On a CPU all of it is compiled
    by numba, which is counted as it happens.
    """
    if device.type != "cuda":
        yield from batches
        return
    steps: list[tuple[float, float]] = []  # seconds, and how many of them are counted already
    for batch in batches:
        if len(steps) == 2:
            yield batch
            continue
        torch.cuda.synchronize(device)
        began, counted = time.perf_counter(), seconds()
        yield batch
        torch.cuda.synchronize(device)
        steps.append((time.perf_counter() - began, seconds() - counted))
        if len(steps) == 2 and (first := steps[0][0] - steps[0][1]) > FACTOR * steps[1][0]:
            _clock.total += first - steps[1][0]
