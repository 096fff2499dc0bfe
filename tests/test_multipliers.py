"""Circuits, their published figures and their error metrics, against formulas evaluated bit by bit in plain Python."""

import csv
import dataclasses
import itertools
import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.families import adder_cells, broken_array, broken_array_table, estimated_power_mw
from spaces.multipliers.multiplier import Multiplier, error_metrics, exact_products, operand_range

NAMES = catalogue.names()
FIGURES = Path(catalogue.__file__).with_name("mul8s_figures.csv")
ROWS = {row["name"]: row for row in csv.DictReader(FIGURES.read_text().splitlines())}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "evoapprox"
HUNGRIEST_LINE = ("mul8s_1KV8", 0.425, 0, 0, 0)  # name, mW, hA, hB, v: typed from the published table

broken_arrays = st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 14))


def significance(bit: int) -> int:
    return -128 if bit == 7 else 1 << bit


def broken_product(a: int, b: int, h_a: int, h_b: int, v: int) -> int:
    """The formula of the design, section 2, for one pair of operands, bit by bit."""
    total = 0
    for i in range(8):
        for j in range(8):
            if i >= h_a and j >= h_b and i + j >= v and (a & 0xFF) >> i & 1 and (b & 0xFF) >> j & 1:
                total += significance(i) * significance(j)
    return total


def cells_by_hand(h_a: int, h_b: int, v: int) -> int:
    """A column of k partial products needs k − 1 adder cells."""
    total = 0
    for column in range(15):
        kept = sum(1 for i in range(h_a, 8) for j in range(h_b, 8) if i + j == column and column >= v)
        total += max(0, kept - 1)
    return total


def exact_table(signed: bool = True) -> np.ndarray:
    values = list(range(-128, 128)) if signed else list(range(256))
    return np.array([[a * b for b in values] for a in values])


def two_significant(value: float, coarsest: float) -> float:
    """One unit in the last printed place: two significant digits, but never coarser than ``coarsest``."""
    if value == 0:
        return coarsest
    return min(coarsest, 10.0 ** (math.floor(math.log10(abs(value))) - 1))


# -- published figures -------------------------------------------------------------------------------------------------


def test_there_are_thirteen_multipliers_and_the_exact_one_comes_first():
    name, power, *parameters = HUNGRIEST_LINE
    assert len(NAMES) == len(set(NAMES)) == 13
    assert NAMES[0] == name == catalogue.EXACT_SIGNED
    assert catalogue.get(name).power_mw == power
    assert [int(ROWS[name][f"keep_{what}"]) for what in ("a_from_bit", "b_from_bit", "from_column")] == parameters


@pytest.mark.skipif(not (SHARED / "mul8s_figures.csv").exists(), reason="shared/data is not mounted here")
def test_the_figures_are_those_of_the_shared_data():
    assert (SHARED / "mul8s_figures.csv").read_text() == FIGURES.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_published_error_figures_are_reproduced(name):
    published = {key: float(value) for key, value in ROWS[name].items() if key != "name"}
    measured = dataclasses.asdict(error_metrics(catalogue.get(name)))
    # Worst cases are whole numbers, and the worst relative error is one for these circuits: no rounding at all.
    assert measured["wce"] == published["wce"]
    assert measured["wcre_pct"] == published["wcre_pct"]
    # Percentages are printed with two decimals, small ones with two significant digits.
    for figure in ("wce_pct", "ep_pct", "mre_pct"):
        half = two_significant(published[figure], 0.01) / 2
        assert measured[figure] == pytest.approx(published[figure], abs=half * 1.001, rel=0), figure
    # MAE and MSE: whole numbers from 10 on, one decimal below. The MAE was rounded twice (36.535 → 36.5 → 36).
    half = two_significant(published["mse"], 1.0) / 2
    assert measured["mse"] == pytest.approx(published["mse"], abs=half * 1.001, rel=0)
    half = two_significant(published["mae"], 1.0) / 2
    assert measured["mae"] == pytest.approx(published["mae"], abs=half * 1.1, rel=0)
    # MAE% was computed sometimes from the MAE itself, sometimes from the printed one.
    half = two_significant(published["mae_pct"], 0.01) / 2
    from_printed = 100 * published["mae"] / 65536
    nearest = min(abs(measured["mae_pct"] - published["mae_pct"]), abs(from_printed - published["mae_pct"]))
    assert nearest <= half * 1.001


