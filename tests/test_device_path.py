"""The code for GPUs, on a device that is pretended: the CPU's results, nobody waits, and fp32 is fp32."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evaluation.searching.problem import SearchProblem
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.loop import Schedule, Training
from methods import METHODS, relaxations
from spaces.arithmetic import emulate, precision
from spaces.arithmetic.engines import float32
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.arithmetic.quantise import quantise, weight_codes
from spaces.arithmetic.running_scales import RunningMaximum, RunningRange
from spaces.cells.network import HalvesPool
from spaces.multipliers import catalogue
from spaces.multipliers.products import operand_table
from tests import tiny
from tests.convolutions import FULL_RANK, LIBRARY, ROUGH, UNSIGNED, ZERO_ROW
from tests.pretend import DEVICE, on_host, pretending

UNSIGNED_ROUGH = catalogue.get("mitchell8u")
LAYERS = {
    "stem": ((3, 8, 3), {"padding": 1}),
    "pointwise": ((8, 16, 1), {}),
    "strided": ((8, 8, 3), {"padding": 1, "stride": 2}),
    "depthwise": ((8, 8, 3), {"padding": 1, "groups": 8}),
    "depthwise dilated": ((8, 8, 5), {"padding": 4, "dilation": 2, "groups": 8}),
    "grouped": ((8, 12, 3), {"padding": 1, "groups": 2, "bias": False}),
}
MULTIPLIERS = {"exact": LIBRARY[0], "rough": ROUGH, "zero row": ZERO_ROW, "full rank": FULL_RANK, "unsigned": UNSIGNED}


@pytest.fixture
def tf32():
    """TF32 is allowed for convolutions, as it is wherever nobody said otherwise."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def images(channels: int, seed: int = 0) -> Tensor:
    x = torch.randn((4, channels, 8, 8), generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def compare(layer: torch.nn.Module, x: Tensor, monkeypatch, close: float = 1e-5) -> Tensor:
    """Two training passes and one in evaluation on both devices: outputs, gradients, state; the second one waits for nothing.

    Returns the last output on the device.
    """
    other = copy.deepcopy(layer)
    with pretending(monkeypatch) as waits:
        other.to(DEVICE)
        for number in range(2):
            mine, theirs = x.clone().requires_grad_(), x.to(DEVICE).requires_grad_()
            waits.clear()
            y, z = layer(mine), other(theirs)
            y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
            z.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(DEVICE))
            if number:
                del waits[-1]  # that of the line above
                assert waits == []
            assert torch.equal(on_host(z), y.detach())
            near(theirs.grad, mine.grad, close)
            for a, b in zip(other.parameters(), layer.parameters()):
                near(a.grad, b.grad, close * 8)
        for name, value in layer.state_dict().items():
            assert torch.equal(on_host(other.state_dict()[name]), value), name
        assert torch.equal(on_host(other.eval()(x.to(DEVICE))), layer.eval()(x).detach())
    return z


def near(found: Tensor, expected: Tensor, share: float) -> None:
    """A small difference of large terms has their rounding."""
    assert (on_host(found) - expected).abs().max() <= share * expected.abs().max().clamp_min(1)


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("multiplier", MULTIPLIERS)
def test_layers_compute_the_same_and_wait_for_nothing(multiplier, shape, monkeypatch):
    sizes, moves = LAYERS[shape]
    layer = ApproxConv2d(*sizes, multiplier=MULTIPLIERS[multiplier], **moves).to(memory_format=torch.channels_last)
    assert precision.tf32_allowed()
    y = compare(layer, images(sizes[0]), monkeypatch)
    if multiplier != "full rank":  # which only the reference computes there
        assert y.is_contiguous(memory_format=torch.channels_last)
    assert precision.tf32_allowed()  # nobody else's setting was changed


