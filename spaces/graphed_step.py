"""Steps of training that a GPU repeats as a graph: recorded once, and from then on launched without Python in between.

Everywhere else the same function is called as it is, which is what a graph has to equal.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from spaces import work
from spaces.arithmetic.engines import graphs
from spaces.warmup import preparing

WARM = 3  # calls as they are, in which kernels are compiled, algorithms chosen, and an optimiser's state made


class Recorder(Protocol):
    """What can repeat launches."""

    def run(self, work: Callable[[], None]) -> None:
        """Do the work as it is, the way it will be recorded."""

    def record(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None] | None:
        """Note what ``work`` launches, without doing it → what does it; None where that is not possible."""


class CudaRecorder:
    """CUDA graphs of steps that follow each other on one device: on one stream, and in one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self.device, self.stream, self.pool = device, torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], None]) -> None:
        """On the stream of the recording, since autograd adds up a gradient on the stream where it did so first."""
        around = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(around)
        with torch.cuda.stream(self.stream):
            work()
        around.wait_stream(self.stream)

    def record(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None] | None:
        with torch.cuda.device(self.device):
            return graphs.record(work, self.stream, generators, self.pool)


def recorder_of(device: torch.device) -> Recorder | None:
    """What records steps on a device; None where they are called as they are."""
    return CudaRecorder(device) if device.type == "cuda" else None


class GraphedStep:
    """``step(*batch)`` is ``function(*batch)``, replayed as a graph from the fourth batch of a shape on.

    The function changes tensors in place and returns nothing. It must wait for nothing, draw random numbers from
    ``generators`` alone, and decide on the host only by what stays as it is until ``forget``: a number that changes, such
    as a learning rate, has to be a tensor. ``changed`` are the tensors that it changes and that outlive it; that they were
    is told to those who keep what follows from them. Batches of other shapes go their way as they are.
    """

    def __init__(
        self,
        function: Callable[..., None],
        changed: Iterable[Tensor],
        recorder: Recorder | None,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._function, self._changed, self._recorder = function, list(changed), recorder
        self._generators = generators
        self._calls: Counter[tuple[object, ...]] = Counter()  # by the batch's shape
        self.forget()

    def forget(self) -> None:
        """Record anew before the next replay: what the function takes for constant has changed, or its tensors have."""
        self._replay: Callable[[], None] | None = None
        self._work = 0.0  # MACs of one replay; see ``spaces.work``
        self._buffers: list[Tensor] = []
        self._shape: tuple[object, ...] | None = None

    def __call__(self, *batch: Tensor) -> None:
        shape = tuple((part.shape, part.dtype) for part in batch)
        if self._recorder is not None and self._replay is None and self._calls[shape] >= WARM:
            self._record(self._recorder, batch, shape)
        if self._recorder is None:
            self._function(*batch)
        elif self._replay is None or shape != self._shape:
            self._calls[shape] += 1
            self._recorder.run(lambda: self._function(*batch))
        else:
            for buffer, part in zip(self._buffers, batch):
                buffer.copy_(part)
            self._replay()
            work.add(self._work)
            for tensor in self._changed:
                increment_version(tensor)

    def _record(self, recorder: Recorder, batch: tuple[Tensor, ...], shape: tuple[object, ...]) -> None:
        self._shape, self._buffers = shape, [part.clone() for part in batch]
        with preparing(), work.counting() as recorded:  # nothing of it is computed yet
            self._replay = recorder.record(lambda: self._function(*self._buffers), self._generators)
        self._work = recorded.macs
        if self._replay is None:
            self._recorder = None
            warnings.warn("this device cannot repeat a training step as a graph; steps are slower so", stacklevel=3)
