"""The Triton engines beside ordinary convolutions on a CUDA device: pytest tests/benchmarks --benchmark-only.

A round is a row of launches and a synchronisation at its end: "eager", as a network launches them, where Python may be
the slower part, and recorded as a "graph", which leaves the device's own time. The launches take turns at inputs,
because one that lies in the device's cache already would be read too fast.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import factored as triton_factored
from spaces.arithmetic.engines.gpu import gather as triton_gather
from spaces.multipliers import catalogue
from spaces.multipliers.products import operand_table

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

LAUNCHES, INPUTS = 40, 16  # as many inputs as exceed the cache of a large device
MODES = ("eager", "graph")
IMAGES = (32, 64, 56, 56)
SHAPES = {  # outputs, kernel, groups
    "3x3": (64, 3, 1),
    "1x1": (64, 1, 1),
    "depthwise": (64, 3, 64),
}
MULTIPLIERS = {1: "mul8s_1KV8", 2: "bam8s_0_0_1", 3: "mul8s_1KVA", 4: "mul8s_1KVB"}  # by the rank of their tables
FLOATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def time_rows(benchmark, shape: str, mode: str, inputs: list, convolve) -> None:
    """Times ``LAUNCHES`` calls of ``convolve`` per round, after one row that compiles and fills caches."""

    def row() -> None:
        for x in itertools.islice(itertools.cycle(inputs), LAUNCHES):
            convolve(x)

    row()
    torch.cuda.synchronize()
    if mode == "graph":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            row()
        replay = graph.replay
    else:
        replay = row
    benchmark.group = f"{shape}, {LAUNCHES} convolutions, {mode}"
    benchmark.pedantic(lambda: (replay(), torch.cuda.synchronize()), rounds=20, warmup_rounds=2)
    benchmark.extra_info["device"] = torch.cuda.get_device_name()
    if benchmark.stats:
        benchmark.extra_info["microseconds per convolution"] = round(benchmark.stats.stats.median / LAUNCHES * 1e6, 1)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_ordinary_convolution(benchmark, mode, shape, kind):
    outputs, kernel, groups = SHAPES[shape]
    held = {"device": "cuda", "dtype": FLOATS[kind]}
    inputs = [torch.randn(IMAGES, **held).contiguous(memory_format=torch.channels_last) for _ in range(INPUTS)]
    w = torch.randn(outputs, IMAGES[1] // groups, kernel, kernel, **held)
    w = w.contiguous(memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=kind == "tf32"):
        time_rows(benchmark, shape, mode, inputs, lambda x: F.conv2d(x, w, padding=kernel // 2, groups=groups))


@pytest.mark.parametrize("rank", MULTIPLIERS)
@pytest.mark.parametrize("engine", [triton_factored, triton_gather], ids=["factored", "gather"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_engine(benchmark, mode, shape, engine, rank):
    outputs, kernel, groups = SHAPES[shape]
    table, geometry = (
        operand_table(catalogue.get(MULTIPLIERS[rank])),
        Geometry(padding=(kernel // 2,) * 2, groups=groups),
    )
    held = {"device": "cuda", "dtype": torch.uint8}
    if reason := engine.refusal(table, torch.device("cuda")):
        pytest.skip(reason)
    inputs = [
        torch.randint(0, 256, IMAGES, **held).contiguous(memory_format=torch.channels_last) for _ in range(INPUTS)
    ]
    w = torch.randint(0, 256, (outputs, IMAGES[1] // groups, kernel, kernel), **held)
    packed, scale = engine.pack(w, table, geometry), torch.rand(outputs, device="cuda")
    time_rows(benchmark, shape, mode, inputs, lambda x: engine.conv2d(x, packed, 128, scale))