@pytest.mark.parametrize("gradient", ["slope", "difference"])
@pytest.mark.parametrize("table", ["rough", "unsigned"])
def test_other_gradients_and_compensated_biases_wait_for_nothing(table, gradient, monkeypatch):
    multiplier = UNSIGNED_ROUGH if table == "unsigned" else ROUGH
    layer = ApproxConv2d(3, 4, 3, padding=1, multiplier=multiplier, gradient=gradient, compensate_bias=True)
    compare(layer, images(3), monkeypatch, close=1e-4)


@pytest.mark.parametrize("multiplier", [ROUGH, UNSIGNED_ROUGH], ids=["signed", "unsigned"])
def test_linear_layers_too(multiplier, monkeypatch):
    compare(ApproxLinear(12, 5, multiplier=multiplier), torch.randn(7, 12), monkeypatch)


class _Mixture(torch.nn.Module):
    """A mixture with its probabilities as a parameter."""

    def __init__(self, library: tuple, *sizes: int, **moves: int) -> None:
        super().__init__()
        self.choice = MultiplierChoice(library)
        self.beta = torch.nn.Parameter(torch.linspace(-1, 1, len(library)))
        self.conv = MultiplierMixture(*sizes, choice=self.choice, **moves)

    def forward(self, x: Tensor) -> Tensor:
        self.choice.set(self.beta.softmax(-1))
        return self.conv(x)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize(
    "library", [LIBRARY, (ZERO_ROW, ROUGH), (UNSIGNED, UNSIGNED_ROUGH)], ids=["13", "zero", "unsigned"]
)
def test_mixtures_wait_for_nothing_and_are_channels_last(library, shape, monkeypatch):
    """Real-valued tables: the order of additions differs, so that outputs are close and not equal."""
    sizes, moves = LAYERS[shape]
    layer = _Mixture(library, *sizes, **moves).to(memory_format=torch.channels_last)
    other, x = copy.deepcopy(layer), images(sizes[0])
    with pretending(monkeypatch) as waits:
        other.to(DEVICE)
        for _ in range(2):
            mine, theirs, pull = x.clone().requires_grad_(), x.to(DEVICE).requires_grad_(), torch.tensor(0.5).to(DEVICE)
            waits.clear()
            y, z = layer(mine), other(theirs)
            ((y * 0.5) ** 2).sum().backward()
            ((z * pull) ** 2).sum().backward()
        assert waits == []
    near(z, y.detach(), 2e-5)
    near(theirs.grad, mine.grad, 1e-4)
    near(other.beta.grad, layer.beta.grad, 5e-4)
    near(other.conv.weight.grad, layer.conv.weight.grad, 1e-4)
    assert z.is_contiguous(memory_format=torch.channels_last)


# -- codes -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(2**-10, 2**10, width=32), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=40)
@pytest.mark.parametrize("kind", [RunningMaximum, RunningRange])
def test_scales_and_codes_are_those_of_the_cpu(kind, sizes, seed):
    """Running averages included: an average that is rounded otherwise once is so for ever."""
    batches = [images(2, seed + number) * size for number, size in enumerate(sizes)]
    mine, theirs = kind(), kind()
    with pytest.MonkeyPatch.context() as patch, pretending(patch):
        theirs.to(DEVICE)
        for x in batches:
            there = x.to(DEVICE)
            scale, other = mine(x), theirs(there)
            assert torch.equal(on_host(other.step), scale.step)
            codes, others = quantise(x, scale), quantise(there, other)
            assert torch.equal(on_host(others.index), codes.index)
        index, step = weight_codes(batches[0])
        there_index, there_step = weight_codes(batches[0].to(DEVICE))
        assert torch.equal(on_host(there_index), index) and torch.equal(on_host(there_step), step)


def test_images_are_normalised_as_on_the_cpu(monkeypatch):
    data = tiny.dataset().train
    here = DeviceImages(data, *channel_statistics(data), torch.device("cpu"))
    expected = torch.cat([batch for batch, _ in here.in_order()])
    with pretending(monkeypatch):
        there = DeviceImages(data, *channel_statistics(data), DEVICE)
        assert torch.equal(torch.cat([on_host(batch) for batch, _ in there.in_order()]), expected)


