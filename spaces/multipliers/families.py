"""Truth tables from formulas."""

import numpy as np

from spaces.errors import InputError
from spaces.multipliers.multiplier import BITS, Multiplier, operand_range

# Least-squares line through the 13 signed circuits of EvoApproxLib v1 (FreePDK45): P[mW] = SLOPE·n + OFFSET, R² = 0.995.
POWER_PER_ADDER_CELL_MW = 0.00925
POWER_OFFSET_MW = -0.0188
FEWEST_FITTED_CELLS = 7  # of mul8s_1KR3, the smallest of the 13


def _kept(h_a: int, h_b: int, v: int) -> list[tuple[int, int]]:
    """The (i, j) of the partial products a_i·b_j that a broken-array multiplier still computes."""
    return [(i, j) for i in range(h_a, BITS) for j in range(h_b, BITS) if i + j >= v]


def broken_array_table(h_a: int, h_b: int, v: int) -> np.ndarray:
    """T(a, b) = Σ_{i ≥ h_a, j ≥ h_b, i + j ≥ v} s_i s_j a_i b_j over two's-complement bits (int64, 256×256).

    s_i = 2^i, but −128 for the sign bit. All 13 signed circuits of EvoApproxLib v1 have this form (the broken-array
    multiplier of Mahdiani et al., IEEE TCAS-I 2010, with operand truncation).
    """
    significance = np.array([-(1 << i) if i == BITS - 1 else 1 << i for i in range(BITS)], dtype=np.int64)
    bits = (operand_range(signed=True)[:, None] >> np.arange(BITS)) & 1
    weighted = bits * significance
    keep = np.zeros((BITS, BITS), dtype=np.int64)
    for i, j in _kept(h_a, h_b, v):
        keep[i, j] = 1
    return weighted @ keep @ weighted.T


def adder_cells(h_a: int, h_b: int, v: int) -> int:
    """n = Σ_columns max(0, partial products − 1): the adder cells that reduce the kept partial products."""
    columns = np.bincount([i + j for i, j in _kept(h_a, h_b, v)], minlength=1)
    return int(np.maximum(columns - 1, 0).sum())


def estimated_power_mw(cells: int) -> float | None:
    """Power in mW of a broken-array multiplier with ``cells`` adder cells, estimated by the line through 13 circuits.

    Below the smallest fitted circuit the line would turn negative, so there it runs straight to zero cells instead;
    without any adder cell the fit says nothing and the result is None.
    """
    if cells == 0:
        return None
    fitted = max(cells, FEWEST_FITTED_CELLS)
    return (POWER_PER_ADDER_CELL_MW * fitted + POWER_OFFSET_MW) * cells / fitted


def broken_array(h_a: int, h_b: int, v: int, name: str | None = None) -> Multiplier:
    """The signed broken-array multiplier without the ``h_a`` (``h_b``) lowest bits of a (b) and the ``v`` lowest columns.

    Its power is estimated from the adder-cell count and marked so. Raises InputError unless 0 ≤ h_a, h_b ≤ 7 and
    0 ≤ v ≤ 14 (beyond that no partial product is left).
    """
    if not (0 <= h_a < BITS and 0 <= h_b < BITS and 0 <= v <= 2 * (BITS - 1)):
        raise InputError(f"broken_array({h_a}, {h_b}, {v}): needs 0 ≤ h_a, h_b ≤ 7 and 0 ≤ v ≤ 14")
    return Multiplier(
        name=name or f"bam8s_{h_a}_{h_b}_{v}",
        signed=True,
        table=broken_array_table(h_a, h_b, v),
        power_mw=estimated_power_mw(adder_cells(h_a, h_b, v)),
        technology="FreePDK45",
        source="estimated",
    )
