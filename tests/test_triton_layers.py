"""The Triton kernels around the sums of products, in Triton's interpreter, beside torch's operations.

The interpreter is chosen when kernels are imported, so that its tests run in a process of their own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spaces.arithmetic import quantise
from spaces.arithmetic.engines.gpu import launching, quantisation
from spaces.arithmetic.quantise import RunningMaximum, RunningRange, Scale
from tests.kernel_cases import INTERPRETED

HAS_TRITON = importlib.util.find_spec("triton") is not None
NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")  # numpy's, of NaN and infinities
interpreted = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="runs under TRITON_INTERPRET=1")


@pytest.mark.skipif(INTERPRETED or not HAS_TRITON, reason="starts the interpreter, in which the others run")
def test_the_kernels_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "interpreter_", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)


def same(found: Tensor, expected: Tensor) -> bool:
    """Bit for bit, NaN included, in the same order of memory."""
    return (
        torch.equal(found.nan_to_num(nan=-7.0), expected.nan_to_num(nan=-7.0)) and found.stride() == expected.stride()
    )


# -- codes -------------------------------------------------------------------------------------------------------------

SCALES = {
    "ties": Scale(torch.tensor(1.0), -127, 127, 128),
    "few codes": Scale(torch.tensor(0.01), -7, 7, 128),
    "signed": Scale.symmetric(torch.tensor(2.0)),
    "unsigned": Scale.affine(torch.tensor(-1.0), torch.tensor(2.0)),
    "all zero": Scale.symmetric(torch.tensor(0.0)),
    "NaN": Scale(torch.tensor(NAN), -127, 127, 128),
    "infinite": Scale(torch.tensor(INF), -127, 127, 128),
}


def activations(nan: bool) -> Tensor:
    x = torch.randn((2, 3, 5, 7), generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    x[0, 0, 0] = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.5, -127.5])
    x[0, 1, 0] = torch.tensor([INF, -INF, -0.0, 1e-40, 1e30, 126.5, -3e38])
    if nan:
        x[1, 2, 4, 6] = NAN
    return x


@interpreted
@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("name", SCALES)
def test_interpreter_codes(name, nan, monkeypatch):
    monkeypatch.setattr(quantisation, "BLOCK", 64)
    x, scale = activations(nan), SCALES[name]
    expected = quantise._quantise_by_torch(x.clone(), scale)
    numbers = (scale.low, scale.high, scale.zero)
    for codes in (numbers, [torch.tensor(number, dtype=torch.int32) for number in numbers]):
        index, clamped, step = quantisation.codes(x, scale.step, *codes)
        assert same(index, expected.index) and same(clamped, expected.clamped) and same(step, expected.scale.step)


@interpreted
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (70, 1, 3, 3), (3, 300, 1, 1), (4, 7), (1, 1)])
def test_interpreter_weight_codes(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[0, 0] = INF
    weight[1:2] = 0
    weight[2:3, -1] = NAN
    if len(shape) == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    expected = quantise._weight_codes_by_torch(weight)
    index, scale = quantisation.weight_codes(weight, 127, float(quantise._SMALLEST_SCALE), 128)
    assert same(index, expected[0]) and same(scale, expected[1])


@interpreted
@pytest.mark.parametrize("kind", [RunningMaximum, RunningRange])
def test_interpreter_running_scales(kind):
    """Averages and scales over several batches are those of the CPU, whose numbers are not torch's tensors."""
    mine, theirs, generator = kind(), kind(), torch.Generator().manual_seed(2)
    levels = {"momentum": 0.1, "smallest": float(quantise._SMALLEST_SCALE)}
    for number, size in enumerate((1.0, 30.0, 1e-3, 0.0, 7.0, NAN)):
        x = torch.randn((3, 4, 5), generator=generator) * size + number % 3 * size
        scale, (low, high) = mine(x), (x.amin(), x.amax())
        if kind is RunningMaximum:
            step = quantisation.moved_maximum(low, high, theirs.maximum, levels=127, **levels)
        else:
            levels["momentum"] = float(torch.tensor(0.1))
            step, codes = quantisation.moved_range(low, high, theirs.minimum, theirs.maximum, levels=255, **levels)
            assert codes.tolist() == [scale.low, scale.high, scale.zero]
            assert same(theirs.minimum, mine.minimum)
        assert same(step, scale.step) and same(theirs.maximum, mine.maximum)


@interpreted
@pytest.mark.parametrize("unsigned", [False, True])
def test_interpreter_layers_use_the_kernels(unsigned, monkeypatch):
    """The way to them, on a device that is said to run them: launches are counted."""
    launched: list[str] = []
    launch = launching.launch
    monkeypatch.setattr(quantise, "runs_kernels", lambda _: True)
    monkeypatch.setattr(
        quantisation, "launch", lambda name, *rest, **more: (launched.append(name), launch(name, *rest, **more))
    )
    x = activations(nan=False).nan_to_num(posinf=9.0, neginf=-9.0).clamp(-50, 50)
    scale = (RunningRange() if unsigned else RunningMaximum()).train()(x)
    codes = quantise._quantise_on_device(x, scale)
    expected = quantise._quantise_by_torch(x, scale)
    assert same(codes.index, expected.index) and same(codes.clamped, expected.clamped)
    assert launched == [*(["running_range_kernel"] if unsigned else []), "quantise_kernel"]