@pytest.mark.parametrize("name", NAMES)
def test_hardware_figures_are_the_published_ones(name):
    multiplier, row = catalogue.get(name), ROWS[name]
    assert multiplier.power_mw == float(row["pdk45_power_mw"])
    assert multiplier.area_um2 == float(row["pdk45_area_um2"])
    assert multiplier.delay_ns == float(row["pdk45_delay_ns"])
    assert multiplier.signed and "EvoApproxLib" in multiplier.source and multiplier.technology == "FreePDK45"
    assert catalogue.published_figures(name) == {key: float(value) for key, value in row.items() if key != "name"}


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_multiplier_computes_its_formula_bit_by_bit(name):
    parameters = [int(ROWS[name][f"keep_{what}"]) for what in ("a_from_bit", "b_from_bit", "from_column")]
    table, draw = catalogue.get(name).table, random.Random(name)
    pairs = [(draw.randrange(-128, 128), draw.randrange(-128, 128)) for _ in range(150)]
    for a, b in [*pairs, (-128, -128), (-128, 127), (127, -128), (127, 127), (0, 0), (-1, -1), (1, -1)]:
        assert table[a + 128, b + 128] == broken_product(a, b, *parameters), (a, b)


@given(broken_arrays, st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=20, max_size=20))
def test_a_broken_array_computes_its_formula_bit_by_bit(parameters, pairs):
    table = broken_array_table(*parameters)
    assert table.shape == (256, 256)
    for a, b in pairs:
        assert table[a + 128, b + 128] == broken_product(a, b, *parameters)


def test_without_anything_broken_the_product_is_exact():
    assert np.array_equal(broken_array_table(0, 0, 0), exact_table())
    assert error_metrics(catalogue.get(catalogue.EXACT_SIGNED)).wce == 0
    assert not any(error_metrics(catalogue.get(name)).wce == 0 for name in NAMES[1:])


def test_tables_are_indexed_numerically():
    assert operand_range(True)[[0, 128, 255]].tolist() == [-128, 0, 127]
    assert operand_range(False)[[0, 128, 255]].tolist() == [0, 128, 255]
    for signed in (True, False):
        assert np.array_equal(exact_products(signed), exact_table(signed))


@pytest.mark.parametrize("parameters", [(-1, 0, 0), (8, 0, 0), (0, -1, 0), (0, 8, 0), (0, 0, -1), (0, 0, 15)])
def test_an_impossible_broken_array_is_refused(parameters):
    with pytest.raises(InputError, match="broken_array"):
        broken_array(*parameters)


