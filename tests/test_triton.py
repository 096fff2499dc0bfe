"""The Triton engines: sums against plain loops in Triton's interpreter. tests/gpu/test_cuda.py has those on a device.

The interpreter is chosen when kernels are imported, so that its tests run in a process of their own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import factored as triton_factored
from spaces.arithmetic.engines.gpu import gather as triton_gather
from spaces.arithmetic.engines.gpu import launching
from spaces.multipliers import catalogue
from spaces.multipliers.byte_factors import byte_factors
from spaces.multipliers.products import ProductTable
from tests.kernel_cases import FACTORED, FILL, GATHERED, GEOMETRIES, INTERPRETED, multiplier, operands, product

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
interpreted = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="runs under TRITON_INTERPRET=1")
CPU = torch.device("cpu")


def loop_sums(x: np.ndarray, w: np.ndarray, table: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The sums as the definition has them: a loop over outputs, input channels and taps, all pixels at once."""
    (up, left), (down, along), (far, wide) = geometry.padding, geometry.stride, geometry.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)), constant_values=FILL)
    height = (padded.shape[2] - far * (w.shape[2] - 1) - 1) // down + 1
    width = (padded.shape[3] - wide * (w.shape[3] - 1) - 1) // along + 1
    y = np.zeros((len(x), len(w), height, width), dtype=np.int64)
    for o, c, k, m in np.ndindex(w.shape):
        channel = o // (len(w) // geometry.groups) * w.shape[1] + c
        seen = padded[:, channel, k * far :: down, m * wide :: along][:, :height, :width]
        y[:, o] += table[seen, w[o, c, k, m]]
    return y


def check(engine, table: ProductTable, case: tuple, scaled: bool) -> None:
    x, w = operands(*case)
    sums = torch.from_numpy(loop_sums(x.numpy(), w.numpy(), table.table, case[3]))
    packed = engine.pack(w, table, case[3])
    if scaled:
        scale = torch.rand(len(w)) + 1e-3
        assert torch.equal(engine.conv2d(x, packed, FILL, scale), sums.float() * scale.view(1, -1, 1, 1))
    else:
        y = engine.conv2d(x, packed, FILL)
        assert y.dtype == torch.int32
        assert torch.equal(y.long(), sums)


# -- in the interpreter ------------------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="starts the interpreter, in which this runs")
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


@interpreted
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("table", ["four factors", "rough"])
def test_interpreter_factored_geometries(name, table):
    check(triton_factored, FACTORED[table], GEOMETRIES[name], scaled=len(name) % 2 == 0)


@interpreted
@pytest.mark.parametrize(("name", "scaled"), [("dense", True), ("tiny groups", False)])
@pytest.mark.parametrize("table", FACTORED)
def test_interpreter_factored_tables(table, name, scaled):
    check(triton_factored, FACTORED[table], GEOMETRIES[name], scaled)


@interpreted
@pytest.mark.parametrize("name", GEOMETRIES)
def test_interpreter_gather_geometries(name):
    check(triton_gather, GATHERED["rough signed"], GEOMETRIES[name], scaled=len(name) % 2 == 0)


@interpreted
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("table", GATHERED)
def test_interpreter_gather_tables(table, scaled):
    check(triton_gather, GATHERED[table], GEOMETRIES["wide padding"], scaled)


@interpreted
@pytest.mark.parametrize("engine", [triton_factored, triton_gather])
def test_interpreter_takes_any_strides(engine):
    geometry = Geometry(padding=(1, 1))
    x, w = operands((1, 8, 4, 3), 6, (3, 1), geometry)
    packed = engine.pack(w, FACTORED["exact"], geometry)
    expected = engine.conv2d(x, packed, FILL)
    unaligned = torch.empty(x.numel() + 3, dtype=torch.uint8)[3:].view(1, 4, 3, 8).permute(0, 3, 1, 2)
    apart = torch.empty(1, 16, 4, 6, dtype=torch.uint8)[:, ::2, :, ::2]
    for held in (unaligned, apart, torch.empty(x.shape, dtype=torch.uint8)):
        assert torch.equal(engine.conv2d(held.copy_(x), packed, FILL), expected)
    turned = engine.pack(w.transpose(0, 3).contiguous().transpose(0, 3), FACTORED["exact"], geometry)
    assert torch.equal(engine.conv2d(x, turned, FILL), expected)


