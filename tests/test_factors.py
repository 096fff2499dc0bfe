"""Factors are right when they multiply out; ranks are checked against floating-point linear algebra."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces import cache
from spaces.multipliers import catalogue
from spaces.multipliers import factors as factors_module
from spaces.multipliers.byte_factors import _prefer_bits, as_bits, byte_factors
from spaces.multipliers.factors import Factors, candidates, factorise_rows
from spaces.multipliers.families import broken_array
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import ProductTable, layer_table, operand_table

NAMES = catalogue.names()
# Nothing but truncated operands (v = 0): T(a, b) = a'·b'.
TRUNCATED = [f"mul8s_{name}" for name in ("1KV8", "1KR8", "1L2H", "1KTY", "1L2D", "1L1G", "1KR3")]
VALUES = np.arange(-128, 128)
TABLES = Path(__file__).resolve().parents[2] / "shared" / "data" / "evoapprox" / "tables"
UNSIGNED = sorted(TABLES.glob("*.bin"))


def factorise(multiplier: Multiplier) -> Factors | None:
    return factors_module.factorise(operand_table(multiplier))


def shared_basis(library: tuple[Multiplier, ...]) -> tuple[np.ndarray, np.ndarray]:
    return factors_module.shared_basis(tuple(operand_table(multiplier) for multiplier in library))


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
def test_factors_of_a_published_multiplier_multiply_out(name):
    multiplier = catalogue.get(name)
    assert_multiplies_out(multiplier)
    error = numeric_rank(table_of(multiplier) - np.multiply.outer(VALUES, VALUES))
    assert error <= 4  # design, section 3
    assert factorise(multiplier).rank == min(1 + error, numeric_rank(table_of(multiplier)))


def test_truncated_multipliers_are_one_product():
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
    multiplier = broken_array(h_a, h_b, v)
    assert_multiplies_out(multiplier)
    assert factorise(multiplier).rank <= numeric_rank(table_of(multiplier))


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
    multiplier = Multiplier(name="made", signed=signed, table=u @ v)
    assert_multiplies_out(multiplier)
    assert factorise(multiplier).rank == rank


def test_a_table_is_factored_as_its_error_where_that_is_simpler():
    table = np.multiply.outer(VALUES, VALUES)
    rng = np.random.default_rng(0)
    table = table + np.multiply.outer(rng.integers(0, 2, 256), rng.integers(-5, 6, 256))
    multiplier = Multiplier(name="nudged", signed=True, table=table)
    assert_multiplies_out(multiplier)
    assert factorise(multiplier).rank == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_table_of_full_rank_is_never_factored_wrongly(seed):
    rng = np.random.default_rng(seed)
    multiplier = Multiplier(name="random", signed=bool(seed), table=rng.integers(-(2**15), 2**15, (256, 256)))
    factors = factorise(multiplier)
    if factors is not None:
        assert factors.rank == 256
        assert_multiplies_out(multiplier)


def test_a_basis_with_fractions_only_is_refused():
    """Rows 2·r, 3·r and 5·r have no integer multiple among themselves, but 1·r is not among the rows."""
    matrix = np.zeros((256, 256), dtype=np.int64)
    matrix[0], matrix[1], matrix[2] = 2, 3, 5
    matrix[:, 0] *= 7
    factors = factorise_rows(matrix, lo=0)
    assert factors is None or np.array_equal(factors.u @ factors.v, matrix)


@pytest.mark.parametrize("entry", [2**31 - 1, -(2**31 - 1)])
def test_an_entry_that_vanishes_modulo_the_prime_is_not_lost(entry):
    """The elimination runs modulo 2^31 − 1, where this entry is zero: no factors is right, wrong ones are not."""
    table = np.zeros((256, 256), dtype=np.int64)
    table[5, 7] = entry
    multiplier = Multiplier(name="huge", signed=True, table=table)
    if factorise(multiplier) is not None:
        assert_multiplies_out(multiplier)


# -- bytes -------------------------------------------------------------------------------------------------------------


def assert_bytes_multiply_out(table: ProductTable) -> None:
    factors = byte_factors(table)
    assert factors.u.dtype == factors.v.dtype == np.int8
    assert list(factors.weight) == sorted(factors.weight) and all(
        weight & (weight - 1) == 0 for weight in factors.weight
    )
    total = np.tile(factors.constant, (256, 1))
    for u, v, weight in zip(factors.u.T, factors.v, factors.weight):
        total += int(weight) * np.multiply.outer(u.astype(np.int64), v.astype(np.int64))
    assert np.array_equal(total, table.table)


@pytest.mark.parametrize("name", NAMES)
def test_a_signed_multiplier_has_as_many_bytes_as_its_rank(name):
    table = operand_table(catalogue.get(name))
    assert_bytes_multiply_out(table)
    factors = byte_factors(table)
    assert factors.channels == factors_module.factorise(table).rank
    assert set(factors.weight) == {1} and not factors.constant.any()


def test_an_exact_unsigned_multiplier_is_one_byte_in_a_layer():
    """b is signed there, and a is held with an offset of 128, which the constant gives back."""
    exact = Multiplier(name="exact", signed=False, table=np.multiply.outer(VALUES + 128, VALUES + 128))
    factors = byte_factors(layer_table(exact))
    assert factors.channels == 1 and np.array_equal(factors.constant, 128 * VALUES)
    assert_bytes_multiply_out(layer_table(exact))
    assert_bytes_multiply_out(operand_table(exact))  # b up to 255 needs a second digit


@given(
    st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([5, 200, 3000, 60000]), st.sampled_from([3, 300, 9000])
)
def test_large_factors_are_split_into_bytes(seed, rank, largest_u, largest_v):
    rng = np.random.default_rng(seed)
    u, v = rng.integers(-largest_u, largest_u + 1, (256, rank)), rng.integers(-largest_v, largest_v + 1, (rank, 256))
    u[[1 << i for i in range(rank)]] = np.eye(rank, dtype=int)  # so that v is a basis
    table = ProductTable("made", u @ v, 0, -128)
    if byte_factors(table) is not None:
        assert_bytes_multiply_out(table)


@pytest.mark.parametrize("name", ["drum8u_4", "drum8u_6", "trunc8u_2_3"])
def test_a_product_of_rounded_operands_stays_one_product_in_a_layer(name):
    """T′ = f(a)·g(b) − 128 a has rank 2, but none of its rows is an integer combination of a few others."""
    table = layer_table(catalogue.get(name))
    assert factors_module.factorise(table).rank == 2 and byte_factors(table).channels <= 4
    assert_bytes_multiply_out(table)


def test_features_that_can_be_cut_out_of_an_index_take_over_signs_and_powers_of_two():
    index = np.arange(256)
    bit = index >> 3 & 1
    for u, v, expected in (
        (bit, 8, (8, 0, 1)),
        (-(bit << 3), 5, (8, 0, -5)),
        ((index - 128) >> 2, -12, (0xFC, 0x80, -3)),
    ):
        moved, rest = _prefer_bits(u, np.full(256, v))
        masks, flips = as_bits(moved[:, None].astype(np.int8))
        assert (int(masks[0]), int(flips[0]), set(rest.tolist())) == (*expected[:2], {expected[2]})
    for u, v in ((bit, 9), (index % 3, 8)):
        moved, rest = _prefer_bits(u, np.full(256, v))
        assert np.array_equal(moved, u) and set(rest.tolist()) == {v}
    assert as_bits((index % 3)[:, None].astype(np.int8)) is None


def test_a_table_without_factors_has_no_bytes():
    rng = np.random.default_rng(0)
    assert byte_factors(ProductTable("random", rng.integers(-9000, 9000, (256, 256)), -128, -128)) is None


# -- the cache on disk -------------------------------------------------------------------------------------------------


def test_factors_are_kept_on_disk_and_checked_when_they_come_back(monkeypatch, tmp_path):
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path))
    table = operand_table(catalogue.get("mul8s_1KX2"))
    candidates.cache_clear()
    expected = candidates(table)
    (kept,) = tmp_path.glob(f"factors-*-{table.key}.npz")
    monkeypatch.setattr(factors_module, "_both_sides", lambda *_: pytest.fail("searched again"))
    candidates.cache_clear()
    again = candidates(table)
    assert all(np.array_equal(a.u, b.u) and np.array_equal(a.v, b.v) for a, b in zip(again, expected))
    monkeypatch.undo()
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path))
    wrong = {"u0": expected[0].u, "v0": expected[0].v + 1}
    for damage in (
        lambda: kept.write_bytes(kept.read_bytes()[:100]),
        lambda: kept.write_bytes(b""),
        lambda: np.savez(kept, **wrong),
        lambda: np.savez(kept, u0=np.array([None]), v0=wrong["v0"]),
        lambda: np.savez(kept, other=wrong["v0"], another=wrong["v0"]),
    ):
        damage()
        candidates.cache_clear()
        assert np.array_equal(candidates(table)[0].u @ candidates(table)[0].v, table.table)
    candidates.cache_clear()


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path / "file"))
    cache.save_json("anything", 1)
    cache.save_arrays("anything", {})
    assert cache.load_json("anything") is None and cache.load_arrays("anything") is None


# -- libraries ---------------------------------------------------------------------------------------------------------


def assert_shared(library: tuple[Multiplier, ...], rank: int) -> None:
    u, v = shared_basis(library)
    assert u.shape == (len(library), 256, rank) and v.shape == (rank, 256)
    for part, multiplier in zip(u, library):
        assert np.array_equal(part @ v, table_of(multiplier))
    assert np.array_equal(v[0], np.arange(-128, 128))  # the exact product's row


def test_the_whole_library_shares_five_features():
    library = tuple(catalogue.get(name) for name in NAMES)
    assert_shared(library, rank=numeric_rank(np.vstack([table_of(multiplier) for multiplier in library])))
    assert_shared(library, rank=5)


def test_a_small_library_shares_fewer():
    assert_shared((catalogue.get("mul8s_1KV8"), catalogue.get("mul8s_1KVA")), rank=3)
    assert_shared((catalogue.get("mul8s_1KV8"),), rank=1)
    # Truncated to six bits on either side: the exact product's row is one more, whether a circuit needs it or not.
    assert_shared((catalogue.get("mul8s_1KV8"), catalogue.get("mul8s_1L2D")), rank=2)
    assert_shared((catalogue.get("mul8s_1L2D"),), rank=2)


@pytest.mark.parametrize("names", [("trunc8u_2_3",), ("drum8u_6", "trunc8u_2_3"), ("mitchell8u",)], ids=str)
def test_an_unsigned_library_shares_a_basis_even_without_integers(names):
    library = tuple(layer_table(catalogue.get(name)) for name in names)
    u, v = factors_module.shared_basis(library)
    for part, table in zip(u, library):
        assert np.abs(part @ v - table.table).max() <= 1e-2
    assert np.array_equal(v[0], np.arange(-128, 128))
    assert len(v) <= 1 + numeric_rank(np.vstack([table.table for table in library]))


def test_a_random_library_shares_a_full_basis():
    tables = np.random.default_rng(3).integers(-(2**15), 2**15, (2, 256, 256))
    u, v = shared_basis(tuple(Multiplier(name=str(i), signed=True, table=table) for i, table in enumerate(tables)))
    assert v.shape == (256, 256) and all(np.abs(part @ v - table).max() <= 1e-2 for part, table in zip(u, tables))


# -- the unsigned tables of the shared data ----------------------------------------------------------------------------


@pytest.mark.skipif(not UNSIGNED, reason="shared/data/evoapprox/tables is not mounted here")
@pytest.mark.parametrize("path", UNSIGNED, ids=lambda path: path.stem)
def test_factors_of_an_unsigned_multiplier_multiply_out(path):
    table = np.fromfile(path, dtype="<u2").reshape(256, 256).astype(np.int64)
    multiplier = Multiplier(name=path.stem, signed=False, table=table)
    factors = factorise(multiplier)
    if factors is not None:
        assert_multiplies_out(multiplier)
        assert factors.rank >= numeric_rank(table)
    for table in (operand_table(multiplier), layer_table(multiplier)):
        if byte_factors(table) is not None:
            assert_bytes_multiply_out(table)
