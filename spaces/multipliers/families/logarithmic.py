"""Multipliers on powers of two: Mitchell's logarithms and RoBA's rounding."""

import numpy as np

from spaces.multipliers.families.segments import leading_one
from spaces.multipliers.multiplier import BITS, SIZE, Multiplier, operand_range

MITCHELL = "Mitchell, IRE Trans. Electronic Computers EC-11(4), 1962"
ZENDEGANI = "Zendegani et al., IEEE TVLSI 25(2), 2017"


def mitchell() -> Multiplier:
    """The logarithmic multiplier of Mitchell, IRE Trans. Electronic Computers 1962 (unsigned).

    log₂(2^t (1 + x)) is taken as t + x, with all 7 fraction bits of x; the two logarithms are added and the sum S is
    taken back as T = ⌊2^⌊S⌋ (1 + S − ⌊S⌋)⌋. The floor is that of an integer datapath and never cuts anything: x is
    a multiple of 2^−t, so the antilogarithm is an integer. A zero operand has no logarithm and gives 0.
    """
    operands = operand_range(signed=False)
    fraction, position = BITS - 1, leading_one(operands)
    one = 1 << fraction  # 1.0 in fixed point
    logarithm = position * one + (operands << fraction - position) - one
    total = np.add.outer(logarithm[1:], logarithm[1:])
    table = np.zeros((SIZE, SIZE), dtype=np.int64)
    table[1:, 1:] = (one + total % one) << total // one >> fraction
    return Multiplier("mitchell8u", False, table, source=MITCHELL)


def nearest_power_of_two(magnitudes: np.ndarray) -> np.ndarray:
    """The power of two nearest to each of 1..255; ties 3·2^p go up, except 3 itself, which goes to 2."""
    down = 1 << leading_one(magnitudes)
    up = (2 * magnitudes >= 3 * down) & (magnitudes != 3)
    return np.where(up, 2 * down, down)


def roba(signed: bool) -> Multiplier:
    """RoBA, the rounding-based multiplier of Zendegani et al., IEEE TVLSI 2017: T(a, b) = a_r b + b_r a − a_r b_r.

    a_r and b_r are the nearest powers of two, of two equally near ones the larger (a_r = 256 from 192 on), but 2 for 3,
    as published. The three products are shifts; what is missing is (a_r − a)(b_r − b). The signed variant is S-RoBA:
    exact magnitudes, with the sign put back (not AS-RoBA, which negates by inverting bits).
    """
    operands = operand_range(signed)
    rounded = np.sign(operands) * nearest_power_of_two(np.abs(operands))  # sign 0 keeps a zero
    one_sided = np.multiply.outer(rounded, operands)
    table = one_sided + one_sided.T - np.multiply.outer(rounded, rounded)
    return Multiplier("roba8s" if signed else "roba8u", signed, table, source=ZENDEGANI)
