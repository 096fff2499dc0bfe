"""Kernels and graphs on a CUDA device, beside the reference there: pytest tests/gpu, or python -m tests.gpu.campaign.

Without a device all of it is skipped.
"""

import pytest
import torch

from evaluation.searching.problem import SearchProblem
from evaluation.training.loop import Schedule, Training
from methods import METHODS
from spaces import graphed_step
from spaces.arithmetic import emulate, quantise
from spaces.arithmetic.engines import reference, self_test
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import depthwise, mixture, normalised, quantisation, weights
from spaces.arithmetic.engines.gpu import factored as triton_factored
from spaces.arithmetic.engines.gpu import gather as triton_gather
from spaces.multipliers.products import ProductTable
from tests import tiny
from tests.kernel_cases import FACTORED, FILL, GATHERED, GEOMETRIES, INTERPRETED, operands

pytestmark = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs CUDA")

LARGE = {
    "dense": ((32, 64, 56, 56), 64, (3, 3), Geometry(padding=(1, 1))),
    "pointwise": ((32, 64, 56, 56), 256, (1, 1), Geometry()),
    "strided": ((8, 128, 28, 28), 200, (3, 3), Geometry((2, 2), (1, 1))),
    "dilated": ((8, 36, 32, 32), 72, (5, 5), Geometry(padding=(4, 4), dilation=(2, 2))),
    "stem": ((16, 3, 64, 64), 48, (3, 3), Geometry(padding=(1, 1))),
    "small groups": ((8, 96, 28, 28), 96, (3, 3), Geometry(padding=(1, 1), groups=12)),
    "grouped": ((8, 256, 14, 14), 256, (3, 3), Geometry(padding=(1, 1), groups=4)),
    "depthwise": ((32, 64, 56, 56), 64, (3, 3), Geometry(padding=(1, 1), groups=64)),
    "depthwise dilated": ((8, 36, 32, 32), 36, (5, 5), Geometry(padding=(4, 4), dilation=(2, 2), groups=36)),
    "tiny groups": ((8, 40, 32, 32), 60, (3, 3), Geometry(padding=(1, 1), groups=20)),
}
ON_DEVICE = [(triton_factored, table) for table in FACTORED] + [
    (triton_gather, table) for table in ("exact", "16 bits", "24 bits")
]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(("engine", "table"), ON_DEVICE)
def test_cuda_agrees_with_the_reference(engine, table, name):
    compare_with_the_reference(engine, GATHERED[table], GEOMETRIES[name])


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize(("engine", "table"), ON_DEVICE)
def test_cuda_agrees_with_the_reference_at_real_sizes(engine, table, name):
    compare_with_the_reference(engine, GATHERED[table], LARGE[name])


def compare_with_the_reference(engine, table: ProductTable, case: tuple) -> None:
    """All images by the engine, the first and the last by the reference; raw and scaled."""
    geometry = case[3]
    x, w = operands(*case, device="cuda")
    packed, scale = engine.pack(w, table, geometry), torch.rand(len(w), device="cuda") + 1e-3
    sums, scaled = engine.conv2d(x, packed, FILL), engine.conv2d(x, packed, FILL, scale)
    for image in {0, len(x) - 1}:
        expected = reference.conv2d(x[image : image + 1], reference.pack(w, table, geometry), FILL)
        wrapped = (expected + 2**31) % 2**32 - 2**31  # the largest of these sums would not be let through
        assert torch.equal(sums[image : image + 1].long(), wrapped)
        assert torch.equal(scaled[image : image + 1], wrapped.float() * scale.view(1, -1, 1, 1))


def test_cuda_takes_bytes_at_any_address():
    geometry = Geometry(padding=(1, 1))
    x, w = operands((4, 64, 16, 16), 32, (3, 3), geometry, device="cuda")
    for engine in (triton_factored, triton_gather):
        packed = engine.pack(w, FACTORED["four factors"], geometry)
        expected = engine.conv2d(x, packed, FILL)
        for shift in (1, 2, 4, 8):
            moved = torch.empty(x.numel() + shift, dtype=torch.uint8, device="cuda")[shift:]
            moved = moved.view(4, 16, 16, 64).permute(0, 3, 1, 2).copy_(x)
            assert torch.equal(engine.conv2d(moved, packed, FILL), expected)


