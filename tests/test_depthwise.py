"""Our own loops over depthwise convolutions, beside float64 convolutions of values that are looked up, and the definition."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic import depthwise as mixtures
from spaces.arithmetic.engines import threads
from spaces.arithmetic.engines.cpu import depthwise_convolution as depthwise
from spaces.arithmetic.engines.cpu import (
    depthwise_gather,
    depthwise_int8,
    depthwise_loops,
    depthwise_products,
    int8,
    tables,
)
from spaces.arithmetic.engines.cpu.tables import Tables
from spaces.arithmetic.engines.examples import sums_by_definition
from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import layer_table, operand_table
from tests.convolutions import ZERO_ROW

FILL = 77


def in_blocks(by_weight: Tensor) -> Tensor:
    """(C, R, kH, kW) → (blocks, kH, R, kW, 16): what sixteen channels want at a time."""
    padded = F.pad(by_weight, (0, 0, 0, 0, 0, 0, 0, -len(by_weight) % 16))
    return padded.unflatten(0, (-1, 16)).permute(0, 3, 2, 4, 1).contiguous()


@dataclass(frozen=True)
class Case:
    """A layer: images, channels, height, width; kernel, stride, padding, dilation; the rank of its table."""

    size: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    rank: int = 2

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.stride, self.padding, self.dilation, self.size[1])


CASES = {
    "3×3": Case((2, 16, 8, 8), (3, 3), padding=(1, 1), rank=3),
    "more images than one task has": Case((17, 3, 4, 5), (3, 3), padding=(1, 1)),
    "two blocks of channels": Case((1, 32, 9, 11), (5, 5), padding=(2, 2), rank=6),
    "a block and one channel": Case((2, 17, 7, 5), (3, 3), (2, 2), (1, 1)),
    "5×5 dilated": Case((1, 20, 9, 7), (5, 5), padding=(4, 4), dilation=(2, 2), rank=5),
    "5×5 dilated and strided": Case((1, 5, 11, 13), (5, 5), (2, 2), (4, 4), (2, 2)),
    "all unlike": Case((2, 6, 13, 10), (2, 3), (3, 2), (1, 2), (1, 3), 1),
    "a map smaller than the kernel": Case((1, 2, 2, 2), (5, 5), padding=(4, 4), dilation=(2, 2)),
    "padding beyond the kernel": Case((1, 3, 4, 5), (3, 2), padding=(3, 4)),
    "padding beyond the kernel, strided": Case((1, 3, 6, 7), (2, 2), (3, 2), (4, 5)),
    "pixels that no window sees": Case((1, 4, 10, 10), (3, 3), (4, 4)),
    "1×1": Case((2, 18, 3, 3), (1, 1), rank=9),
    "one row": Case((1, 16, 1, 40), (1, 7), padding=(0, 3)),
}
CASES |= {
    f"{columns} columns, stride {along}, dilation {gap}": Case(
        (2, 19, 6, 21), (3, columns), (1, along), (1, 2), (1, gap), 3
    )
    for columns, along, gap in depthwise_products.WINDOWS
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(params=[True, False], ids=["by permutes", "without them"], autouse=True)
def permutes(request, monkeypatch) -> bool:
    if request.param and not tables.PERMUTES:
        pytest.skip("needs AVX-512 VBMI")
    monkeypatch.setattr(tables, "PERMUTES", request.param)
    return request.param


def operands(case: Case, halves: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of activations, and the table's factors u (R, 256) and v_r(ŵ) (C, R, kH, kW).

    With ``halves``, u is a sum over the code's upper four bits and its lower four.
    """
    index = torch.randint(0, 256, case.size, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    u = torch.randn(case.rank, 256)
    if halves:
        u = (torch.randn(case.rank, 16, 1) + torch.randn(case.rank, 1, 16)).flatten(1)
    return index, u, torch.randn(case.size[1], case.rank, *case.kernel)


def features(index: Tensor, u: Tensor, case: Case) -> Tensor:
    """u_r(x̂) (R, N, C, H, W) float64, padding included."""
    (top, left) = case.padding
    return u.double()[:, F.pad(index, (left, left, top, top), value=FILL).int()]


def convolved(values: Tensor, weight: Tensor, case: Case) -> Tensor:
    return F.conv2d(values, weight.double()[:, None], None, case.stride, 0, case.dilation, case.size[1])


def close(got: Tensor, expected: Tensor) -> bool:
    assert got.dtype == torch.float32 and got.shape == expected.shape
    return bool((got.double() - expected).abs().max() <= 2e-6 * expected.abs().max())


@pytest.mark.parametrize("halves", [False, True])
def test_sums(case, halves):
    index, u, by_weight = operands(case, halves)
    if tables.PERMUTES:
        assert Tables(u).how == (depthwise_loops.BY_HALVES if halves else depthwise_loops.BY_BYTES)
    scale, constant = torch.rand(case.size[1]) + 1, torch.randn(case.size[1])
    sums = sum(convolved(*pair, case) for pair in zip(features(index, u, case), by_weight.unbind(1)))
    got = depthwise.convolve(index, Tables(u), in_blocks(by_weight), case.geometry, FILL, scale, constant)
    assert close(got, sums * scale.view(1, -1, 1, 1) + constant.view(1, -1, 1, 1))
    assert close(depthwise.convolve(index.contiguous(), Tables(u), in_blocks(by_weight), case.geometry, FILL), sums)


@pytest.mark.parametrize("halves", [False, True])
def test_gradients(case, halves):
    index, u, by_weight = operands(case, halves)
    size = case.geometry.output_size(case.size[2:], case.kernel)
    grad = torch.randn(*case.size[:2], *size)
    x = torch.zeros(case.size, dtype=torch.float64, requires_grad=True)
    (top, left), weight = case.padding, by_weight[:, 0]
    y = convolved(F.pad(x, (left, left, top, top)), weight, case)
    (expected,) = torch.autograd.grad(y, x, grad.double())
    got = depthwise.input_gradient(grad, in_blocks(weight.flip(1, 2)[:, None]), case.size, case.geometry)
    assert got.shape == expected.shape and (got - expected).abs().max() <= 2e-6 * max(1.0, expected.abs().max())
    weights = torch.zeros(by_weight.shape, dtype=torch.float64, requires_grad=True)
    sums = sum(convolved(*pair, case) for pair in zip(features(index, u, case), weights.unbind(1)))
    (expected,) = torch.autograd.grad(sums, weights, grad.double())
    assert close(depthwise.weight_gradient(index, Tables(u), grad, case.kernel, case.geometry, FILL), expected)


@pytest.mark.parametrize("columns", [3, 256], ids=["a few columns", "sums by code"])
@pytest.mark.parametrize("name", ["3×3", "5×5 dilated", "a map smaller than the kernel", "many pixels"])
def test_the_gradient_of_a_table_is_that_in_its_span(name, columns):
    case = Case((2, 3, 25, 26), (3, 3), padding=(1, 1)) if name == "many pixels" else CASES[name]
    index, u, by_weight = operands(case)
    span = torch.linalg.qr(torch.randn(256, columns))[0]
    table = u.double().requires_grad_()
    (top, left) = case.padding
    values = table[:, F.pad(index, (left, left, top, top), value=FILL).int()]
    y = sum(convolved(*pair, case) for pair in zip(values, by_weight.unbind(1)))
    grad = torch.randn(y.shape)
    (expected,) = torch.autograd.grad(y, table, grad.double())
    got = mixtures.table_gradient(index, grad, by_weight, case.geometry, FILL, span, True)
    assert close(got @ span @ span.t(), expected @ span.double() @ span.double().t())


# -- look-ups ----------------------------------------------------------------------------------------------------------

WIDE = Multiplier(  # of which a column spans more than 16 bits
    name="wide", signed=False, table=np.random.default_rng(2).integers(-(10**6), 10**6, (256, 256))
)
TABLES = {
    "Mitchell, in a layer": layer_table(catalogue.get("mitchell8u")),
    "signed": operand_table(catalogue.get("mul8s_1KX2")),
    "something for a zero": operand_table(ZERO_ROW),
    "more than 16 bits": operand_table(WIDE),
}


@pytest.mark.parametrize("table", TABLES)
def test_products_that_are_looked_up(case, table):
    products = TABLES[table]
    index = torch.randint(0, 256, case.size, dtype=torch.uint8)
    w_index = torch.randint(0, 256, (case.size[1], 1, *case.kernel), dtype=torch.uint8)
    expected = sums_by_definition(index.numpy(), w_index.numpy(), products.table, case.geometry, FILL)
    packed, scale = depthwise_gather.pack(w_index, products, case.geometry), torch.rand(case.size[1]) + 1
    assert packed.permutes == (tables.PERMUTES and table != "more than 16 bits")
    sums = depthwise_gather.conv2d(index, packed, FILL)
    assert sums.dtype == torch.int32 and np.array_equal(sums.numpy(), expected)
    scaled = depthwise_gather.conv2d(index, packed, FILL, scale)
    assert np.array_equal(scaled.numpy(), expected.astype(np.float32) * scale.view(-1, 1, 1).numpy())


def test_byte_factors_in_words(case):
    """Five features and eleven, so that bytes of a word are left over; the latter with a constant."""
    if not depthwise.DOT_PRODUCTS:
        pytest.skip("needs AVX-512 VNNI")
    for name in ("mul8s_1KX2", "comp42_8u_4"):
        table = layer_table(catalogue.get(name))
        index = torch.randint(0, 256, case.size, dtype=torch.uint8)
        w_index = torch.randint(0, 256, (case.size[1], 1, *case.kernel), dtype=torch.uint8)
        expected = sums_by_definition(index.numpy(), w_index.numpy(), table.table, case.geometry, FILL)
        assert depthwise_int8.suits(tuple(w_index.shape), table, case.geometry)
        packed, scale = depthwise_int8.pack(w_index, table, case.geometry), torch.rand(case.size[1]) + 1
        assert np.array_equal(depthwise_int8.conv2d(index, packed, FILL, None).numpy(), expected)
        scaled = depthwise_int8.conv2d(index, packed, FILL, scale)
        assert np.array_equal(scaled.numpy(), expected.astype(np.float32) * scale.view(-1, 1, 1).numpy())


def test_without_dot_products_the_library_computes_byte_factors(monkeypatch):
    table, geometry = layer_table(catalogue.get("mul8s_1KX2")), Geometry(padding=(1, 1), groups=16)
    if int8.refusal(table, torch.device("cpu")):
        pytest.skip("needs 8-bit matrix units")
    index, w_index = (torch.randint(0, 256, shape, dtype=torch.uint8) for shape in ((1, 16, 5, 6), (16, 1, 3, 3)))
    expected = int8.conv2d(index, int8.pack(w_index, table, geometry), FILL)
    monkeypatch.setattr(depthwise, "DOT_PRODUCTS", False)
    packed = int8.pack(w_index, table, geometry)
    assert isinstance(packed, int8.Packed) and torch.equal(int8.conv2d(index, packed, FILL).int(), expected.int())


@pytest.mark.parametrize("kernel", [(16, 16), (1, 257), (17, 16)])
def test_as_many_extreme_products_as_16_bits_hold_and_more(kernel):
    geometry, table = Geometry(groups=2), TABLES["Mitchell, in a layer"]
    index = torch.full((1, 2, kernel[0] + 1, kernel[1] + 1), 255, dtype=torch.uint8)
    w_index = torch.full((2, 1, *kernel), 255, dtype=torch.uint8)
    expected = sums_by_definition(index.numpy(), w_index.numpy(), table.table, geometry, FILL)
    got = depthwise_gather.conv2d(index, depthwise_gather.pack(w_index, table, geometry), FILL)
    assert np.array_equal(got.numpy(), expected)


@pytest.mark.parametrize(("tasks", "count", "parts"), [(9, 3, 3), (2, 3, 2), (1, 3, 1), (9, 1, 1)])
def test_tasks_are_shared_so_that_each_is_done_once(monkeypatch, tasks, count, parts):
    monkeypatch.setattr(threads, "_processors", lambda: 8)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: count)
    done, waited = [], threading.Barrier(parts)  # each part is a thread's

    def run(name: str, begin: int, end: int) -> None:
        waited.wait(timeout=10)
        done.extend((name, task) for task in range(begin, end))

    threads.share(run, ("this",), tasks, threads.ENOUGH)
    assert sorted(done) == [("this", task) for task in range(tasks)]


def test_what_a_thread_raises_is_raised(monkeypatch):
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        threads.share(lambda begin, _: 1 / (begin - 1), (), 2, threads.ENOUGH)


def test_threads_do_not_change_anything():
    case, results = Case((33, 33, 15, 12), (5, 5), (1, 2), (2, 2), rank=3), []
    index, u, by_weight = operands(case)
    grad = torch.randn_like(depthwise.convolve(index, Tables(u), in_blocks(by_weight), case.geometry, FILL))
    w_index = torch.randint(0, 256, (case.size[1], 1, *case.kernel), dtype=torch.uint8)
    packed = depthwise_gather.pack(w_index, TABLES["signed"], case.geometry)
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            results.append(
                (
                    depthwise.convolve(index, Tables(u), in_blocks(by_weight), case.geometry, FILL),
                    depthwise.input_gradient(grad, in_blocks(by_weight[:, :1].flip(2, 3)), case.size, case.geometry),
                    depthwise.weight_gradient(index, Tables(u), grad, case.kernel, case.geometry, FILL),
                    depthwise_gather.conv2d(index, packed, FILL),
                )
            )
    finally:
        torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other))