# -- error metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_error_metrics_equal_a_plain_loop(signed):
    draw = random.Random(f"metrics {signed}")
    table = exact_table(signed)
    low = -128 if signed else 0
    for _ in range(400):
        table[draw.randrange(256), draw.randrange(256)] += draw.randrange(-300, 301)
    table[-low, 17] -= 41  # a wrong product for a zero activation ...
    table[200, -low] += 23  # ... and for a zero weight
    sizes, relative, signs, squares = [], [], 0, 0
    zero_operand = 0
    for row, a in zip(table.tolist(), range(low, low + 256)):
        for product, b in zip(row, range(low, low + 256)):
            error = product - a * b
            sizes.append(abs(error))
            signs, squares = signs + error, squares + error * error
            if a * b:
                relative.append(Fraction(abs(error), abs(a * b)) if error else 0)
            else:
                zero_operand = max(zero_operand, abs(product))
    got = error_metrics(Multiplier(name="changed", signed=signed, table=table))
    assert got.mae == pytest.approx(sum(sizes) / 65536, rel=1e-12)
    assert got.mae_pct == pytest.approx(100 * sum(sizes) / 65536**2, rel=1e-12)
    assert got.wce == max(sizes)
    assert got.wce_pct == pytest.approx(100 * max(sizes) / 65536, rel=1e-12)
    assert got.wcre_pct == pytest.approx(100 * float(max(relative)), rel=1e-12)
    assert got.ep_pct == pytest.approx(100 * sum(size > 0 for size in sizes) / 65536, rel=1e-12)
    assert got.mre_pct == pytest.approx(100 * float(sum(relative)) / len(relative), rel=1e-9)
    assert got.mse == pytest.approx(squares / 65536, rel=1e-12)
    assert got.bias == pytest.approx(signs / 65536, rel=1e-12)
    assert got.zero_operand == zero_operand >= 41


def test_error_metrics_of_the_exact_multipliers_are_zero():
    for signed in (True, False):
        got = dataclasses.asdict(error_metrics(Multiplier(name="exact", signed=signed, table=exact_table(signed))))
        assert set(got.values()) == {0}


# -- the value ---------------------------------------------------------------------------------------------------------


def test_a_multiplier_is_frozen_and_keeps_its_own_read_only_table():
    table = exact_table().astype("<i4")  # already as the circuit stores it
    multiplier = Multiplier(name="mine", signed=True, table=table, power_mw=0.1)
    table[3, 4] = 99  # the caller's array is not the circuit's
    assert multiplier.table[3, 4] == (3 - 128) * (4 - 128)
    assert multiplier.table.dtype == np.int32 and not multiplier.table.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        multiplier.table[0, 0] = 1
    for field in ("name", "table", "power_mw", "key"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(multiplier, field, None)


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((255, 256), dtype=int),
        np.zeros((256, 257), dtype=int),
        np.zeros(65536, dtype=int),
        np.zeros((2, 256, 256), dtype=int),
        np.zeros((256, 256)),
        np.zeros((256, 256), dtype=bool),
        np.full((256, 256), "0"),
        np.full((256, 256), 2**31),
        np.full((256, 256), -(2**31) - 1),
        np.full((256, 256), 2**63, dtype=np.uint64),
    ],
    ids=["255 rows", "257 columns", "flat", "three axes", "float", "bool", "text", "above", "below", "uint64"],
)
def test_a_wrong_table_is_refused(table):
    with pytest.raises(InputError, match="wrong one"):
        Multiplier(name="wrong one", signed=True, table=table)


@pytest.mark.parametrize("field", ["power_mw", "area_um2", "delay_ns"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -0.001])
def test_a_wrong_figure_is_refused(field, value):
    with pytest.raises(InputError, match=field):
        Multiplier(name="wrong one", signed=True, table=exact_table(), **{field: value})


def test_a_multiplier_is_its_table_not_its_name():
    table = exact_table()
    one = Multiplier(name="one", signed=True, table=table, power_mw=0.1)
    same = Multiplier(name="other", signed=True, table=table.astype(np.int64), power_mw=0.2)
    unsigned = Multiplier(name="one", signed=False, table=table, power_mw=0.1)
    table[7, 9] += 1
    changed = Multiplier(name="one", signed=True, table=table, power_mw=0.1)
    assert one == same and hash(one) == hash(same) and one.key == same.key
    assert one != changed and one.key != changed.key
    assert one != unsigned and one.key != unsigned.key
    assert one != "one" and len({one, same, unsigned, changed}) == 3


def test_thirteen_multipliers_are_thirteen_tables():
    assert len({catalogue.get(name).key for name in NAMES}) == 13


# -- estimated power ---------------------------------------------------------------------------------------------------


@given(broken_arrays)
def test_adder_cells_are_counted_per_column(parameters):
    assert adder_cells(*parameters) == cells_by_hand(*parameters)