@pytest.mark.parametrize("name", emulate.ENGINES)
def test_engines_pass_their_self_test(name):
    assert self_test.failure(name, emulate.ENGINES[name], torch.device("cuda")) == ""


@pytest.mark.parametrize("engine", [triton_factored, triton_gather])
def test_padding_may_be_told_by_a_tensor_on_the_device(engine):
    geometry = Geometry(padding=(1, 1))
    x, w = operands((2, 40, 5, 6), 24, (3, 3), geometry, device="cuda")
    packed = engine.pack(w, FACTORED["rough"], geometry)
    fill = torch.tensor(FILL, device="cuda")
    assert torch.equal(engine.conv2d(x, packed, fill), engine.conv2d(x, packed, FILL))


# -- around the sums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [depthwise, mixture, normalised, quantisation, weights])
def test_kernels_around_the_sums_work(kernels):
    assert kernels.works_on(torch.device("cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_are_those_of_torchs_operations(dtype):
    x = torch.randn((8, 64, 33, 31), device="cuda").mul_(3).to(dtype).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    for scale in (
        quantise.Scale.symmetric(torch.tensor(4.0, device="cuda")),
        quantise.Scale.affine(torch.tensor(-1.0, device="cuda"), torch.tensor(5.0, device="cuda")),
    ):
        found, expected = quantise.quantise(x, scale), quantise.codes_by_torch(x, scale)
        assert torch.equal(found.index, expected.index) and torch.equal(found.clamped, expected.clamped)
        assert found.scale.step.isnan() and expected.scale.step.isnan()


# -- graphs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def deterministic():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


def states(monkeypatch, run) -> list[dict]:
    """What ``run`` leaves without graphs, and with them, which must have been recorded."""
    found = []
    record = graphed_step.CudaRecorder.record
    for warm in (10**9, graphed_step.WARM):
        recorded: list[object] = []

        def counted(*arguments, recorded=recorded):
            recorded.append(record(*arguments))
            return recorded[-1]

        with monkeypatch.context() as patch:
            patch.setattr(graphed_step, "WARM", warm)
            patch.setattr(graphed_step.CudaRecorder, "record", counted)
            found.append(run())
        assert bool(recorded) is (warm == graphed_step.WARM) and None not in recorded
    return found


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("order", [1, 2])
def test_ten_steps_of_a_search_as_graphs_are_those_one_by_one(order, monkeypatch):
    def run() -> dict:
        config = tiny.run_config("approxdarts", device="cuda")
        problem = SearchProblem(config, tiny.dataset(), torch.device("cuda", 0), tiny.library(config))
        cls = METHODS["approxdarts"]
        settings = {**config.method_config, "relaxation": "softmax", "order": order, "warmup": 0, "epochs": 4}
        method = cls(problem, cls.Config(**settings))
        for _ in range(4):  # of three batches each
            method.step()
        return {**method.net.state_dict(), **method.logits}

    assert same(*states(monkeypatch, run))


@pytest.mark.usefixtures("deterministic")
def test_steps_of_training_as_graphs_are_those_one_by_one(monkeypatch):
    schedule = Schedule(3, 20, 0.1, 0.9, 1e-3, 1.0, auxiliary_weight=0.4, drop_path=0.3)

    def run() -> dict:
        config = tiny.run_config("random", device="cuda")
        device = torch.device("cuda", 0)
        problem = SearchProblem(config, tiny.dataset(), device, tiny.library(config))
        torch.manual_seed(0)
        network = problem.space.build(problem.space.sample(problem.rng), problem.shape)
        training = Training(network, problem.data.training, schedule, torch.Generator(device).manual_seed(0))
        losses = [training.run_epoch() for _ in range(3)]
        return {**network.state_dict(), "losses": torch.tensor(losses)}

    assert same(*states(monkeypatch, run))
