"""Multipliers that work on segments of the operands: ETM, SSM and DRUM."""

import numpy as np

from spaces.multipliers.families.parameters import Ranges, checked_name
from spaces.multipliers.multiplier import BITS, Multiplier, operand_range

KYAW = "Kyaw, Goh, Yeo, EDSSC 2010"
NARAYANAMOORTHY = "Narayanamoorthy et al., IEEE TVLSI 23(6), 2015"
HASHEMI = "Hashemi, Bahar, Reda, ICCAD 2015"
ETM: Ranges = {"k": (0, BITS // 2)}
SSM: Ranges = {"m": (BITS // 2, BITS)}
DRUM: Ranges = {"k": (3, BITS)}


def leading_one(values: np.ndarray) -> np.ndarray:
    """The position ⌊log₂ v⌋ of the highest set bit of each v in 1..255; 0 for v = 0."""
    return (values[..., None] >= 1 << np.arange(1, BITS)).sum(axis=-1)


def etm(k: int) -> Multiplier:
    """The error-tolerant multiplier of Kyaw, Goh and Yeo, EDSSC 2010, split above the ``k`` low bits (paper: k = half).

    Let a = a_H 2^k + a_L and likewise b. If a_H = b_H = 0 (a NOR over all high bits) the multiplier works on the low
    parts and T = a_L b_L is exact. Otherwise T = a_H b_H 2^(2k) + L, where L needs no multiplication: its top k bits
    are those of a_L | b_L, but with ones everywhere below the first 1, and its low k bits are all 1 if a_L | b_L ≠ 0.
    A zero operand may therefore give a product of up to 2^(2k) − 1. Raises InputError unless 0 ≤ k ≤ 4: above that the
    low parts do not fit the multiplier of the high parts.
    """
    name = checked_name("etm8u", "etm", ETM, k)
    operands, low = operand_range(signed=False), (1 << k) - 1
    either = np.bitwise_or.outer(operands & low, operands & low)
    filled = either
    for shift in range(1, k):
        filled = filled | either >> shift
    approximate = (filled << k) + np.where(either, low, 0)
    high = np.multiply.outer(operands >> k, operands >> k) << 2 * k
    small = operands <= low
    table = np.where(np.logical_and.outer(small, small), np.multiply.outer(operands, operands), high + approximate)
    return Multiplier(name, False, table, source=KYAW)


def ssm(m: int) -> Multiplier:
    """The static segment method of Narayanamoorthy et al., IEEE TVLSI 2015, with segments of ``m`` bits.

    Of each operand the m highest bits enter an exact m×m multiplier if any of the 8 − m highest bits is 1, else the m
    lowest; the product is shifted back by 0, 8 − m or 2(8 − m). Raises InputError unless 4 ≤ m ≤ 8: with shorter
    segments some operands would lose their leading one.
    """
    name = checked_name("ssm8u", "ssm", SSM, m)
    operands, dropped = operand_range(signed=False), BITS - m
    kept = np.where(operands >> m, operands >> dropped << dropped, operands)
    return Multiplier(name, False, np.multiply.outer(kept, kept), source=NARAYANAMOORTHY)


def drum(k: int, signed: bool) -> Multiplier:
    """DRUM-k, the dynamic range unbiased multiplier of Hashemi, Bahar and Reda, ICCAD 2015.

    With its leading one at t ≥ k, an operand keeps its bits t..t−k+1, the lowest of which is set to 1 (the bits cut off
    are worth that on average); a smaller operand is kept whole. The product of the two segments is exact. The signed
    multiplier takes magnitudes (|−128| = 128 fits) and puts the sign back, as in the paper; the authors' Verilog only
    inverts the bits. Raises InputError unless 3 ≤ k ≤ 8.
    """
    name = checked_name("drum8s" if signed else "drum8u", "drum", DRUM, k)
    operands = operand_range(signed)
    magnitude = np.abs(operands)
    dropped = np.maximum(leading_one(magnitude) - k + 1, 0)
    kept = np.sign(operands) * ((magnitude >> dropped | (dropped > 0)) << dropped)
    return Multiplier(name, signed, np.multiply.outer(kept, kept), source=HASHEMI)