@interpreted
@pytest.mark.parametrize("engine", [triton_factored, triton_gather])
def test_interpreter_empty_batches(engine):
    geometry = Geometry(padding=(1, 1))
    x, w = operands((1, 2, 4, 4), 3, (3, 3), geometry)
    y = engine.conv2d(x[:0], engine.pack(w, FACTORED["exact"], geometry), FILL, torch.ones(3))
    assert y.shape == (0, 3, 4, 4)
    assert y.dtype == torch.float32


@interpreted
@pytest.mark.parametrize("engine", [triton_factored, triton_gather])
def test_interpreter_sums_up_to_the_last_bit(engine):
    """Sums near 2^31, whose conversion to float32 rounds, and whose parts wrap around."""
    table = ProductTable("large", product("unsigned", 0, 0).table * 509, 0, 0)
    x, w = torch.full((1, 64, 1, 1), 255, dtype=torch.uint8), torch.full((1, 64, 1, 1), 255, dtype=torch.uint8)
    x[0, 0], exact = 251, 509 * 255 * (63 * 255 + 251)
    packed = engine.pack(w, table, Geometry())
    assert engine.conv2d(x, packed, 0).item() == exact
    assert float(np.float32(exact)) != exact
    scaled = engine.conv2d(x, packed, 0, torch.tensor([0.1])).item()
    assert scaled == np.float32(exact) * np.float32(0.1)


@interpreted
def test_interpreter_is_no_reason_to_refuse():
    assert triton_factored.refusal(FACTORED["rough"], CPU) == ""
    assert triton_gather.refusal(GATHERED["24 bits"], CPU) == ""
    assert "no integer factors" in triton_factored.refusal(GATHERED["24 bits"], CPU)


# -- without any device ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", [*FACTORED.values(), *map(multiplier, catalogue.names())], ids=lambda table: table.name
)
def test_features_multiply_out(table):
    features, index = triton_factored._features(table, CPU), np.arange(256)
    total = np.zeros((256, 256), dtype=np.int64)
    for chunk in range(len(features.words)):
        for r in range(features.width):
            if features.bits:
                byte = index & (features.bits[0] >> 8 * r) ^ (features.bits[1] >> 8 * r)
            else:
                byte = features.words[chunk].numpy().astype(np.int64) >> 8 * r
            u = (byte & 255) - 256 * ((byte >> 7) & 1)
            total += np.multiply.outer(u, features.weights[:, chunk, r].numpy().astype(np.int64))
        total <<= int(features.shifts[chunk])
    if features.constant is not None:
        total += features.constant.numpy()
    assert np.array_equal(total, table.table)


def test_all_published_signed_multipliers_have_bits_of_the_index_as_features():
    for name in catalogue.names():
        features = triton_factored._features(multiplier(name), CPU)
        assert features.bits, name
        assert features.width == byte_factors(multiplier(name)).channels


@pytest.mark.parametrize("engine", [triton_factored, triton_gather])
@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs on the CPU")
def test_engines_say_why_they_refuse(engine, monkeypatch):
    table, device = FACTORED["exact"], torch.device("cuda")
    assert engine.refusal(table, CPU) == "it needs a CUDA device, not cpu"
    with monkeypatch.context() as patch:
        patch.setattr(launching, "kernels", lambda: None)
        assert engine.refusal(table, device) == "Triton is not installed"
    if HAS_TRITON:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
        assert "of compute capability" in engine.refusal(table, device)
        assert "not 6.1" in engine.refusal(table, device)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
        assert engine.refusal(table, device) == ""


def test_engines_tell_their_channels():
    assert triton_factored.channels(FACTORED["four factors"]) == 4
    assert triton_gather.channels(FACTORED["four factors"]) == 0


def test_importing_the_engines_does_not_import_triton():
    code = "import sys, spaces.arithmetic.emulate; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
