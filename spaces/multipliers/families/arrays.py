"""Multipliers that leave out partial products: operand truncation, broken arrays, perforation.

With s_i = 2^i (two's complement: −128 for the sign bit) all of them are T(a, b) = Σ s_i s_j a_i b_j over the pairs
(i, j) that are kept. Row j of the array is a·b_j, column c holds the partial products with i + j = c.
"""

import numpy as np

from spaces.errors import InputError
from spaces.multipliers.families.parameters import Ranges, checked_name
from spaces.multipliers.multiplier import BITS, Multiplier, operand_range

MAHDIANI = "Mahdiani et al., IEEE TCAS-I 57(4), 2010"
JIANG = "Jiang et al., ACM JETC 13(4), 2017"
ZERVAKIS = "Zervakis et al., IEEE TVLSI 24(10), 2016"
BROKEN_ARRAY: Ranges = {"h_a": (0, BITS - 1), "h_b": (0, BITS - 1), "v": (0, 2 * (BITS - 1))}
TRUNCATION: Ranges = {"h_a": (0, BITS - 1), "h_b": (0, BITS - 1)}
PERFORATION: Ranges = {"j": (0, BITS - 1), "k": (0, BITS - 1)}

# Least-squares line through the 13 signed circuits of EvoApproxLib v1 (FreePDK45): P[mW] = SLOPE·n + OFFSET, R² = 0.995.
POWER_PER_ADDER_CELL_MW = 0.00925
POWER_OFFSET_MW = -0.0188
FEWEST_FITTED_CELLS = 7  # of mul8s_1KR3, the smallest of the 13


def _kept(h_a: int, h_b: int, v: int) -> list[tuple[int, int]]:
    """The (i, j) of the partial products a_i·b_j that a broken-array multiplier still computes."""
    return [(i, j) for i in range(h_a, BITS) for j in range(h_b, BITS) if i + j >= v]


def broken_array_table(h_a: int, h_b: int, v: int, signed: bool = True) -> np.ndarray:
    """T(a, b) = Σ_{i ≥ h_a, j ≥ h_b, i + j ≥ v} s_i s_j a_i b_j (int64, 256×256).

    s_i = 2^i, but −128 for the sign bit if ``signed``. All 13 signed circuits of EvoApproxLib v1 have this form (the
    broken-array multiplier of Mahdiani et al., IEEE TCAS-I 2010, with operand truncation).
    """
    significance = np.array([1 << i for i in range(BITS)], dtype=np.int64)
    if signed:
        significance[-1] *= -1
    bits = (operand_range(signed)[:, None] >> np.arange(BITS)) & 1
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

    Its power is estimated from the adder-cell count and marked so. The cells of the sign bits are broken like the
    others, as in EvoApproxLib; Mahdiani et al. keep them. Raises InputError unless 0 ≤ h_a, h_b ≤ 7 and 0 ≤ v ≤ 14
    (beyond that no partial product is left).
    """
    full_name = checked_name("bam8s", "broken_array", BROKEN_ARRAY, h_a, h_b, v)
    return Multiplier(
        name=name or full_name,
        signed=True,
        table=broken_array_table(h_a, h_b, v),
        power_mw=estimated_power_mw(adder_cells(h_a, h_b, v)),
        technology="FreePDK45",
        source="estimated",
    )


def broken_array_unsigned(h_a: int, h_b: int, v: int) -> Multiplier:
    """The unsigned broken-array multiplier: T(a, b) = Σ_{i ≥ h_a, j ≥ h_b, i + j ≥ v} 2^(i+j) a_i b_j.

    The horizontal break level (HBL) of Mahdiani et al., IEEE TCAS-I 2010, omits the first rows of the array and is
    ``h_b`` here, their vertical break level (VBL) omits the lowest columns and is ``v``; ``h_a`` (0 in the paper) does
    to a what h_b does to b. Raises InputError unless 0 ≤ h_a, h_b ≤ 7 and 0 ≤ v ≤ 14.
    """
    name = checked_name("bam8u", "broken_array_unsigned", BROKEN_ARRAY, h_a, h_b, v)
    return Multiplier(name, False, broken_array_table(h_a, h_b, v, signed=False), source=MAHDIANI)


def truncation(h_a: int, h_b: int, signed: bool) -> Multiplier:
    """Operand truncation: T(a, b) = (a − a mod 2^h_a)(b − b mod 2^h_b), the exact product of operands without low bits.

    The low bits are cleared in two's complement, so negative operands round down too. The truncated multiplier of
    Jiang et al., ACM JETC 2017; a broken array with v = 0. Raises InputError unless 0 ≤ h_a, h_b ≤ 7.
    """
    name = checked_name("trunc8s" if signed else "trunc8u", "truncation", TRUNCATION, h_a, h_b)
    return Multiplier(name, signed, broken_array_table(h_a, h_b, 0, signed), source=JIANG)


def perforation(j: int, k: int) -> Multiplier:
    """Partial-product perforation: the rows 2^i a·b_i of the array are summed without k successive ones from row j.

    T(a, b) = a·Σ_{i < j or i ≥ j + k} 2^i b_i, unsigned (Zervakis et al., IEEE TVLSI 2016, with k ≥ 1); the rows belong
    to the bits of b, the weight. k = 0 is the exact product. Raises InputError unless 0 ≤ j, k ≤ 7 and j + k ≤ 8.
    """
    name = checked_name("perf8u", "perforation", PERFORATION, j, k)
    if j + k > BITS:
        raise InputError(f"{name}: perforation needs j + k ≤ {BITS}, the array has {BITS} rows")
    operands = operand_range(signed=False)
    omitted = ((1 << k) - 1) << j
    return Multiplier(name, False, np.multiply.outer(operands, operands & ~omitted), source=ZERVAKIS)
