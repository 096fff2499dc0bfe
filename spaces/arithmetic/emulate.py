"""Convolutions through a circuit's truth table: one signature, several engines, one result."""

import functools
from collections.abc import Iterable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines import float32, reference, self_test, timing
from spaces.arithmetic.engines.cpu import gather, int8
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import factored as triton_factored
from spaces.arithmetic.engines.gpu import gather as triton_gather
from spaces.errors import InputError, suggest
from spaces.multipliers.multiplier import SIZE, Multiplier
from spaces.multipliers.products import ProductTable, operand_table

ENGINES: dict[str, ModuleType] = {
    "int8": int8,
    "float32": float32,
    "gather": gather,
    "triton": triton_factored,
    "triton-gather": triton_gather,
    "reference": reference,
}
MIXING = ("float32", "gather", "triton")  # those that also compute with the real-valued tables of mixtures
_forced = "auto"
# Up to so many factor channels no look-up has been faster in dense layers, so that it need not be measured
_FEW_CHANNELS = 8


def use_engine(name: str) -> None:
    """Make every layer of this process use one engine, or choose again ("auto"). Raises InputError for an unknown one.

    A layer whose table the engine cannot compute raises InputError when it runs. Sums never depend on the engine, but for
    rounding in layers that mix multipliers (see ``mixture_engine``).
    """
    global _forced
    if name not in (*ENGINES, "auto"):
        raise suggest(name, [*ENGINES, "auto"], "engine")
    _forced = name


def mixture_engine() -> str:
    """The engine of layers that mix multipliers: one of ``MIXING``, or "auto", which chooses by a layer's shape.

    Their tables are real numbers. Where an engine was asked for that computes with integers alone, they choose. Engines
    round their sums differently, in the last place, but where one multiplier has the whole weight.
    """
    return _forced if _forced in MIXING else "auto"


def refusal(name: str, table: ProductTable, device: torch.device) -> str:
    """Why an engine cannot compute with a table on a device; '' when it can, and passes its self-test there."""
    engine = ENGINES[name]
    return engine.refusal(table, device) or ("" if engine is reference else self_test.failure(name, engine, device))


def require_engine(name: str, tables: Iterable[ProductTable], device: torch.device) -> None:
    """Raises InputError where the engine that was asked for cannot compute with one of the tables on the device."""
    for table in tables if name != "auto" else ():
        if reason := refusal(name, table, device):
            raise InputError(f"engine '{name}' cannot be used: {reason}; leave the choice to 'auto'")


def choose_engine(
    table: ProductTable, w_shape: tuple[int, ...], geometry: Geometry, device: torch.device, engine: str = "auto"
) -> str:
    """The fastest engine that is exact for this table, layer and device, or the one that was asked for.

    Raises InputError where that one cannot compute it, and says why.
    """
    engine = _forced if engine == "auto" else engine
    if engine != "auto":
        require_engine(engine, [table], device)
        return engine
    return _fastest(table, w_shape, geometry, device, torch.get_num_threads() if device.type == "cpu" else 0)


@functools.lru_cache(maxsize=4096)
def _fastest(
    table: ProductTable, w_shape: tuple[int, ...], geometry: Geometry, device: torch.device, threads: int
) -> str:
    """The choice, which may need measurements, made once for every kind of layer."""
    able = [name for name in ENGINES if name != "reference" and not refusal(name, table, device)]
    dense = w_shape[1] > 1 or geometry.groups == 1
    if dense and any(0 < ENGINES[name].channels(table) <= _FEW_CHANNELS for name in able):
        able = [name for name in able if ENGINES[name].channels(table) > 0]
    if len(able) <= 1:
        return able[0] if able else "reference"
    return min(able, key=lambda name: timing.seconds(ENGINES[name], table, w_shape, geometry, device, threads))


def approx_conv2d(
    x_codes: Tensor,
    w_codes: Tensor,
    multiplier: Multiplier,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    engine: str = "auto",
) -> Tensor:
    """Σ T[x̂, ŵ] over every window, as int32 (N, O, H', W'), exact.

    ``x_codes`` (N, C, H, W) and ``w_codes`` (O, C/groups, kH, kW) are operands of the circuit in an integer dtype of at
    least 16 bits. A padded position holds the code 0 and goes through the table like any other. Raises InputError for
    codes outside the circuit's operand range, for an engine that cannot compute with this table on this device, and for
    sums that could exceed 32 bits.
    """
    for name, codes in (("x_codes", x_codes), ("w_codes", w_codes)):
        if codes.dtype not in (torch.int16, torch.int32, torch.int64):
            raise InputError(f"{name} must be int16, int32 or int64, not {codes.dtype}")
        if codes.dim() != 4:
            raise InputError(f"{name} must have four dimensions, not the shape {tuple(codes.shape)}")
        if codes.numel():
            low, high = (int(value) for value in codes.aminmax())
            if low < multiplier.lo or high >= multiplier.lo + SIZE:
                raise InputError(
                    f"{name} holds {low}..{high}, beyond the operands {multiplier.lo}..{multiplier.lo + SIZE - 1} "
                    f"of {multiplier.name}"
                )
    if engine not in (*ENGINES, "auto"):
        raise suggest(engine, [*ENGINES, "auto"], "engine")
    products = w_codes[0].numel()
    if products * int(np.abs(multiplier.table).max()) > torch.iinfo(torch.int32).max:
        raise InputError(f"a sum of {products} products of {multiplier.name} may not fit into 32 bits")
    table, geometry = operand_table(multiplier), Geometry.of(stride, padding, dilation, groups)
    size = _output_size(x_codes, w_codes, geometry)
    if not x_codes.numel():
        return torch.zeros(len(x_codes), len(w_codes), *size, dtype=torch.int32, device=x_codes.device)
    x_index, w_index = ((codes - multiplier.lo).to(torch.uint8) for codes in (x_codes, w_codes))
    chosen = ENGINES[choose_engine(table, tuple(w_codes.shape), geometry, x_codes.device, engine)]
    packed = chosen.pack(w_index, table, geometry)
    return chosen.conv2d(x_index, packed, -multiplier.lo).to(torch.int32)


def _output_size(x: Tensor, w: Tensor, geometry: Geometry) -> tuple[int, int]:
    """Height and width of the output. Raises InputError for shapes that are no convolution."""
    channels = w.shape[1] * geometry.groups
    if x.shape[1] != channels:
        raise InputError(
            f"w_codes {tuple(w.shape)} in {geometry.groups} groups need {channels} channels, not {x.shape[1]}"
        )
    if w.shape[0] % geometry.groups:
        raise InputError(f"{w.shape[0]} outputs do not divide into {geometry.groups} groups")
    size = geometry.output_size(x.shape[2:], w.shape[2:])
    if min(size) < 1:
        raise InputError(f"the kernel {tuple(w.shape[2:])} is larger than the padded input {tuple(x.shape[2:])}")
    return size
