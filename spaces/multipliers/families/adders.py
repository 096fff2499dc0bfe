"""Unsigned multipliers from inexact cells: Kulkarni's 2×2 block, lower-part-OR adders, approximate 4-2 compressors."""

import numpy as np

from spaces.multipliers.families.parameters import Ranges, checked_name
from spaces.multipliers.multiplier import BITS, SIZE, Multiplier, operand_range

KULKARNI = "Kulkarni, Gupta, Ercegovac, VLSI Design 2011"
MAHDIANI = "Mahdiani et al., IEEE TCAS-I 57(4), 2010"
MOMENI = "Momeni et al., IEEE Trans. Computers 64(4), 2015"
COLUMNS = 2 * BITS - 1  # of the partial-product matrix
LOA: Ranges = {"k": (0, COLUMNS)}
COMPRESSORS: Ranges = {"k": (0, COLUMNS)}

Columns = list[list[np.ndarray]]  # per column of the matrix its bits, each as a 256×256 array over all operand pairs


def kulkarni() -> Multiplier:
    """The underdesigned multiplier of Kulkarni, Gupta and Ercegovac, VLSI Design 2011.

    The 2×2-bit block is exact but for 3·3 = 7, which saves its fourth output bit. Four n×n blocks make a 2n×2n block:
    T(a, b) = T(a_H, b_H) 2^(2n) + (T(a_H, b_L) + T(a_L, b_H)) 2^n + T(a_L, b_L), with exact adders, twice up to 8×8.
    """
    table = np.multiply.outer(np.arange(4), np.arange(4))
    table[3, 3] = 7
    bits = 2
    while bits < BITS:
        high, low = np.divmod(np.arange(1 << 2 * bits), 1 << bits)
        middle = table[np.ix_(high, low)] + table[np.ix_(low, high)]
        table = (table[np.ix_(high, high)] << 2 * bits) + (middle << bits) + table[np.ix_(low, low)]
        bits *= 2
    return Multiplier("kulkarni8u", False, table, source=KULKARNI)


def partial_products() -> Columns:
    """The partial products a_i·b_{c−i} of every column c, in the order of the rows 2^j a·b_j (bool, 256×256 each)."""
    bits = (operand_range(signed=False)[:, None] >> np.arange(BITS) & 1).astype(bool)
    columns: Columns = [[] for _ in range(COLUMNS + 1)]
    for j in range(BITS):
        for i in range(BITS):
            columns[i + j].append(np.logical_and.outer(bits[:, i], bits[:, j]))
    return columns


def lower_part_or(k: int) -> Multiplier:
    """An array multiplier that sums its rows 2^j a·b_j, one after the other, in lower-part-OR adders.

    In the LOA of Mahdiani et al., IEEE TCAS-I 2010, the ``k`` low bits of a sum are the OR of the addends' bits and the
    exact upper part takes the AND of the addends' bits k − 1 as its carry. With n_c ones in column c of the
    partial-product matrix, the rows add up, in whatever order, to

        T = Σ_{c ≥ k} 2^c n_c + Σ_{c < k} 2^c [n_c > 0] + 2^k max(0, n_{k−1} − 1)

    because column k − 1 raises a carry with every one after its first. Raises InputError unless 0 ≤ k ≤ 15.
    """
    name = checked_name("loa8u", "lower_part_or", LOA, k)
    table = np.zeros((SIZE, SIZE), dtype=np.int64)
    for column, bits in enumerate(partial_products()):
        ones = np.sum(bits, axis=0) if bits else np.zeros_like(table)
        table += np.minimum(ones, 1) << column if column < k else ones << column
        if column == k - 1:
            table += np.maximum(ones - 1, 0) << k
    return Multiplier(name, False, table, source=MAHDIANI)


def _full_adder(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum, carry)"""
    return x ^ y ^ z, x & y | x & z | y & z


def _approximate_compressor(
    x1: np.ndarray, x2: np.ndarray, x3: np.ndarray, x4: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(sum, carry) of Design 2 of Momeni et al.: wrong by +1 for 0000 and by −1 for 0011, 1100 and 1111."""
    return ~(x1 ^ x2) | ~(x3 ^ x4), (x1 | x2) & (x3 | x4)


def _reduce(columns: Columns, height: int, approximate: int) -> Columns:
    """One stage of the tree: the columns with at most ``height`` bits each, approximate below column ``approximate``.

    A column that has, with the bits carried into it, e bits too many gets compressors while e ≥ 3, then a full adder
    for e = 2 or a half adder for e = 1. They take the bits from the top; below the sums follow the bits left over, then
    the carries.
    """
    zero = np.zeros((SIZE, SIZE), dtype=bool)
    carries: Columns = [[] for _ in range(len(columns) + 1)]
    reduced: Columns = []
    chained: list[np.ndarray] = []  # carry-outs of the exact compressors one column below, for use in the same stage
    for column, bits in enumerate(columns):
        waiting, chain = list(bits), chained
        sums: list[np.ndarray] = []
        chained = []
        while (excess := len(waiting) + len(chain) + len(sums) + len(carries[column]) - height) > 0:
            if excess >= 3 and column < approximate:
                total, carry = _approximate_compressor(*(waiting.pop(0) for _ in range(4)))
            elif excess >= 3:  # exact: two full adders, of which the first hands its carry on within the stage
                x = [waiting.pop(0) if waiting else zero for _ in range(4)]
                inner, chain_out = _full_adder(*x[:3])
                chained.append(chain_out)
                total, carry = _full_adder(inner, x[3], chain.pop(0) if chain else zero)
            else:
                x = [(chain or waiting).pop(0) for _ in range(excess + 1)]
                total, carry = _full_adder(*x, *[zero] * (3 - len(x)))
            sums.append(total)
            carries[column + 1].append(carry)
        reduced.append(sums + waiting + chain + carries[column])
    return reduced


def compressor_tree(k: int) -> Multiplier:
    """The Dadda multiplier of Momeni et al., IEEE TC 2015, approximate 4-2 compressors in its ``k`` lowest columns.

    Two stages reduce the partial products to at most four, then two bits a column (k = 0: 8 compressors, 2 full and 2
    half adders, then 10, 1 and 1, as published); an exact adder sums the last two rows. The compressors in columns
    0..k−1 are Design 2, sum = ¬(x1 ⊕ x2) ∨ ¬(x3 ⊕ x4), carry = (x1 ∨ x2)(x3 ∨ x4), without carry-in and carry-out; the
    others and all adders are exact. Four inputs 0 give 1, so a zero operand gives a product that is not zero, as
    published. k = 7 is the paper's Multiplier 4, k = 15 (all columns) its Multiplier 2; columns 0 to 2 have no
    compressor. Raises InputError unless 0 ≤ k ≤ 15.
    """
    name = checked_name("comp42_8u", "compressor_tree", COMPRESSORS, k)
    columns = _reduce(_reduce(partial_products(), 4, k), 2, k)
    table = np.zeros((SIZE, SIZE), dtype=np.int64)
    for column, bits in enumerate(columns):
        for bit in bits:
            table += bit.astype(np.int64) << column
    return Multiplier(name, False, table, source=MOMENI)