# -- fp32 --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tf32")
def test_the_pretended_device_computes_in_tf32_unless_told_otherwise(monkeypatch):
    """What the other tests rely on: rounded factors do show."""
    x, w = torch.full((1, 1, 1, 1), 4097.0), torch.ones(1, 1, 1, 1)
    with pretending(monkeypatch):
        assert on_host(torch.nn.functional.conv2d(x.to(DEVICE), w.to(DEVICE))).item() == 4096
        assert on_host(Geometry().conv2d(x.to(DEVICE), w.to(DEVICE))).item() == 4097


@pytest.mark.usefixtures("tf32")
def test_plain_fp32_gives_back_what_it_found():
    for allowed in (True, False):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
        with pytest.raises(KeyError), precision.plain_fp32(torch.device("cuda")):
            assert not precision.tf32_allowed()
            raise KeyError
        assert precision.tf32_allowed() is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed and torch.backends.cuda.matmul.allow_tf32 is allowed


@pytest.mark.usefixtures("tf32")
def test_a_run_computes_in_fp32():
    """Whatever was allowed before, by whichever of torch's settings."""
    from evaluation.training.device import choose_device

    general = [torch.backends, torch.backends.cudnn] if hasattr(torch.backends, "fp32_precision") else []
    for place in (None, *general):
        if place is not None:
            place.fp32_precision = "tf32"
        assert precision.tf32_allowed()
        choose_device("cpu")
        assert not precision.tf32_allowed()
        assert torch.backends.cudnn.allow_tf32 is False  # can be read
        torch.backends.cudnn.allow_tf32 = True


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="torch before 2.9 has no such setting")
def test_a_cpu_that_was_told_to_compute_in_bf16_computes_in_fp32_here():
    setting = torch.backends.mkldnn.conv
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        with precision.plain_fp32(torch.device("cpu")):
            assert setting.fp32_precision == "ieee"
        assert setting.fp32_precision == "bf16"
    finally:
        setting.fp32_precision = before


def winograd(x: Tensor, w: Tensor) -> Tensor:
    """A 3×3 convolution with a padding of 1 by F(2×2, 3×3) of Lavin and Gray (arXiv 1509.09308), in fp32."""
    before = torch.tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=torch.float32)
    kernel = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    after = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
    held, device = on_host(x), x.device
    height, width = held.shape[2:]
    padded = torch.nn.functional.pad(held, (1, 2, 1, 2))
    tiles = padded.unfold(2, 4, 2).unfold(3, 4, 2)  # (N, C, rows, columns, 4, 4)
    products = torch.einsum("ncrsij,ocij->norsij", before @ tiles @ before.T, kernel @ on_host(w) @ kernel.T)
    sums = (after @ products @ after.T).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)
    return sums[:, :, :height, :width].contiguous().to(device)


def test_winograds_sums_are_those_of_a_convolution_but_for_rounding():
    x, w = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3)
    assert torch.allclose(winograd(x, w), torch.nn.functional.conv2d(x, w, padding=1), atol=1e-5)


