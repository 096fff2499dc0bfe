"""How fast emulated layers are beside the ordinary convolution: tox -e bench. Compare within one run only."""

import numpy as np
import pytest
import torch
from torch import nn

from spaces.arithmetic import emulate
from spaces.arithmetic.engines import threads
from spaces.arithmetic.engines.cpu import gather, gather_loops, tables
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.gradient_precision import used
from spaces.arithmetic.layers import ApproxConv2d
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import operand_table
from tests.benchmarks.conftest import FP32

# Inputs, outputs, kernel, dilation, groups; on maps of 32×32.
SHAPES = {
    "1×1 64→64": (64, 64, 1, 1, 1),
    "3×3 64→64": (64, 64, 3, 1, 1),
    "5×5 dilated 32→32": (32, 32, 5, 2, 1),
    "3×3 depthwise 64": (64, 64, 3, 1, 64),
    "5×5 depthwise 64": (64, 64, 5, 1, 64),
    "5×5 depthwise dilated 64": (64, 64, 5, 2, 64),
    "stem 3×3 3→48": (3, 48, 3, 1, 1),
}
DENSE = ("1×1 64→64", "3×3 64→64", "5×5 dilated 32→32")
PRECISIONS = ("fp32", "bf16")  # of gradients
RANDOM = Multiplier(name="random", signed=True, table=np.random.default_rng(0).integers(-16000, 16000, (256, 256)))
# By the rank of their error matrix; a random table has the full rank.
MULTIPLIERS = {"rank 0": "mul8s_1KV8", "rank 1": "mul8s_1KTY", "rank 4": "mul8s_1KX2", "rank 10": "comp42_8u_4"}
MULTIPLIERS |= {"rank 18": "comp42_8u_5", "rank 256": RANDOM}


