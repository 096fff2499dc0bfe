"""Exact integer factorisation of tables of products.

A table of rank r is a sum of r products u_r(a)·v_r(b), so that a convolution through the table is one ordinary
convolution with r × the input channels, bit for bit.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spaces import cache
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import WEIGHT_ZERO, ProductTable

_NEGLIGIBLE = 1e-9  # part of a table's norm: less than any entry's rounding to float32
_PRIME = 2**31 - 1  # products of two residues fit into int64
_CACHE_VERSION = 2  # of the search below; a change makes the kept factors worthless


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


def _orders(lo: int) -> Iterator[np.ndarray]:
    """Orders in which to pick basis rows: fewest set bits of the operand's code first, or last.

    Powers of two make simple basis rows; where the other rows are no integer combinations of them, full codes may do.
    """
    codes = (np.arange(SIZE) + lo) & (SIZE - 1)
    ascending = np.array(sorted(range(SIZE), key=lambda index: (int(codes[index]).bit_count(), int(codes[index]))))
    yield ascending
    yield ascending[::-1]


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


def factorise_rows(matrix: np.ndarray, lo: int) -> Factors | None:
    """Factors of an integer matrix (256, n) whose ``v`` (r, n) are basis rows, or None if they are not integers.

    Row i belongs to the operand i + ``lo``. Common divisors move from ``v`` into ``u``.
    """
    matrix = np.asarray(matrix, dtype=np.int64)
    for order in _orders(lo):
        if factors := _factorise_in_order(matrix, order):
            return factors
    return None


def _factorise_in_order(matrix: np.ndarray, order: np.ndarray) -> Factors | None:
    rows, columns = _independent_rows(matrix, order)
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


def _both_sides(table: ProductTable, matrix: np.ndarray) -> Iterator[Factors]:
    """Factors with the basis taken on the activation's side, and on the weight's."""
    if rows := factorise_rows(matrix, table.a_lo):
        yield rows
    if columns := factorise_rows(matrix.T, table.b_lo):
        yield Factors(columns.v.T, columns.u.T)


@functools.lru_cache(maxsize=256)
def candidates(table: ProductTable) -> tuple[Factors, ...]:
    """All exact integer factorisations found, of the lowest ranks first; none when no side has integer factors.

    Either the table itself is factored, or its error matrix, to which the product a·b is added as one more factor pair;
    with the basis on either side. Each is checked by multiplying out, also when it comes from the cache on disk.
    """
    kept = cache.load_arrays(f"factors-{_CACHE_VERSION}-{table.key}")
    try:
        found = [Factors(kept[f"u{i}"], kept[f"v{i}"]) for i in range(len(kept) // 2)] if kept is not None else None
    except KeyError:  # a foreign file
        found = None
    if found is None or not all(_is_exact(factors, table) for factors in found):
        error = table.table - table.exact
        found = list(_both_sides(table, table.table))
        for part in _both_sides(table, error):
            found.append(Factors(np.column_stack([table.a_values, part.u]), np.vstack([table.b_values, part.v])))
        if (
            table.b_lo < table.a_lo
        ):  # an unsigned circuit in a layer: its own factors, and what its zero point takes away
            multiplier = table.table + WEIGHT_ZERO * table.a_values[:, None]
            zero = np.full((1, SIZE), -WEIGHT_ZERO)
            for part in _both_sides(table, multiplier):
                found.append(Factors(np.column_stack([part.u, table.a_values]), np.vstack([part.v, zero])))
        found.sort(key=lambda factors: (factors.rank, factors.largest_term))
        if not all(_is_exact(factors, table) for factors in found):
            raise AssertionError(f"factors of {table.name} do not multiply out")
        arrays = {f"{side}{i}": getattr(factors, side) for i, factors in enumerate(found) for side in "uv"}
        cache.save_arrays(f"factors-{_CACHE_VERSION}-{table.key}", arrays)
    return tuple(found)


def _is_exact(factors: Factors, table: ProductTable) -> bool:
    u, v = factors.u, factors.v
    whole = u.dtype == v.dtype == np.int64 and u.ndim == v.ndim == 2 and u.shape[::-1] == v.shape and len(u) == SIZE
    return whole and np.array_equal(u @ v, table.table)


def factorise(table: ProductTable) -> Factors | None:
    """The exact integer factors of the lowest rank, and among these of the smallest entries; None when there are none."""
    return next(iter(candidates(table)), None)


def shared_rank(library: Sequence[ProductTable]) -> int:
    """How many factors ``shared_basis`` needs, but for rounding: found in a moment, whatever the size of the library."""
    ranks = []
    for matrices in ([table.table for table in library], [table.table - table.exact for table in library]):
        square = np.zeros((SIZE, SIZE))
        for matrix in matrices:
            wide = matrix.astype(np.float64)
            square += wide.T @ wide  # of the same rank as all of them stacked
        sizes = np.linalg.eigvalsh(square)
        ranks.append(int((sizes > 1e-13 * sizes[-1]).sum()) if sizes[-1] > 0 else 0)
    return max(1, min(ranks[0], ranks[1] + 1))


@functools.lru_cache(maxsize=64)
def shared_basis(library: tuple[ProductTable, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One weight-side basis for a library: ``u`` (M, 256, R) and ``v`` (R, 256) with table_m = u_m @ v.

    The first row of ``v`` is the weight itself, that of the exact product. Either the tables share the rest of the basis or
    their error matrices do; whichever has the lower rank. Where neither has integer factors, they are real ones.
    """
    first, multipliers = library[0], len(library)
    tables = np.hstack([table.table.T.astype(np.int64) for table in library])  # (256 weights, M·256)
    products = np.tile(first.exact.T, multipliers)
    found = []
    if whole := factorise_rows(tables, first.b_lo):
        found.append(_with_weight(Factors(whole.v.T, whole.u.T), first.b_values))
    if error := factorise_rows(tables - products, first.b_lo):
        u = np.column_stack([np.tile(first.a_values, multipliers), error.v.T])
        found.append(Factors(u, np.vstack([first.b_values, error.u.T])))
    if found:
        best = min(found, key=lambda factors: (factors.rank, factors.largest_term))
        u, v = best.u, best.v
    else:
        u, v = _real_basis(tables.T.astype(np.float64), first.b_values)
    return u.reshape(multipliers, SIZE, -1), v