def test_an_algorithm_that_rounds_is_found_by_its_shape(monkeypatch):
    """Winograd and Fourier would: sums that are off by little must not be taken for sums."""
    real, geometry = Geometry.conv2d, Geometry(padding=(1, 1))

    def rounding(g: Geometry, x: Tensor, w: Tensor) -> Tensor:
        return winograd(x, w) if w.dtype == torch.float32 and g == geometry else real(g, x, w)

    monkeypatch.setattr(Geometry, "conv2d", rounding)
    float32._tried.cache_clear()
    table = operand_table(ROUGH)
    x = torch.randint(0, 256, (2, 4, 5, 5), dtype=torch.uint8)
    w = torch.randint(0, 256, (3, 4, 3, 3), dtype=torch.uint8)
    expected = emulate.ENGINES["reference"].conv2d(x, emulate.ENGINES["reference"].pack(w, table, geometry), 128)
    with pretending(monkeypatch), pytest.warns(UserWarning, match="not exact for input"):
        got = float32.conv2d(x.to(DEVICE), float32.pack(w.to(DEVICE), table, geometry), 128)
        assert float32._computes(x.shape, w.shape, torch.float32, Geometry(), DEVICE)
    float32._tried.cache_clear()
    assert torch.equal(on_host(got).long(), expected)


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relaxation", "order"),
    [("gumbel", 2), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("softmax", "gumbel"))],
)
def test_a_step_of_the_supernet_waits_for_nothing(relaxation, order, monkeypatch):
    """Inside the loop over batches; what an epoch reads at its end is counted apart."""
    monkeypatch.setattr(relaxations.Sample, "on_host", lambda sample: on_host(sample._seen))
    config = tiny.run_config("approxdarts")
    with pretending(monkeypatch) as waits:
        problem = SearchProblem(config, tiny.dataset(), DEVICE, tiny.library(config))
        cls = METHODS["approxdarts"]
        settings = {**config.method_config, "order": order, "relaxation": relaxation, "warmup": 0}
        method = cls(problem, cls.Config(**settings))
        method.step()
        waits.clear()
        report, inside = type(method)._report, []
        monkeypatch.setattr(cls, "_report", lambda *args: inside.extend(waits) or report(*args))
        method.step()
    assert [line for line in inside if "self._sums" not in line] == []  # the loss of the epoch
    assert len(inside) == 1


@pytest.mark.parametrize("multipliers", [("mul8s_1KV8", "mul8s_1L2H"), ("mitchell8u", "kulkarni8u")], ids="su")
def test_a_training_step_waits_for_nothing(multipliers, monkeypatch):
    config = tiny.run_config("random", multipliers=multipliers, cost="horowitz45")
    library = tuple(
        dataclasses.replace(catalogue.get(name), power_mw=0.3) if name.endswith("8u") else catalogue.get(name)
        for name in multipliers
    )
    sgd = torch.optim.SGD  # fused where there is a kernel for it
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, fused, **more: sgd(*args, **more))  # noqa: ARG005
    with pretending(monkeypatch) as waits:
        problem = SearchProblem(config, tiny.dataset(), DEVICE, library)
        architecture = problem.space.sample(np.random.default_rng(0))
        network = problem.space.build(architecture, dataclasses.replace(problem.shape, auxiliary=True))
        training = Training(network, problem.data.training, Schedule.final(config.protocol), problem.generator)
        training.run_epoch()
        waits.clear()
        training.run_epoch()
    assert len(waits) == 1 and "mean = float" in waits[0]


def test_samples_drawn_ahead_are_the_same_after_a_stop():
    """A pass ahead inside an epoch, and not beyond it: a checkpoint need not hold any."""
    states = []
    for stops in (False, True):
        problem = tiny.problem("approxdarts")
        cls = METHODS["approxdarts"]
        config = cls.Config(**problem.config.method_config)
        method = cls(problem, config)
        method.relaxation.ahead = True
        method.step()
        if stops:
            kept, generators = copy.deepcopy(method.state_dict()), problem.state_dict()
            problem = tiny.problem("approxdarts")
            method = cls(problem, config)
            method.relaxation.ahead = True
            method.load_state_dict(kept)
            problem.load_state_dict(generators)
        method.step()
        states.append(method.logits["alpha"].detach().clone())
    assert torch.equal(*states)


@pytest.mark.parametrize("height", range(1, 8))
@pytest.mark.parametrize("width", range(1, 8))
def test_the_auxiliary_heads_pooling_is_the_adaptive_one(height, width):
    """Whose gradient has no deterministic form on CUDA."""
    x = torch.randn((2, 3, height, width), requires_grad=True)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 2)
    assert torch.allclose(HalvesPool()(x), expected, atol=1e-6)
    mine, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (HalvesPool()(x), expected))
    assert torch.allclose(mine, theirs, atol=1e-6)
