"""The gradients of pointwise layers from codes, beside float64 products of matrices."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spaces.arithmetic.engines.cpu import pointwise_gradients as pointwise

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