def _with_weight(factors: Factors, weight: np.ndarray) -> Factors:
    """The same table with ``weight`` (256,) as the first basis row, in place of another where integers allow it."""
    u, v = factors.u, factors.v
    shares = np.rint(np.linalg.lstsq(v.T.astype(np.float64), weight.astype(np.float64), rcond=None)[0]).astype(np.int64)
    units = np.flatnonzero(np.abs(shares) == 1)
    if not units.size or not np.array_equal(shares @ v, weight):
        return Factors(np.column_stack([np.zeros(len(u), dtype=np.int64), u]), np.vstack([weight, v]))
    row = units[-1]
    # weight = Σ_r s_r v_r with s_row = ±1, so that u_row v_row = u_row s_row (weight − Σ_{r ≠ row} s_r v_r).
    carried = u[:, row] * shares[row]
    rest = np.delete(u - np.multiply.outer(carried, shares), row, axis=1)
    return Factors(np.column_stack([carried, rest]), np.vstack([weight, np.delete(v, row, axis=0)]))


def _real_basis(tables: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weight and singular vectors for the rest, as ``u`` (n, R) and ``v`` (R, 256) with u @ v = ``tables`` (n, 256)."""
    length = np.linalg.norm(weight)
    along = tables @ weight / length
    _, sizes, right = np.linalg.svd(tables - np.multiply.outer(along, weight / length), full_matrices=False)
    right = right[sizes > _NEGLIGIBLE * np.linalg.norm(tables)]
    return np.column_stack([along / length, tables @ right.T]), np.vstack([weight, right])
