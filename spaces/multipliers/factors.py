"""Exact integer factorisation of truth tables.

A table of rank r is a sum of r products u_r(a)·v_r(b), so that a convolution through the table is one ordinary
convolution with r × the input channels, bit for bit.
"""

import functools
from dataclasses import dataclass

import numpy as np

from spaces.multipliers.multiplier import SIZE, Multiplier, operand_range

_PRIME = 2**31 - 1  # products of two residues fit into int64


@dataclass(frozen=True, eq=False)
class Factors:
    """Integers with ``u @ v == table``: ``u`` (256, r) by activation index, ``v`` (r, 256) by weight index (int64)."""

    u: np.ndarray
    v: np.ndarray

    @property
    def rank(self) -> int:
        return self.u.shape[1]

    @property
    def largest_term(self) -> int:
        """Σ_r max|u_r|·max|v_r|: no single look-up, nor any part of it, exceeds this in magnitude."""
        if self.rank == 0:
            return 0
        return int((np.abs(self.u).max(axis=0) * np.abs(self.v).max(axis=1)).sum())


def _by_popcount(signed: bool) -> np.ndarray:
    """Operand indices, fewest set bits of the two's-complement code first: powers of two make simple basis rows."""
    codes = operand_range(signed) & (SIZE - 1)
    return np.array(sorted(range(SIZE), key=lambda index: (int(codes[index]).bit_count(), int(codes[index]))))


def _independent_rows(matrix: np.ndarray, order: np.ndarray) -> tuple[list[int], list[int]]:
    """Greedy basis rows in the given order, and one pivot column for each; elimination modulo a prime.

    Independence modulo the prime implies independence; the reverse can fail, which the caller's exact check detects.
    """
    rest = matrix.astype(np.int64) % _PRIME
    rows: list[int] = []
    columns: list[int] = []
    for row in order:
        live = np.flatnonzero(rest[row])
        if live.size == 0:
            continue
        column = int(live[0])
        inverse = pow(int(rest[row, column]), -1, _PRIME)
        pivot = rest[row] * inverse % _PRIME
        rest = (rest - rest[:, column, None] * pivot) % _PRIME
        rows.append(int(row))
        columns.append(column)
    return rows, columns


def factorise_rows(matrix: np.ndarray, signed: bool) -> Factors | None:
    """Factors of an integer matrix (256, n) whose ``v`` (r, n) are basis rows, or None if they are not integers.

    Basis rows are taken greedily by the popcount of the row's operand; common divisors move from ``v`` into ``u``.
    """
    matrix = np.asarray(matrix, dtype=np.int64)
    rows, columns = _independent_rows(matrix, _by_popcount(signed))
    if not rows:
        if matrix.any():
            return None
        return Factors(np.zeros((SIZE, 0), dtype=np.int64), np.zeros((0, matrix.shape[1]), dtype=np.int64))
    basis = matrix[rows]
    square = basis[:, columns].astype(np.float64)
    try:
        solution = np.linalg.solve(square.T, matrix[:, columns].T.astype(np.float64)).T
    except np.linalg.LinAlgError:
        return None
    if not (np.abs(solution) < _PRIME).all():  # also refuses NaN; beyond, the check below could overflow
        return None
    u = np.rint(solution).astype(np.int64)
    if not np.array_equal(u @ basis, matrix):
        return None
    divisor = np.gcd.reduce(basis, axis=1)
    return Factors(u * divisor, basis // divisor[:, None])


def _cheapest_side(matrix: np.ndarray, signed: bool) -> Factors | None:
    """The factors with the smaller entries, basis taken on the activation's or on the weight's side."""
    sides = [factorise_rows(matrix, signed)]
    if flipped := factorise_rows(matrix.T, signed):
        sides.append(Factors(flipped.v.T, flipped.u.T))
    return min((side for side in sides if side), key=lambda factors: factors.largest_term, default=None)


@functools.lru_cache(maxsize=256)
def factorise(multiplier: Multiplier) -> Factors | None:
    """Exact integer factors of the whole table, of the lowest rank found; None when no side has integer factors.

    Either the table itself is factored, or its error matrix, to which the product a·b is added as one more factor pair.
    The result is checked by multiplying out.
    """
    values = operand_range(multiplier.signed)
    table = multiplier.table.astype(np.int64)
    candidates = []
    if whole := _cheapest_side(table, multiplier.signed):
        candidates.append(whole)
    if error := _cheapest_side(table - np.multiply.outer(values, values), multiplier.signed):
        candidates.append(Factors(np.column_stack([values, error.u]), np.vstack([values, error.v])))
    best = min(candidates, key=lambda factors: (factors.rank, factors.largest_term), default=None)
    if best is not None and not np.array_equal(best.u @ best.v, table):
        raise AssertionError(f"factors of {multiplier.name} do not multiply out")
    return best


@functools.lru_cache(maxsize=64)
def shared_basis(library: tuple[Multiplier, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """One activation-side basis for a library: ``u`` (256, R) and ``v`` (M, R, 256) with table_m = u @ v_m.

    Either the tables themselves share the basis, or their error matrices do, to which the product a·b is added as one
    more factor pair; whichever has the lower rank. None when neither has integer factors.
    """
    signed, circuits = library[0].signed, len(library)
    values = operand_range(signed)
    tables = np.hstack([multiplier.table.astype(np.int64) for multiplier in library])
    products = np.tile(np.multiply.outer(values, values), circuits)
    candidates = []
    if whole := factorise_rows(tables, signed):
        candidates.append(whole)
    if error := factorise_rows(tables - products, signed):
        v = np.vstack([np.tile(values, circuits), error.v])
        candidates.append(Factors(np.column_stack([values, error.u]), v))
    if not candidates:
        return None
    best = min(candidates, key=lambda factors: (factors.rank, factors.largest_term))
    return best.u, best.v.reshape(best.rank, circuits, SIZE).transpose(1, 0, 2)
