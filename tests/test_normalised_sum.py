"""Weighted sums of normalised maps beside torch's batch normalisation in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spaces.arithmetic import normalised_sum as module
from spaces.arithmetic.normalised_sum import normalised_sum


def parts(count: int, size: tuple[int, ...], seed: int = 0) -> tuple[list[Tensor], list[nn.Module]]:
    """Maps far from zero mean, every third of which is added as it is."""
    torch.manual_seed(seed)
    maps = [(torch.randn(size) * (1 + number) + 5 * number).requires_grad_() for number in range(count)]
    norms = [nn.Identity() if number % 3 == 2 else nn.BatchNorm2d(size[1], affine=False) for number in range(count)]
    return maps, norms


def by_torch(weights: Tensor, maps: list[Tensor], norms: list[nn.Module]) -> Tensor:
    return sum(weight * norm(x) for weight, x, norm in zip(weights, maps, norms))


def close(got: Tensor, expected: Tensor, tolerance: float = 2e-5) -> bool:
    return bool(
        (got.double() - expected.double()).abs().max() <= tolerance * max(1.0, float(expected.detach().abs().max()))
    )


@settings(deadline=None)
@given(
    count=st.integers(1, 7),
    size=st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
    channels_last=st.booleans(),
)
def test_sums_and_gradients_are_torchs(count, size, channels_last):
    if size[0] * size[2] * size[3] == 1:
        return  # no variance
    maps, norms = parts(count, size)
    doubles = [x.detach().double().requires_grad_() for x in maps]
    reference = [copy.deepcopy(norm).double() for norm in norms]
    weights = torch.rand(count, requires_grad=True)
    exact = weights.detach().double().requires_grad_()
    if channels_last:
        maps = [x.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for x in maps]
    grad = torch.randn(size)
    y, expected = normalised_sum(weights, maps, norms), by_torch(exact, doubles, reference)
    assert y.grad_fn.name() == "_NormalisedSumBackward" and close(y, expected)
    found = torch.autograd.grad(y, [weights, *maps], grad)
    wanted = torch.autograd.grad(expected, [exact, *doubles], grad.double())
    # A channel of few pixels may have hardly any variance: the error is that of dividing by it.
    few = size[0] * size[2] * size[3] <= 8
    assert all(close(*pair, tolerance=1e-2 if few else 5e-5) for pair in zip(found, wanted))
    for mine, theirs in zip(norms, reference):
        for name, buffer in mine.named_buffers():
            assert close(buffer, theirs.get_buffer(name))


@pytest.mark.parametrize("size", [(3, 16, 32, 32), (2, 36, 9, 11), (64, 8, 8, 8)])
def test_threads_do_not_change_anything(size):
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            maps, norms = parts(5, size)
            weights = torch.linspace(0, 1, 5, requires_grad=True)
            y = normalised_sum(weights, maps, norms)
            grad = torch.linspace(-1, 1, y.numel()).view(size)
            results.append((y, *torch.autograd.grad(y, [weights, *maps], grad), norms[0].running_var))
    finally:
        torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other))


def test_only_what_is_wanted_is_computed():
    maps, norms = parts(3, (4, 8, 5, 5))
    fixed = maps[0].detach()
    y = normalised_sum(torch.ones(3), [fixed, *maps[1:]], norms)
    first, second = torch.autograd.grad(y.square().sum(), maps[1:])
    whole = torch.autograd.grad(by_torch(torch.ones(3), maps, norms).square().sum(), maps)
    assert close(first, whole[1], 1e-4) and close(second, whole[2], 1e-4)


def test_nothing_is_hidden_of_a_nan():
    maps, norms = parts(2, (2, 4, 6, 6))
    with torch.no_grad():
        maps[0][0, 1, 2, 3] = torch.nan
    y = normalised_sum(torch.ones(2), maps, norms)
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()
    assert norms[0].running_mean[1].isnan() and not norms[0].running_mean[0].isnan()


@pytest.mark.parametrize("why", ["evaluated", "float64", "one pixel"])
def test_elsewhere_torch_computes_it(monkeypatch, why):
    monkeypatch.setattr(module.loops, "statistics", lambda *_: 1 / 0)
    maps, norms = parts(2, (1, 3, 1, 1) if why == "one pixel" else (2, 3, 4, 5))
    if why == "float64":
        maps, norms = [x.double() for x in maps], [norm.double() for norm in norms]
    if why == "one pixel":
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            normalised_sum(torch.ones(2), maps, norms)
        return
    norms = [norm.eval() for norm in norms] if why == "evaluated" else norms
    assert torch.allclose(normalised_sum(torch.ones(2), maps, norms), by_torch(torch.ones(2), maps, norms))


def test_what_the_loops_do_not_know_is_torchs_to_compute_or_refuse():
    (first, second), _ = parts(2, (2, 4, 6, 6))
    plain = nn.BatchNorm2d(4, affine=False)
    others = [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False, eps=0.1),
        nn.BatchNorm2d(4, affine=False, momentum=0.5),
        nn.BatchNorm2d(4, affine=False, momentum=None),
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        nn.InstanceNorm2d(4),
    ]
    for other in others:
        got = normalised_sum(torch.ones(2), [first, second], [plain, other])
        expected = by_torch(torch.ones(2), [first, second], [copy.deepcopy(plain), copy.deepcopy(other)])
        assert torch.allclose(got, expected, atol=1e-5), other
    with pytest.raises(ValueError, match="longer"):
        normalised_sum(torch.ones(1), [first, second], [plain, plain])
    with pytest.raises(RuntimeError, match="size"):
        normalised_sum(torch.ones(2), [first, second[:, :, :5]], [plain, plain])


def test_second_derivatives_are_refused_and_not_forgotten():
    maps, norms = parts(2, (2, 4, 6, 6))
    weights = torch.ones(2, requires_grad=True)
    (grad,) = torch.autograd.grad(normalised_sum(weights, maps, norms).square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), weights)
