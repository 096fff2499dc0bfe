"""What is timed and booked on a GPU, with a clock and kernels that are made up."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from evaluation.training import loop
from spaces import warmup
from spaces.arithmetic.engines import timing
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import factored as triton_factored
from spaces.arithmetic.engines.gpu import gather as triton_gather
from spaces.arithmetic.engines.gpu import launching
from spaces.multipliers import catalogue
from spaces.multipliers.products import operand_table
from tests import tiny
from tests.pretend import DEVICE, pretending

GPU = torch.device("cuda")
TABLE = operand_table(catalogue.get("mul8s_1KV8"))


class FakeGpu:
    """Launches cost the host 100 µs each and the device what the kernel says; a graph holds launches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.device, self.recording, self.broken, self.streams = 0.0, 0.0, None, False, ["own"]
        gpu = self

        class Graph:
            work = 0.0

            def replay(self) -> None:
                gpu.host, gpu.device = gpu.host + 1e-4, gpu.device + self.work

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = gpu.device

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: "Event") -> float:
                return 1e3 * (end.at - self.at)

        @contextlib.contextmanager
        def graph(held: Graph, pool: object, stream: object, capture_error_mode: str):
            assert (pool, stream, capture_error_mode) == (None, "new", "thread_local")
            if self.broken:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.recording = held
            yield
            self.recording = None

        for name, value in {"CUDAGraph": Graph, "Event": Event, "graph": graph}.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: "new")
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.streams[-1])
        monkeypatch.setattr(torch.cuda, "set_stream", self.streams.append)

    def engine(self, kernel: float) -> SimpleNamespace:
        """One whose kernel takes so many seconds."""

        def conv2d(*_: object) -> None:
            self.host += 1e-4
            if self.recording is None:
                self.device += kernel
            else:
                self.recording.work += kernel

        return SimpleNamespace(pack=lambda *_: None, conv2d=conv2d)


def test_engines_are_timed_by_their_kernels_not_by_python(monkeypatch):
    gpu = FakeGpu(monkeypatch)
    full = torch.full
    monkeypatch.setattr(torch, "full", lambda *args, device, **more: full(*args, **more))  # noqa: ARG005
    shape, geometry = (64, 64, 3, 3), Geometry(padding=(1, 1))
    products = 8 * 32 * 32 * 64 * 64 * 9
    for kernel in (1e-5, 4e-5):
        measured = timing._measure(gpu.engine(kernel), TABLE, shape, geometry, GPU)
        assert measured == pytest.approx(kernel / products)


def test_where_nothing_can_be_recorded_launches_are_timed(monkeypatch):
    """And the stream that work goes to is the one from before."""
    gpu = FakeGpu(monkeypatch)
    gpu.broken = True
    full = torch.full
    monkeypatch.setattr(torch, "full", lambda *args, device, **more: full(*args, **more))  # noqa: ARG005
    measured = timing._measure(gpu.engine(2e-5), TABLE, (64, 64, 3, 3), Geometry(padding=(1, 1)), GPU)
    assert measured == pytest.approx(2e-5 / (8 * 32 * 32 * 64 * 64 * 9))
    assert gpu.streams == ["own", "own"]


def test_a_kernels_first_launch_in_a_variant_counts_as_getting_ready(monkeypatch):
    launched, now = [], iter(range(100))

    class Kernel:
        def __getitem__(self, programs):
            return lambda *arguments, **constants: launched.append((programs, len(arguments), constants))

    monkeypatch.setattr(launching, "kernels", lambda: SimpleNamespace(some_kernel=Kernel()))
    monkeypatch.setattr(launching, "_compiled", set())
    monkeypatch.setattr(warmup.time, "perf_counter", lambda: next(now))
    x, before = torch.zeros(64, dtype=torch.uint8), warmup.seconds()
    variants = [(x, {"WIDTH": 1}), (x, {"WIDTH": 1}), (x, {"WIDTH": 2}), (x[1:], {"WIDTH": 2}), (x.int(), {"WIDTH": 2})]
    counted = []
    for tensor, constants in variants:
        launching.launch("some_kernel", 7, tensor, 3, **constants)
        counted.append(warmup.seconds() - before)
    assert counted == [1, 1, 2, 3, 4]  # a tick of the clock each, but for the variant that is known
    assert launched[0] == ((7,), 2, {"WIDTH": 1})


def test_depthwise_layers_of_all_multipliers_share_compilations(monkeypatch):
    """What a kernel is compiled for does not tell circuits of as many features apart."""
    variants: dict[int, set] = {}
    monkeypatch.setattr(
        triton_factored, "launch", lambda *_, **constants: variants[width].add(str(sorted(constants.items())))
    )
    layer = torch.zeros((16, 1, 3, 3), dtype=torch.uint8)
    geometry, names = Geometry(padding=(1, 1), groups=16), catalogue.names()
    for name in names:
        table = operand_table(catalogue.get(name))
        width = triton_factored.channels(table)
        variants.setdefault(width, set())
        x = torch.zeros((1, 16, 8, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        triton_factored.conv2d(x, triton_factored.pack(layer, table, geometry), 128)
    assert len(variants) < len(names) and all(len(found) == 1 for found in variants.values())


def test_a_kernel_that_fails_to_compile_is_no_known_variant(monkeypatch):
    class Kernel:
        def __getitem__(self, _):
            raise RuntimeError("no")

    monkeypatch.setattr(launching, "kernels", lambda: SimpleNamespace(some_kernel=Kernel()))
    monkeypatch.setattr(launching, "_compiled", set())
    with pytest.raises(RuntimeError):
        launching.launch("some_kernel", 1, torch.zeros(4))
    assert launching._compiled == set()


def test_padding_by_a_tensor_needs_nobody_to_wait(monkeypatch):
    with pretending(monkeypatch) as waits:
        fill = torch.full((), 77, dtype=torch.int32, device=DEVICE)
        border = triton_gather.border_of(fill, 5, DEVICE)
        padded = Geometry(padding=(1, 2)).pad(torch.zeros((1, 1, 2, 2), dtype=torch.uint8, device=DEVICE), fill)
    assert waits == []
    assert border.held.tolist() == [77] * 5 and border.dtype == torch.uint8
    assert padded.held.sum().item() == 77 * (4 * 6 - 4) and padded.dtype == torch.uint8


def test_the_first_batch_of_an_evaluation_is_watched(monkeypatch):
    """Kernels for evaluation come up after the training's first steps."""
    watched, sizes = [], []

    def watch(batches, device):
        watched.append(device)
        yield from batches

    monkeypatch.setattr(loop, "first_step_watched", watch)
    monkeypatch.setattr(loop, "_evaluated", set())
    problem = tiny.problem("random")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    for batch in (len(problem.data.validation), 8, 8):
        loop._accuracy(network, problem.data.validation, batch)
        sizes.append(len(watched))
    assert sizes == [0, 1, 1]  # nothing to compare one batch with; once is enough
