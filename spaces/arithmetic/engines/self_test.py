"""Whether an engine is exact on a device: its sums beside those of the definition, for operands that tempt it to be wrong.

``failure`` is the short test that an engine must pass before it is used; ``python -m evaluation.check_device`` runs the
long one, which is made of ``mismatch`` over many tables and layers.
"""

import contextlib
import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from spaces.arithmetic.engines.examples import HELD, OPERANDS, Example, Layer, make_example, place, poison
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.waits import waits
from spaces.errors import InputError
from spaces.full_memory import is_full
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable, operand_table
from spaces.warmup import preparing

FORMS = ("sums", "scaled")


# -- the long test: one engine, one table, one layer -------------------------------------------------------------------


def mismatch(
    engine: ModuleType,
    table: ProductTable,
    layer: Layer,
    device: torch.device,
    *,
    name: str = "",
    operands: Sequence[str] = OPERANDS,
    held: Sequence[str] = HELD,
    forms: Sequence[str] = FORMS,
) -> str:
    """'' where every sum is right; else a sentence with engine, table, layer, position and both values of the first difference.

    Random codes are tried with the input in each way of lying in memory (``held``), extreme codes with one way each. The
    engine must not refuse the table. What it raises is not caught.
    """
    name = name or engine.__name__.rsplit(".", 1)[-1]
    for number, kind in enumerate(operands):
        example = make_example(table, layer, kind)
        packed = engine.pack(torch.from_numpy(example.w).to(device), table, layer.geometry)
        for way in held if kind == "random" else [held[number % len(held)]]:
            for form in forms:
                if wrong := _difference(engine, packed, example, way, form, device):
                    where = f"{_shape(layer)}, {kind} codes, {way} input, {form}"
                    return f"engine {name}, table {table.name}, layer {layer.name} ({where}): {wrong}"
    return ""


def _difference(engine: ModuleType, packed: object, example: Example, way: str, form: str, device: torch.device) -> str:
    """What is wrong with one convolution, in words."""
    x, scaled = place(torch.from_numpy(example.x), way, device), form == "scaled"
    scale = torch.from_numpy(example.scale).to(device) if scaled else None
    expected = example.scaled if scaled else example.sums
    fill = example.fill
    if scaled and device.type != "cpu":  # a zero point that lives on the device
        fill = torch.tensor(fill, device=device)
    poison(expected.size, device)
    got = engine.conv2d(x, packed, fill, scale)
    if got.shape != expected.shape:
        return f"the output's shape is {tuple(got.shape)}, not {expected.shape}"
    if scaled and got.dtype != torch.float32:
        return f"the output is {got.dtype}, not float32"
    found = got.cpu().numpy()
    if len(wrong := np.argwhere(found != expected)):  # NaN differs from everything
        at = tuple(int(i) for i in wrong[0])
        return f"at {at} it gives {found[at]}, not {expected[at]}; {len(wrong)} of {expected.size} values differ"
    if not np.array_equal(x.cpu().numpy(), example.x):
        return "it changes its input"
    return ""


def _shape(layer: Layer) -> str:
    g = layer.geometry
    moves = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation}
    usual = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    words = [f"{key} {value[0]}×{value[1]}" for key, value in moves.items() if value != usual[key]]
    words += [f"{g.groups} groups"] if g.groups > 1 else []
    sizes = ("×".join(map(str, part)) for part in (layer.input, layer.weights))
    return ", ".join([f"{next(sizes)} by {next(sizes)}", *words])


# -- the short test: may an engine be used at all? ---------------------------------------------------------------------

_DENSE = Layer("dense", (2, 36, 4, 5), 20, (3, 3), Geometry(padding=(1, 1)))
_FEW = Layer("few channels, strided", (2, 3, 9, 7), 16, (3, 3), Geometry(stride=(2, 1), padding=(1, 1)))
_DEPTHWISE = Layer("depthwise, dilated", (2, 16, 6, 7), 16, (3, 3), Geometry((1, 1), (2, 2), (2, 2), 16))
_GROUPED = Layer("grouped", (1, 12, 5, 4), 15, (3, 1), Geometry(padding=(1, 0), groups=3))
_POINTWISE = Layer("pointwise", (3, 40, 3, 5), 24, (1, 1))
_DEEP = Layer("deep", (1, 1201, 1, 2), 4, (1, 1))  # sums that float32 must round


