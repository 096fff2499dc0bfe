"""The gradients of pointwise layers from codes, beside float64 products of matrices."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spaces.arithmetic.engines.cpu import pointwise_gradients as pointwise
from spaces.arithmetic.layers import ApproxConv2d
from spaces.arithmetic.quantise import weight_codes
from tests.convolutions import EXACT

LINE, VALUES = torch.arange(256.0) - 100, torch.linspace(-3, 5, 256)
GUARD = 64  # numbers beside a result


def operands(images: int, side: int, channels: int, outputs: int, clamps: bool = True) -> dict[str, Tensor | None]:
    size = (images, channels, side, side)
    clamped = (torch.rand(size) < 0.2).to(torch.uint8) if clamps else None
    return {
        "grad": torch.randn(images, outputs, side, side),
        "index": torch.randint(0, 256, size, dtype=torch.uint8),
        "step": torch.tensor(0.03),
        "line": LINE,
        "w_index": torch.randint(0, 256, (outputs, channels, 1, 1), dtype=torch.uint8),
        "w_scale": torch.rand(outputs) + 0.5,
        "values": VALUES,
        "clamped": clamped,
    }


def expected(of: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    grad, x = of["grad"].double(), of["step"].double() * LINE.double()[of["index"].int()]
    weights = VALUES.double()[of["w_index"][:, :, 0, 0].int()] * of["w_scale"].double()[:, None]
    grad_x = torch.einsum("nohw,oc->nchw", grad, weights)
    if of["clamped"] is not None:
        grad_x = grad_x.masked_fill(of["clamped"].bool(), 0.0)
    return grad_x, torch.einsum("nohw,nchw->oc", grad, x)[:, :, None, None]


def close(got: Tensor | None, wanted: Tensor) -> bool:
    assert got is not None and got.dtype == torch.float32 and got.shape == wanted.shape
    return bool((got - wanted).abs().max() <= 3e-6 * wanted.abs().max())


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 5), side=st.integers(1, 18), channels=st.integers(1, 40), outputs=st.integers(1, 40),
    clamps=st.booleans(), last=st.booleans(), most=st.sampled_from([1, 1 << 20]),
)  # fmt: skip
def test_both_are_those_of_float64(images, side, channels, outputs, clamps, last, most):
    """Maps may lie in either order; with room for the sums of few tasks, tasks are longer."""
    torch.manual_seed(images * side + channels)
    of = operands(images, side, channels, outputs, clamps)
    if last:
        of = {
            name: part.contiguous(memory_format=torch.channels_last) if part is not None and part.dim() == 4 else part
            for name, part in of.items()
        }
    before, pointwise._MANY = pointwise._MANY, most
    try:
        got_x, got_w = pointwise.product_gradients(**of)
    finally:
        pointwise._MANY = before
    wanted_x, wanted_w = expected(of)
    assert close(got_x, wanted_x) and close(got_w, wanted_w)
    if clamps:
        assert not got_x[of["clamped"].bool()].any()


def test_only_what_is_wanted_is_computed():
    of = operands(2, 9, 17, 11)
    both = pointwise.product_gradients(**of)
    x_alone = pointwise.product_gradients(**{**of, "line": None})
    w_alone = pointwise.product_gradients(**{**of, "values": None})
    assert x_alone[1] is None and torch.equal(x_alone[0], both[0])
    assert w_alone[0] is None and torch.equal(w_alone[1], both[1])


def test_threads_make_no_difference():
    of, before = operands(16, 32, 20, 24), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(pointwise.product_gradients(**of))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results))


@pytest.mark.parametrize("channels, outputs", [(1, 1), (5, 3), (16, 8), (17, 9), (31, 17)])
def test_nothing_beside_the_results_is_written(channels, outputs, monkeypatch):
    of, guarded = operands(1, 3, channels, outputs), []

    def empty(size: tuple[int, ...]) -> Tensor:
        count = torch.Size(size).numel()
        whole = torch.full((count + 2 * GUARD,), 7.0)
        guarded.append(whole)
        return whole[GUARD : GUARD + count].view(size)

    with monkeypatch.context() as patched:
        patched.setattr(pointwise, "torch", SimpleNamespace(empty=empty, Tensor=Tensor))
        pointwise.product_gradients(**of)
    assert len(guarded) == 3 and all((part[:GUARD] == 7).all() and (part[-GUARD:] == 7).all() for part in guarded)


def test_a_nan_of_a_scale_reaches_what_it_belongs_to():
    of = operands(1, 4, 6, 5)
    scale = of["w_scale"].clone()
    scale[2] = torch.nan
    grad_x, grad_w = pointwise.product_gradients(**{**of, "w_scale": scale, "clamped": None})
    assert grad_x.isnan().all() and not grad_w.isnan().any()
    grad_x, grad_w = pointwise.product_gradients(**{**of, "step": torch.tensor(torch.nan)})
    assert grad_w.isnan().all() and not grad_x.isnan().any()


def test_channels_are_shared_out_too():
    of = operands(2, 9, 150, 10)
    wanted_x, wanted_w = expected(of)
    got_x, got_w = pointwise.product_gradients(**of)
    assert close(got_x, wanted_x) and close(got_w, wanted_w)


def test_long_sums_of_equal_numbers_stay_exact(monkeypatch):
    """As after a mean of the whole map, whose gradient is the same everywhere; as one sum they are 10⁻⁵ off."""
    monkeypatch.setattr(pointwise, "_MANY", 1)  # one part of the pixels
    of = operands(16, 32, 3, 5)
    of |= {
        "grad": of["grad"][:, :, :1, :1].expand(-1, -1, 32, 32),
        "index": of["index"][:, :, :1, :1].expand(-1, -1, 32, 32),
    }
    _, grad_w = pointwise.product_gradients(**of)
    wanted = expected(of)[1]
    assert (grad_w - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_quantiser_may_answer_in_other_types(dtype, groups):
    """Scales in the weight's type, and indices as int64: loops that read memory get what they want."""

    def quantiser(weight: Tensor) -> tuple[Tensor, Tensor]:
        index, scale = weight_codes(weight)
        return index.long(), scale.to(dtype)

    x, results = torch.randn(2, 6, 5, 5), []
    for asked in (weight_codes, quantiser):
        torch.manual_seed(0)
        layer = ApproxConv2d(6, 6, 1, groups=groups, bias=False, multiplier=EXACT, weight_quant=asked)
        own = x.clone().requires_grad_()
        y = layer(own)
        y.square().sum().backward()
        results.append((y.detach(), own.grad, layer.weight.grad))
    near = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    for one, two in zip(*results):
        torch.testing.assert_close(two, one, **near)


def test_a_second_derivative_is_refused_and_not_left_out():
    layer, x = ApproxConv2d(4, 3, 1, bias=False, multiplier=EXACT), torch.randn(1, 4, 3, 3, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
