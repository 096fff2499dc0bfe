"""Factors are right when they multiply out; ranks are checked against floating-point linear algebra."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.multipliers import catalogue
from spaces.multipliers.factors import factorise, factorise_rows, shared_basis
from spaces.multipliers.families import broken_array
from spaces.multipliers.multiplier import Multiplier

NAMES = catalogue.names()
# Nothing but truncated operands (v = 0): T(a, b) = a'·b'.
TRUNCATED = [f"mul8s_{name}" for name in ("1KV8", "1KR8", "1L2H", "1KTY", "1L2D", "1L1G", "1KR3")]
VALUES = np.arange(-128, 128)
TABLES = Path(__file__).resolve().parents[2] / "shared" / "data" / "evoapprox" / "tables"
UNSIGNED = sorted(TABLES.glob("*.bin"))


def table_of(multiplier: Multiplier) -> np.ndarray:
    return multiplier.table.astype(np.int64)


def assert_multiplies_out(multiplier: Multiplier) -> None:
    factors = factorise(multiplier)
    assert factors.u.shape == (256, factors.rank) and factors.v.shape == (factors.rank, 256)
    assert np.issubdtype(factors.u.dtype, np.integer) and np.issubdtype(factors.v.dtype, np.integer)
    outer = np.zeros((256, 256), dtype=np.int64)  # summed by hand, not with @
    for column, row in zip(factors.u.T, factors.v):
        outer += np.multiply.outer(column.astype(np.int64), row.astype(np.int64))
    assert np.array_equal(outer, table_of(multiplier))


def numeric_rank(matrix: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(matrix.astype(float)))


@pytest.mark.parametrize("name", NAMES)
def test_factors_of_a_published_circuit_multiply_out(name):
    circuit = catalogue.get(name)
    assert_multiplies_out(circuit)
    error = numeric_rank(table_of(circuit) - np.multiply.outer(VALUES, VALUES))
    assert error <= 4  # design, section 3
    assert factorise(circuit).rank == min(1 + error, numeric_rank(table_of(circuit)))


def test_truncated_circuits_are_one_product():
    assert {name for name in NAMES if factorise(catalogue.get(name)).rank == 1} == set(TRUNCATED)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_term_bounds_every_part_of_a_look_up(name):
    factors = factorise(catalogue.get(name))
    largest = [
        max(abs(u * v) for u in set(us) for v in set(vs)) for us, vs in zip(factors.u.T.tolist(), factors.v.tolist())
    ]
    assert factors.largest_term == sum(largest) < 2**15  # so that 512 products still sum exactly in float32


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 14))
def test_factors_of_a_broken_array_multiply_out(h_a, h_b, v):
    circuit = broken_array(h_a, h_b, v)
    assert_multiplies_out(circuit)
    assert factorise(circuit).rank <= numeric_rank(table_of(circuit))


def test_the_zero_table_has_rank_zero():
    factors = factorise(Multiplier(name="zero", signed=True, table=np.zeros((256, 256), dtype=int)))
    assert factors.rank == 0 and factors.largest_term == 0
    assert factors.u.shape == (256, 0) and factors.v.shape == (0, 256)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 6])
def test_a_table_made_of_products_is_taken_apart_again(rank, signed):
    rng = np.random.default_rng(rank)
    u, v = rng.integers(-9, 10, (256, rank)), rng.integers(-9, 10, (rank, 256))
    codes = VALUES if signed else VALUES + 128
    # A unit row for every factor makes v itself a basis, at operands with a single set bit.
    u[[int(np.flatnonzero(codes == 1 << i)[0]) for i in range(rank)]] = np.eye(rank, dtype=int)
    u[codes == 0] = 0
    circuit = Multiplier(name="made", signed=signed, table=u @ v)
    assert_multiplies_out(circuit)
    assert factorise(circuit).rank == rank


def test_a_table_is_factored_as_its_error_where_that_is_simpler():
    table = np.multiply.outer(VALUES, VALUES)
    rng = np.random.default_rng(0)
    table = table + np.multiply.outer(rng.integers(0, 2, 256), rng.integers(-5, 6, 256))
    circuit = Multiplier(name="nudged", signed=True, table=table)
    assert_multiplies_out(circuit)
    assert factorise(circuit).rank == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_table_of_full_rank_is_never_factored_wrongly(seed):
    rng = np.random.default_rng(seed)
    circuit = Multiplier(name="random", signed=bool(seed), table=rng.integers(-(2**15), 2**15, (256, 256)))
    factors = factorise(circuit)
    if factors is not None:
        assert factors.rank == 256
        assert_multiplies_out(circuit)


def test_a_basis_with_fractions_only_is_refused():
    """Rows 2·r, 3·r and 5·r have no integer multiple among themselves, but 1·r is not among the rows."""
    matrix = np.zeros((256, 256), dtype=np.int64)
    matrix[0], matrix[1], matrix[2] = 2, 3, 5
    matrix[:, 0] *= 7
    factors = factorise_rows(matrix, signed=False)
    assert factors is None or np.array_equal(factors.u @ factors.v, matrix)


@pytest.mark.parametrize("entry", [2**31 - 1, -(2**31 - 1)])
def test_an_entry_that_vanishes_modulo_the_prime_is_not_lost(entry):
    """The elimination runs modulo 2^31 − 1, where this entry is zero: no factors is right, wrong ones are not."""
    table = np.zeros((256, 256), dtype=np.int64)
    table[5, 7] = entry
    circuit = Multiplier(name="huge", signed=True, table=table)
    if factorise(circuit) is not None:
        assert_multiplies_out(circuit)


# -- libraries ---------------------------------------------------------------------------------------------------------


def assert_shared(library: tuple[Multiplier, ...], rank: int) -> None:
    u, v = shared_basis(library)
    assert u.shape == (256, rank) and v.shape == (len(library), rank, 256)
    for part, circuit in zip(v, library):
        assert np.array_equal(u @ part, table_of(circuit))


def test_the_whole_library_shares_seven_features():
    assert_shared(tuple(catalogue.get(name) for name in NAMES), rank=7)


def test_a_small_library_shares_fewer():
    assert_shared((catalogue.get("mul8s_1KV8"), catalogue.get("mul8s_1KVA")), rank=3)
    assert_shared((catalogue.get("mul8s_1L2D"),), rank=1)
    # Exact, and truncated to six bits on either side: the activation is needed with and without its two low bits.
    assert_shared((catalogue.get("mul8s_1KV8"), catalogue.get("mul8s_1L2D")), rank=2)


def test_a_library_without_an_integer_basis_has_none_or_a_right_one():
    rng = np.random.default_rng(3)
    tables = rng.integers(-(2**15), 2**15, (2, 256, 256))
    library = tuple(Multiplier(name=str(i), signed=True, table=table) for i, table in enumerate(tables))
    basis = shared_basis(library)
    if basis is not None:
        for part, table in zip(basis[1], tables):
            assert np.array_equal(basis[0] @ part, table)


# -- the unsigned tables of the shared data ----------------------------------------------------------------------------


@pytest.mark.skipif(not UNSIGNED, reason="shared/data/evoapprox/tables is not mounted here")
@pytest.mark.parametrize("path", UNSIGNED, ids=lambda path: path.stem)
def test_factors_of_an_unsigned_circuit_multiply_out(path):
    table = np.fromfile(path, dtype="<u2").reshape(256, 256).astype(np.int64)
    circuit = Multiplier(name=path.stem, signed=False, table=table)
    factors = factorise(circuit)
    if factors is not None:
        assert_multiplies_out(circuit)
        assert factors.rank >= numeric_rank(table)