def test_the_power_line_explains_the_published_power():
    published = [float(ROWS[name]["pdk45_power_mw"]) for name in NAMES]
    cells = [
        cells_by_hand(*(int(ROWS[name][f"keep_{what}"]) for what in ("a_from_bit", "b_from_bit", "from_column")))
        for name in NAMES
    ]
    assert cells[0] == 64 - 15  # all 64 partial products in 15 columns
    estimated = [estimated_power_mw(count) for count in cells]
    mean = sum(published) / 13
    residual = sum((p - e) ** 2 for p, e in zip(published, estimated))
    assert 1 - residual / sum((p - mean) ** 2 for p in published) >= 0.99
    assert estimated[0] == pytest.approx(0.00925 * 49 - 0.0188, rel=1e-12)  # the line of the design, section 2


def test_estimated_power_is_positive_and_grows_with_the_cells():
    powers = [estimated_power_mw(cells) for cells in range(1, 50)]
    assert powers[0] > 0
    assert all(low < high for low, high in itertools.pairwise(powers))
    assert estimated_power_mw(0) is None


# -- the catalogue -----------------------------------------------------------------------------------------------------


def test_a_broken_array_is_found_by_its_name():
    multiplier = catalogue.get("bam8s_2_1_3")
    assert multiplier.name == "bam8s_2_1_3" and multiplier.signed and multiplier.source == "estimated"
    assert np.array_equal(multiplier.table, broken_array(2, 1, 3).table)
    assert multiplier.table[-77 + 128, 101 + 128] == broken_product(-77, 101, 2, 1, 3)
    assert multiplier.power_mw == pytest.approx(0.00925 * cells_by_hand(2, 1, 3) - 0.0188)
    assert catalogue.get("bam8s_0_0_0") == catalogue.get(catalogue.EXACT_SIGNED)
    assert catalogue.get("bam8s_7_7_14").power_mw is None  # a single partial product needs no adder


def test_an_unknown_multiplier_suggests_the_nearest():
    with pytest.raises(InputError, match="mul8s_1KV9.*did you mean.*mul8s_1KV"):
        catalogue.get("mul8s_1KV9")
    with pytest.raises(InputError, match="known: .*mul8s_1L1G"):
        catalogue.get("?")
    with pytest.raises(InputError, match="broken_array"):
        catalogue.get("bam8s_8_0_0")


def test_a_library_keeps_its_order():
    assert [multiplier.name for multiplier in catalogue.library(reversed(NAMES))] == list(reversed(NAMES))


def test_a_library_that_cannot_be_searched_is_refused():
    with pytest.raises(InputError, match="empty"):
        catalogue.library([])
    with pytest.raises(InputError, match="mul8s_1KV8 and bam8s_0_0_0 are the same circuit"):
        catalogue.library(["mul8s_1KV8", "mul8s_1KVA", "bam8s_0_0_0"])
    with pytest.raises(InputError, match="same circuit"):
        catalogue.library(["mul8s_1KVA", "mul8s_1KVA"])
    with pytest.raises(InputError, match="bam8s_7_7_14 has no power"):
        catalogue.library(["mul8s_1KV8", "bam8s_7_7_14"])


def test_power_ratio_is_relative_to_the_exact_multiplier_of_the_same_signedness():
    table = exact_table()
    assert catalogue.power_ratio(catalogue.get(catalogue.EXACT_SIGNED)) == 1
    assert catalogue.power_ratio(catalogue.get("mul8s_1L2D")) == pytest.approx(0.2 / 0.425)
    unsigned = Multiplier(name="mul8u_1JFF", signed=False, table=exact_table(False), power_mw=0.391)
    assert catalogue.power_ratio(unsigned) == 1
    with pytest.raises(InputError, match="no power figure"):
        catalogue.power_ratio(Multiplier(name="unknown power", signed=True, table=table))