def layer(multiplier: str | Multiplier, shape: str) -> nn.Conv2d:
    inputs, outputs, kernel, dilation, groups = SHAPES[shape]
    keywords = {"padding": dilation * (kernel // 2), "dilation": dilation, "groups": groups, "bias": False}
    if multiplier == FP32:
        made = nn.Conv2d(inputs, outputs, kernel, **keywords)
    elif multiplier == "mixture of 13":
        choice = MultiplierChoice([catalogue.get(name) for name in catalogue.names()])
        choice.set(torch.full((13,), 1 / 13))
        made = MultiplierMixture(inputs, outputs, kernel, choice=choice, **keywords)
    else:
        multiplier = catalogue.get(multiplier) if isinstance(multiplier, str) else multiplier
        made = ApproxConv2d(inputs, outputs, kernel, multiplier=multiplier, **keywords)
    return made.to(memory_format=torch.channels_last)


def run(benchmark, function) -> None:
    function()
    benchmark.pedantic(function, rounds=9, warmup_rounds=2)


@pytest.fixture
def prepare(benchmark):
    def prepare(what: str, name: str, multiplier: str | Multiplier, shape: str, batch: int, engine: str = "auto"):
        emulate.use_engine(engine)
        conv = layer(multiplier, shape)
        x = torch.randn(batch, conv.in_channels, 32, 32).contiguous(memory_format=torch.channels_last)
        conv(x)
        benchmark.group, benchmark.extra_info["circuit"] = f"{what} {shape}, batch {batch}", name
        return conv, x

    yield prepare
    emulate.use_engine("auto")


@pytest.mark.parametrize("name", [FP32, *MULTIPLIERS])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(benchmark, prepare, shape, batch, name):
    conv, x = prepare("forward", name, MULTIPLIERS.get(name, name), shape, batch)
    conv.eval()
    with torch.no_grad():
        run(benchmark, lambda: conv(x))


def run_step(benchmark, conv, x, precision: str) -> None:
    """Forward in training, and backward for input and weight, with gradients in this precision."""
    x.requires_grad_()
    grad = torch.randn_like(conv(x))
    with used(precision, x.device):
        run(benchmark, lambda: torch.autograd.grad(conv(x), (x, conv.weight), grad))


@pytest.mark.parametrize("name", [FP32, *MULTIPLIERS, "mixture of 13"])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_forward_and_backward(benchmark, prepare, precision, shape, batch, name):
    if name == "rank 256" and batch == 64 and "depthwise" not in shape:
        pytest.skip("takes long and tells nothing beyond the forward pass")
    conv, x = prepare(f"step, {precision},", name, MULTIPLIERS.get(name, name), shape, batch)
    run_step(benchmark, conv, x, precision)


@pytest.mark.parametrize("name", [FP32, *catalogue.names()])
@pytest.mark.parametrize("shape", DENSE)
def test_forward_of_published_multipliers(benchmark, prepare, shape, name):
    conv, x = prepare("published, forward", name, name, shape, 64)
    conv.eval()
    with torch.no_grad():
        run(benchmark, lambda: conv(x))


@pytest.mark.parametrize("name", [FP32, *catalogue.names()])
@pytest.mark.parametrize("shape", DENSE)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_step_of_published_multipliers(benchmark, prepare, precision, shape, name):
    conv, x = prepare(f"published, step, {precision},", name, name, shape, 64)
    run_step(benchmark, conv, x, precision)


@pytest.mark.parametrize("name", [FP32, "mul8s_1KVL", "mitchell8u"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "depthwise" in shape])
@pytest.mark.parametrize("what", ["forward", "step"])
@pytest.mark.parametrize("permutes", [True, False])
def test_depthwise_layers_with_and_without_permutes(benchmark, prepare, monkeypatch, permutes, what, shape, name):
    monkeypatch.setattr(tables, "PERMUTES", tables.PERMUTES and permutes)
    conv, x = prepare(
        f"depthwise {what}, permutes: {permutes},", name, name, shape, 64, "gather" if name != FP32 else "auto"
    )
    if what == "forward":
        conv.eval()
        with torch.no_grad():
            run(benchmark, lambda: conv(x))
    else:
        x.requires_grad_()
        grad = torch.randn_like(conv(x))
        run(benchmark, lambda: torch.autograd.grad(conv(x), (x, conv.weight), grad))


@pytest.mark.parametrize("name", [FP32, "rank 0", "rank 1", "rank 4"])
@pytest.mark.parametrize("shape", ["1×1 64→64", "3×3 64→64"])
@pytest.mark.parametrize("what", ["forward", "step"])
def test_float32_engine(benchmark, prepare, shape, what, name):
    conv, x = prepare(f"float32 engine, {what}", name, MULTIPLIERS.get(name, name), shape, 64, "float32")
    if what == "step":
        run_step(benchmark, conv, x, "fp32")
        return
    conv.eval()
    with torch.no_grad():
        run(benchmark, lambda: conv(x))


@pytest.mark.parametrize("how", ["rows", "scalar loop", "torch indexing"])
def test_look_ups(benchmark, how):
    """8 maps of 64×32×32, 64 3×3 filters, a random table: 302 million look-ups."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (8, 64, 34, 34), generator=generator, dtype=torch.uint8)
    w = torch.randint(0, 256, (64, 64, 3, 3), generator=generator, dtype=torch.uint8)
    table, geometry = operand_table(RANDOM), Geometry()
    packed = gather.pack(w, table, geometry)
    benchmark.group = "look-ups"
    if how == "rows":
        run(benchmark, lambda: gather.conv2d(x, packed, 0))
    elif how == "scalar loop":
        base, offset = gather._positions((8, 34, 34, 64), (32, 32), (3, 3), geometry)
        flat = x.permute(0, 2, 3, 1).contiguous()
        out = np.empty((base.size, 64), np.int32)
        layer = gather_loops.Layer(base.size, len(offset), 64, 64, 512, packed.table.itemsize, inner=64)
        arrays = (base, offset, packed.table, packed.weights, out)
        arguments = (flat.data_ptr(), *(array.ctypes.data for array in arrays), layer)
        tasks = -(-base.size // layer.chunk)
        benchmark.pedantic(
            lambda: threads.share(gather_loops.gather_products, arguments, tasks, out.size), rounds=3, warmup_rounds=1
        )
    else:
        columns = torch.nn.functional.unfold(x[:1].float(), 3).int()[0]  # one image is enough: it takes long
        entries = torch.tensor(table.table)
        weights = w.flatten(1).int()
        benchmark.extra_info["images"] = 1
        benchmark.pedantic(lambda: [entries[columns, row[:, None]].sum(dim=0) for row in weights], rounds=3)
