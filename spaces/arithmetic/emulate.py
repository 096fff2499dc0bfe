"""Convolutions through a circuit's truth table: one signature, several engines, one result."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines import factored, reference
from spaces.arithmetic.engines.geometry import Geometry
from spaces.errors import InputError, suggest
from spaces.multipliers.multiplier import SIZE, Multiplier

# (x_codes, w_codes, multiplier, geometry) → exact integer sums in any dtype that holds them
Engine = Callable[[Tensor, Tensor, Multiplier, Geometry], Tensor]
ENGINES: dict[str, Engine] = {"reference": reference.conv2d, "factored": factored.conv2d}


def choose_engine(multiplier: Multiplier) -> str:
    """The fastest engine that is exact for this circuit."""
    return "factored" if factored.supports(multiplier) else "reference"


def conv_sums(x_codes: Tensor, w_codes: Tensor, multiplier: Multiplier, geometry: Geometry) -> Tensor:
    """The unchecked core for layers: exact sums in whichever dtype the chosen engine holds them."""
    return ENGINES[choose_engine(multiplier)](x_codes, w_codes, multiplier, geometry)


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
    codes outside the circuit's operand range, for an engine that does not know this
    table, and for sums that could exceed 32 bits.
    """
    for name, codes in (("x_codes", x_codes), ("w_codes", w_codes)):
        if codes.dtype not in (torch.int16, torch.int32, torch.int64):
            raise InputError(f"{name} must be int16, int32 or int64, not {codes.dtype}")
        if codes.numel():
            low, high = (int(value) for value in codes.aminmax())
            if low < multiplier.lo or high >= multiplier.lo + SIZE:
                raise InputError(
                    f"{name} holds {low}..{high}, beyond the operands {multiplier.lo}..{multiplier.lo + SIZE - 1} "
                    f"of {multiplier.name}"
                )
    products = w_codes[0].numel()
    if products * int(np.abs(multiplier.table).max()) > torch.iinfo(torch.int32).max:
        raise InputError(f"a sum of {products} products of {multiplier.name} may not fit into 32 bits")
    if engine == "auto":
        engine = choose_engine(multiplier)
    if engine not in ENGINES:
        raise suggest(engine, [*ENGINES, "auto"], "engine")
    if engine == "factored" and not factored.supports(multiplier):
        raise InputError(f"the table of {multiplier.name} has no small integer factors; use engine='reference'")
    return ENGINES[engine](x_codes, w_codes, multiplier, Geometry.of(stride, padding, dilation, groups)).to(torch.int32)
