"""A multiplier is its truth table; everything else about it is a published figure or is computed from the table."""

import functools
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spaces.errors import InputError

BITS = 8
SIZE = 1 << BITS
# Power of the exact circuit, signed and unsigned (mul8s_1KV8, mul8u_1JFF): the yardstick of every energy figure.
EXACT_POWER_MW = {True: 0.425, False: 0.391}


def operand_range(signed: bool) -> np.ndarray:
    """The 256 operand values in index order: −128..127 if ``signed``, else 0..255 (int64)."""
    return np.arange(SIZE, dtype=np.int64) - (SIZE // 2 if signed else 0)


def exact_products(signed: bool) -> np.ndarray:
    """The 256×256 table of exact products a·b (int64), indexed like ``Multiplier.table``."""
    values = operand_range(signed)
    return np.multiply.outer(values, values)


@dataclass(frozen=True, eq=False)
class Multiplier:
    """An 8×8-bit multiplier circuit.

    ``table[a - lo, b - lo]`` is the product that the circuit returns (int32, 256×256, read-only), where ``a`` is the
    activation, ``b`` the weight and ``lo`` is −128 (signed) or 0 (unsigned). Two multipliers are equal when signedness
    and table are: published names are reused for different circuits.
    """

    name: str
    signed: bool
    table: np.ndarray = field(repr=False)
    power_mw: float | None = None
    area_um2: float | None = None
    delay_ns: float | None = None
    technology: str = ""
    source: str = ""  # a citation, or "estimated"
    key: str = field(init=False, repr=False)  # SHA-256 of signedness and table

    def __post_init__(self) -> None:
        table = np.asarray(self.table)
        if table.shape != (SIZE, SIZE) or not np.issubdtype(table.dtype, np.integer):
            raise InputError(
                f"multiplier {self.name}: the truth table must be 256×256 integers, not {table.shape} of {table.dtype}"
            )
        limit = np.iinfo(np.int32).max
        if table.min() < -limit or table.max() > limit:
            raise InputError(f"multiplier {self.name}: a product in the table does not fit into 32 bits")
        for figure in ("power_mw", "area_um2", "delay_ns"):
            value = getattr(self, figure)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"multiplier {self.name}: {figure} must be finite and not negative, not {value}")
        table = np.ascontiguousarray(table, dtype="<i4").copy()
        table.setflags(write=False)
        object.__setattr__(self, "table", table)
        digest = hashlib.sha256(b"signed" if self.signed else b"unsigned")
        digest.update(table.tobytes())
        object.__setattr__(self, "key", digest.hexdigest())

    @property
    def lo(self) -> int:
        """The smallest operand: the value at index 0."""
        return -SIZE // 2 if self.signed else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Multiplier) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __deepcopy__(self, memo: dict[str, Any]) -> "Multiplier":
        return self  # immutable; a copy of a network shares its circuits


@dataclass(frozen=True)
class ErrorMetrics:
    """Errors of a circuit against the exact product over all 65,536 operand pairs (Mrazek et al., DATE 2017).

    ``mae``, ``wce``, ``mse`` and ``bias`` are in units of the product; percentages of MAE and WCE are of 2^16, relative
    errors are over the pairs whose exact product is not zero.
    """

    mae: float
    mae_pct: float
    wce: int
    wce_pct: float
    wcre_pct: float
    ep_pct: float
    mre_pct: float
    mse: float
    bias: float
    zero_operand: int  # the largest |product| that is returned although an operand is zero


@functools.lru_cache(maxsize=1024)
def error_metrics(multiplier: Multiplier) -> ErrorMetrics:
    """Recompute every error figure from the truth table."""
    exact = exact_products(multiplier.signed)
    error = multiplier.table.astype(np.int64) - exact
    size = np.abs(error)
    relative = size[exact != 0] / np.abs(exact[exact != 0])
    zero = -multiplier.lo
    mae, wce = float(size.mean()), int(size.max())
    return ErrorMetrics(
        mae=mae,
        mae_pct=100 * mae / SIZE**2,
        wce=wce,
        wce_pct=100 * wce / SIZE**2,
        wcre_pct=100 * float(relative.max()),
        ep_pct=100 * float((error != 0).mean()),
        mre_pct=100 * float(relative.mean()),
        mse=float((error.astype(np.float64) ** 2).mean()),
        bias=float(error.mean()),
        zero_operand=int(max(size[zero].max(), size[:, zero].max())),
    )
