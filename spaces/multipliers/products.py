"""What a layer looks up: a table of products, indexed by one-byte codes of an activation and a weight."""

import functools
import hashlib
from dataclasses import dataclass, field

import numpy as np

from spaces.multipliers.multiplier import SIZE, Multiplier

WEIGHT_ZERO = 128  # the index of a weight of zero


@dataclass(frozen=True, eq=False)
class ProductTable:
    """``table[a - a_lo, b - b_lo]`` (int32, 256×256, read-only) for an activation code a and a weight code b.

    ``a_lo`` and ``b_lo`` are −128 (codes held in int8) or 0 (codes held in uint8). Two are equal when their content is.
    """

    name: str
    table: np.ndarray = field(repr=False)
    a_lo: int
    b_lo: int
    key: str = field(init=False, repr=False)  # SHA-256 of the content

    def __post_init__(self) -> None:
        table = np.ascontiguousarray(self.table, dtype="<i4").copy()
        table.setflags(write=False)
        object.__setattr__(self, "table", table)
        digest = hashlib.sha256(f"{self.a_lo} {self.b_lo} ".encode())
        digest.update(table.tobytes())
        object.__setattr__(self, "key", digest.hexdigest())

    @property
    def a_values(self) -> np.ndarray:
        """The 256 activation codes in index order (int64)."""
        return np.arange(SIZE, dtype=np.int64) + self.a_lo

    @property
    def b_values(self) -> np.ndarray:
        """The 256 weight codes in index order (int64)."""
        return np.arange(SIZE, dtype=np.int64) + self.b_lo

    @property
    def exact(self) -> np.ndarray:
        """The 256×256 exact products of the codes (int64)."""
        return np.multiply.outer(self.a_values, self.b_values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProductTable) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=512)
def operand_table(multiplier: Multiplier) -> ProductTable:
    """The circuit's truth table, indexed by its operands."""
    return ProductTable(multiplier.name, multiplier.table, multiplier.lo, multiplier.lo)


@functools.lru_cache(maxsize=512)
def layer_table(multiplier: Multiplier) -> ProductTable:
    """What a layer computes with: the truth table by signed weight codes.

    Signed circuits multiply the layer's codes as they are. An unsigned circuit gets b = ŵ + 128, and the layer must take
    128·x̂ away again: T′(x̂, ŵ) = T(x̂, ŵ + 128) − 128·x̂. This is the affine sum of Jacob et al., CVPR 2018, with the
    weight's zero point 128, folded into the table; what the activation's zero point adds does not depend on x̂.
    """
    if multiplier.signed:
        return operand_table(multiplier)
    table = multiplier.table.astype(np.int64) - WEIGHT_ZERO * np.arange(SIZE)[:, None]
    return ProductTable(multiplier.name, table, 0, -WEIGHT_ZERO)
