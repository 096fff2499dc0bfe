"""Whether an engine is exact on a device: its sums beside those of the definition, for operands that tempt it to be wrong.

``failure`` is the short test that an engine must pass before it is used; ``python -m evaluation.check_device`` runs the
long one, which is made of ``mismatch`` over many tables and layers.
"""

import contextlib
import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numba
import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable, operand_table
from spaces.preparation import preparing

OPERANDS = ("random", "lowest", "highest", "alternating", "saturating")
HELD = ("channels-last", "contiguous", "unaligned", "strided")
FORMS = ("sums", "scaled")
FILL, USUAL_FILL = 77, 128  # indices of padded positions: one whose features are not zero, and that of a signed zero
DIFFERENT_IMAGES = 8  # a larger batch repeats so many in random order: every sum is checked, few are computed twice
_POISON = 0x7FD5D5D5  # a NaN as float32, and far beyond any sum as int32
_ODD = 3  # bytes beyond an aligned address
_STILL = Geometry()


@dataclass(frozen=True)
class Layer:
    """The shape of a convolution: input (N, C, H, W), outputs, kernel (height, width) and geometry."""

    name: str
    input: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int]
    geometry: Geometry = _STILL

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """The weight's shape (O, C/groups, kH, kW)."""
        return self.outputs, self.input[1] // self.geometry.groups, *self.kernel


@dataclass(frozen=True)
class Example:
    """Operands of a layer and what must come of them."""

    x: np.ndarray  # (N, C, H, W) uint8
    w: np.ndarray  # (O, C/groups, kH, kW) uint8
    fill: int
    scale: np.ndarray  # (O,) float32
    sums: np.ndarray  # (N, O, H', W') int64

    @property
    def scaled(self) -> np.ndarray:
        """The sums rounded once to float32, times the scale."""
        return self.sums.astype(np.float32) * self.scale[:, None, None]


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


# -- operands and what must come of them -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def make_example(table: ProductTable, layer: Layer, kind: str) -> Example:
    """The operands of one kind, always the same, and their sums by the definition; shared by all engines."""
    rng = np.random.default_rng([len(kind), *layer.input, layer.outputs])
    images = min(layer.input[0], DIFFERENT_IMAGES)
    x, w = _codes(kind, (images, *layer.input[1:]), layer.weights, rng)
    fill = FILL if kind in ("random", "alternating") else USUAL_FILL
    sums = sums_by_definition(x, w, table.table, layer.geometry, fill)
    scale = (rng.random(layer.outputs) + 1e-3).astype(np.float32)
    if layer.input[0] > images:
        order = rng.integers(0, images, layer.input[0])
        x, sums = x[order], sums[order]
    return Example(x, w, fill, scale, sums)