@functools.cache
def _tables() -> dict[str, ProductTable]:
    """One, four, five and no factors; and factors that are no bits of an index, in several weights."""
    entries = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, (SIZE, SIZE))
    numbers, signed = np.arange(SIZE), np.arange(SIZE) - SIZE // 2
    rough = np.multiply.outer(numbers, signed) + np.multiply.outer(numbers % 7 * 37, signed % 5)
    rough = rough + np.multiply.outer(numbers**2 // 100, numbers // 2) + np.multiply.outer(signed // 3, signed) + 5
    names = {"one": "mul8s_1KV8", "four": "mul8s_1KVL", "five": "mul8s_1KX2"}
    return {
        **{key: operand_table(catalogue.get(name)) for key, name in names.items()},
        "words": ProductTable("rough", rough, 0, -128),
        "none": ProductTable("random", entries, -128, -128),
    }


# Each kernel variant is compiled on a GPU when it first runs: few layers are tried in every form.
_SHORT = (
    ("one", _DENSE, OPERANDS, HELD, FORMS),
    ("four", _DENSE, OPERANDS, HELD[:1], FORMS),
    ("none", _DENSE, OPERANDS, HELD, FORMS),
    ("one", _FEW, OPERANDS, HELD[:2], FORMS[1:]),
    ("one", _DEPTHWISE, OPERANDS, HELD[:1], FORMS[1:]),
    ("four", _DEPTHWISE, OPERANDS, HELD, FORMS),
    ("none", _DEPTHWISE, OPERANDS, HELD[:1], FORMS[1:]),
    ("four", _GROUPED, OPERANDS, HELD[:1], FORMS[1:]),
    ("one", _POINTWISE, OPERANDS, HELD[:1], FORMS[1:]),
    ("one", _DEEP, ("highest",), HELD[:1], FORMS),
)


# A GPU computes layers as large as those of networks by other kernels: in larger tiles, with more features at a time.
LARGE = Layer("large", (32, 64, 32, 32), 64, (1, 1), different=2)
WIDE = Layer("large and wide", (32, 128, 32, 32), 128, (1, 1), different=2)
_SHORT_ON_GPU = (
    ("one", LARGE, OPERANDS[:1], HELD[:1], FORMS[1:]),
    ("four", LARGE, OPERANDS[:1], HELD[:1], FORMS[1:]),
    ("five", LARGE, OPERANDS[:1], HELD[:1], FORMS[1:]),
    ("one", WIDE, OPERANDS[:1], HELD[:1], FORMS[1:]),
    ("words", _DENSE, OPERANDS, HELD[:1], FORMS[1:]),
    ("words", _DEPTHWISE, OPERANDS, HELD[:1], FORMS[1:]),
)
_warned: set[tuple[Any, ...]] = set()


def failure(name: str, engine: ModuleType, device: torch.device) -> str:
    """Why the engine must not be used on the device: '' when the short test finds nothing. Run once per process.

    An engine that raises has failed, unless memory is full, which says nothing about it. A failure is warned of, once.
    Raises InputError where the test leaves a GPU in a state in which nothing runs any more.
    """
    reason = _tested(name, engine, device)
    if reason and (name, device) not in _warned:
        _warned.add((name, device))
        warnings.warn(
            f"the {name} engine is left out on {device}: {reason}; other engines are exact, but slower", stacklevel=2
        )
    return reason


@functools.cache
def _tested(name: str, engine: ModuleType, device: torch.device) -> str:
    try:
        with preparing(), _undisturbed(device):
            return next(filter(None, _short_test(name, engine, device)), "")
    except Exception as error:  # whatever it is, no result can be had from this engine
        if is_full(error):
            raise
        _require_alive(name, device, error)
        return f"its self-test failed ({type(error).__name__}: {_first_line(error)})"


def _require_alive(name: str, device: torch.device, error: Exception) -> None:
    """Raises InputError where a GPU answers nothing but the error: no other engine is to blame for it."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        raise InputError(
            f"the self-test of the {name} engine left {device} in a state in which nothing runs ({_first_line(error)}); "
            "start again with --engine float32, or another one"
        ) from error


def _short_test(name: str, engine: ModuleType, device: torch.device) -> Iterator[str]:
    tables = _tables()
    for key, layer, operands, held, forms in _SHORT if device.type == "cpu" else (*_SHORT, *_SHORT_ON_GPU):
        if not engine.refusal(tables[key], device):
            yield mismatch(engine, tables[key], layer, device, name=name, operands=operands, held=held, forms=forms)


def _first_line(error: Exception) -> str:
    return next(itertools.chain(str(error).splitlines(), [""]))


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Torch's settings stay what they were for the work around the test.

    The test reads results, also where that work must never wait for the GPU. Its layers are too small for more than one
    thread, of torch's and of numba's, which has as many.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with waits("default", device):
            yield
    finally:
        torch.set_num_threads(threads)  # last: what numba does may change it