def _codes(kind: str, x_shape: tuple, w_shape: tuple, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices for activations and weights, uint8."""
    if kind == "random":
        x, w = (rng.integers(0, SIZE, shape) for shape in (x_shape, w_shape))
    elif kind in ("lowest", "highest"):
        x, w = (np.full(shape, 0 if kind == "lowest" else SIZE - 1) for shape in (x_shape, w_shape))
    elif kind == "alternating":
        x, w = (np.indices(shape).sum(axis=0) % 2 * (SIZE - 1) for shape in (x_shape, w_shape))
    elif kind == "saturating":  # two neighbouring products of one sign exceed 16 bits as bytes are multiplied
        x = np.full(x_shape, SIZE - 1)
        w = np.broadcast_to((np.arange(w_shape[1]) // 2 % 2 * (SIZE - 1))[:, None, None], w_shape)
        w = (w + np.arange(w_shape[0])[:, None, None, None] % 2 * (SIZE - 1)) % (2 * SIZE - 2)
    else:
        raise ValueError(f"no operands are called '{kind}'")
    return x.astype(np.uint8), w.astype(np.uint8)


def sums_by_definition(x: np.ndarray, w: np.ndarray, table: np.ndarray, geometry: Geometry, fill: int) -> np.ndarray:
    """Σ T[x̂, ŵ], (N, O, H', W') int64, in plain numpy: a loop over input channels and taps, shared with no engine.

    x (N, C, H, W) and w (O, C/groups, kH, kW) are indices; padded positions hold the index ``fill``.
    """
    (up, left), (down, along), (far, wide) = geometry.padding, geometry.stride, geometry.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)), constant_values=fill)
    height = (padded.shape[2] - far * (w.shape[2] - 1) - 1) // down + 1
    width = (padded.shape[3] - wide * (w.shape[3] - 1) - 1) // along + 1
    inner, per_group = w.shape[1], len(w) // geometry.groups
    y, entries = np.zeros((len(x), height, width, len(w)), dtype=np.int64), table.astype(np.int64)
    for channel, k, m in np.ndindex(x.shape[1], *w.shape[2:]):
        group, own = divmod(channel, inner)
        outputs = slice(group * per_group, (group + 1) * per_group)
        seen = padded[:, channel, k * far :: down, m * wide :: along][:, :height, :width]
        y[..., outputs] += entries[:, w[outputs, own, k, m]][seen]
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def place(x: Tensor, way: str, device: torch.device) -> Tensor:
    """x (N, C, H, W) on the device, lying in memory as ``way`` says."""
    batch, channels, height, width = x.shape
    held = {"dtype": x.dtype, "device": device}
    if way == "contiguous":
        return x.to(device).contiguous()
    if way == "channels-last":
        memory = torch.empty((batch, height, width, channels), **held)
        return memory.permute(0, 3, 1, 2).copy_(x)
    if way == "unaligned":  # channels-last
        memory = torch.empty(x.numel() + _ODD, **held)[_ODD:]
        return memory.view(batch, height, width, channels).permute(0, 3, 1, 2).copy_(x)
    if way == "strided":
        return torch.empty((batch, 2 * channels, height, 2 * width), **held)[:, ::2, :, ::2].copy_(x)
    raise ValueError(f"no input is held '{way}'")


def poison(count: int, device: torch.device) -> None:
    """Leave rubbish in memory that the allocator is likely to hand out next for ``count`` values of 4 or 8 bytes."""
    blocks = [torch.full((count * words,), _POISON, dtype=torch.int32, device=device) for words in (1, 1, 2)]
    del blocks


# -- the short test: may an engine be used at all? ---------------------------------------------------------------------

_DENSE = Layer("dense", (2, 36, 4, 5), 20, (3, 3), Geometry(padding=(1, 1)))
_FEW = Layer("few channels, strided", (2, 3, 9, 7), 16, (3, 3), Geometry(stride=(2, 1), padding=(1, 1)))
_DEPTHWISE = Layer("depthwise, dilated", (2, 16, 6, 7), 16, (3, 3), Geometry((1, 1), (2, 2), (2, 2), 16))
_GROUPED = Layer("grouped", (1, 12, 5, 4), 15, (3, 1), Geometry(padding=(1, 0), groups=3))
_POINTWISE = Layer("pointwise", (3, 40, 3, 5), 24, (1, 1))
_DEEP = Layer("deep", (1, 1201, 1, 2), 4, (1, 1))  # sums that float32 must round


@functools.cache
def _tables() -> dict[str, ProductTable]:
    """One, four and no factors."""
    entries = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, (SIZE, SIZE))
    one, four = (operand_table(catalogue.get(name)) for name in ("mul8s_1KV8", "mul8s_1KVL"))
    return {"one": one, "four": four, "none": ProductTable("random", entries, -128, -128)}


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


@functools.cache
def failure(name: str, engine: ModuleType, device: torch.device) -> str:
    """Why the engine must not be used on the device: '' when the short test finds nothing. Run once per process.

    An engine that raises has failed, unless memory is full, which says nothing about it. A failure is warned of.
    """
    try:
        with preparing(), _undisturbed(device):
            reason = next(filter(None, _short_test(name, engine, device)), "")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, no result can be had from this engine
        reason = f"its self-test failed ({type(error).__name__}: {_first_line(error)})"
    if reason:
        warnings.warn(
            f"the {name} engine is left out on {device}: {reason}; other engines are exact, but slower", stacklevel=2
        )
    return reason


def _short_test(name: str, engine: ModuleType, device: torch.device) -> Iterator[str]:
    tables = {key: table for key, table in _tables().items() if not engine.refusal(table, device)}
    for key, layer, operands, held, forms in _SHORT:
        if key in tables:
            yield mismatch(engine, tables[key], layer, device, name=name, operands=operands, held=held, forms=forms)


def _first_line(error: Exception) -> str:
    return next(itertools.chain(str(error).splitlines(), [""]))


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Torch's settings stay what they were for the work around the test.

    The test reads results, also where that work must never wait for the GPU. Its layers are too small for more than one
    thread; and numba sets OpenMP's threads, which it shares with torch, when it first runs a parallel loop.
    """
    threads, loops, on_gpu = torch.get_num_threads(), numba.get_num_threads(), device.type == "cuda"
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    if on_gpu:
        waiting = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
    try:
        yield
    finally:
        numba.set_num_threads(loops)
        torch.set_num_threads(threads)  # last: what numba does may change it
        if on_gpu:
            torch.cuda.set_sync_debug_mode(waiting)
