"""Families of circuits against their definitions, written again for single operands on strings, digits and gates."""

import functools
import inspect
import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.families import FAMILIES, drum, from_name, perforation, roba, truncation
from spaces.multipliers.multiplier import error_metrics, exact_products

CORNERS = {False: (0, 1, 2, 3, 127, 128, 129, 254, 255), True: (-128, -127, -3, -2, -1, 0, 1, 2, 3, 126, 127)}
DESIGN_2_WRONG = {(0, 0, 0, 0): 1, (0, 0, 1, 1): 1, (1, 1, 0, 0): 1, (1, 1, 1, 1): 3}  # published: 4 of 16
# The tree of approximate compressors (C), half (H) and full adders (F) by column, in two stages, worked out by hand.
TREE = [
    {4: "H", 5: "C", 6: "CH", 7: "CC", 8: "CF", 9: "CH", 10: "C", 11: "H"},
    {2: "H", **dict.fromkeys(range(3, 13), "C"), 13: "H"},
]

columns = st.integers(0, 14)
bits = st.integers(0, 7)


@functools.cache
def some_pairs(signed: bool, count: int) -> list[tuple[int, int]]:
    """All pairs of corner values, then ``count`` drawn ones."""
    draw = random.Random(f"pairs {signed} {count}")
    low, high = (-128, 127) if signed else (0, 255)
    drawn = [(draw.randint(low, high), draw.randint(low, high)) for _ in range(count)]
    return [*itertools.product(CORNERS[signed], repeat=2), *drawn]


def assert_computes(name: str, product, pairs: list[tuple[int, int]] | None = None) -> None:
    """The circuit returns ``product(a, b)`` for the pairs, or for all 65,536."""
    multiplier = from_name(name)
    assert multiplier.name == name and multiplier.signed == ("8s" in name)
    low = -128 if multiplier.signed else 0
    table = multiplier.table.tolist()
    everything = pairs or itertools.product(range(low, low + 256), repeat=2)
    wrong = [(a, b) for a, b in everything if table[a - low][b - low] != product(a, b)]
    assert not wrong, (name, len(wrong), wrong[:3])


def on_magnitudes(product):
    """The product of signed operands by way of their magnitudes."""
    return lambda a, b: product(abs(a), abs(b)) * (-1 if (a < 0) != (b < 0) else 1)


def wide_pairs(count: int) -> list[tuple[int, int]]:
    """Pairs of 16-bit operands, for figures that were published for 16×16 bits."""
    draw = random.Random("16 bits")
    return [(draw.randrange(1, 1 << 16), draw.randrange(1, 1 << 16)) for _ in range(count)]


# -- the definitions, one pair at a time -------------------------------------------------------------------------------


def without_low_bits(value: int, count: int) -> int:
    return value // 2**count * 2**count


def summed_rows(a: int, b: int, keep) -> int:
    """Schoolbook multiplication of the partial products (i, j) that ``keep`` lets through, unsigned."""
    return sum(1 << i + j for i in range(8) for j in range(8) if a >> i & 1 and b >> j & 1 and keep(i, j))


def kulkarni_product(a: int, b: int) -> int:
    """Sixteen 2×2-bit blocks on the base-4 digits, 3·3 = 7."""
    total = 0
    for i in range(0, max(a.bit_length(), 1), 2):
        for j in range(0, max(b.bit_length(), 1), 2):
            x, y = a >> i & 3, b >> j & 3
            total += (7 if x == y == 3 else x * y) << i + j
    return total


def lower_part_or_product(a: int, b: int, k: int) -> int:
    """Row by row through a 16-bit lower-part-OR adder."""
    total = 0
    for j in range(8):
        row = a << j if b >> j & 1 else 0
        carry = (total >> k - 1) & (row >> k - 1) & 1 if k else 0
        upper = (total >> k) + (row >> k) + carry
        total = upper << k | (total | row) & (1 << k) - 1
        assert total < 1 << 16
    return total


def compressor_product(a: int, b: int, k: int) -> int:
    """Only approximate compressors change the sum of all bits, so the product is exact but for what each one adds."""
    heap = [[(a >> c - j & 1) & (b >> j & 1) for j in range(8) if 0 <= c - j < 8] for c in range(15)]
    product = a * b
    for stage in TREE:
        following: list[list[int]] = [[] for _ in range(k + 1)]
        carries: list[list[int]] = [[] for _ in range(k + 1)]
        for column in range(min(k, 15)):
            waiting, sums = heap[column], []
            for cell in stage.get(column, ""):
                taken, waiting = waiting[: "?HFC".index(cell) + 1], waiting["?HFC".index(cell) + 1 :]
                value = DESIGN_2_WRONG.get(tuple(taken), sum(taken)) if cell == "C" else sum(taken)
                product += value - sum(taken) << column
                sums.append(value % 2)
                carries[column + 1].append(value // 2)
            following[column] = sums + waiting + carries[column]
            assert len(following[column]) <= (4 if stage is TREE[0] else 2)
        heap = following
    return product


def etm_product(a: int, b: int, k: int) -> int:
    a_high, a_low, b_high, b_low = a >> k, a % 2**k, b >> k, b % 2**k
    if not a_high and not b_high:
        return a_low * b_low
    tail, met = "", False
    for position in reversed(range(k)):  # from left to right
        met = met or a_low >> position & 1 or b_low >> position & 1
        tail += "1" if met else "0"
    tail += ("1" if met else "0") * k
    return int(f"{a_high * b_high:b}{tail}", 2)


@functools.cache
def static_segment(value: int, m: int) -> tuple[int, int]:
    """(segment, shift)"""
    text = f"{value:08b}"
    return (int(text[:m], 2), 8 - m) if "1" in text[: 8 - m] else (int(text[8 - m :], 2), 0)


def ssm_product(a: int, b: int, m: int) -> int:
    (x, p), (y, q) = static_segment(a, m), static_segment(b, m)
    return x * y << p + q


@functools.cache
def drum_operand(value: int, k: int) -> int:
    text = f"{value:b}"
    return int(text[: k - 1] + "1" + "0" * (len(text) - k), 2) if len(text) > k else value


def mitchell_product(a: int, b: int) -> int | Fraction:
    """Both branches of Mitchell's formula, in fractions where an integer does not do."""
    if not a or not b:
        return 0
    p, q = len(bin(a)) - 3, len(bin(b)) - 3
    x, y = Fraction(a, 1 << p) - 1, Fraction(b, 1 << q) - 1
    return (1 + x + y) * 2 ** (p + q) if x + y < 1 else (x + y) * 2 ** (p + q + 1)


@functools.cache
def power_near(value: int) -> int:
    """The nearest power of two, the larger of two, but 2 for 3; 0 for 0."""
    if value in (0, 3):
        return {0: 0, 3: 2}[value]
    return min((2**p for p in range(9)), key=lambda power: (abs(power - value), -power))


def roba_product(a: int, b: int) -> int:
    return power_near(a) * b + power_near(b) * a - power_near(a) * power_near(b)


@given(bits, bits)
def test_truncation_multiplies_operands_without_their_low_bits(h_a, h_b):
    def product(a, b):
        return without_low_bits(a, h_a) * without_low_bits(b, h_b)

    assert_computes(f"trunc8u_{h_a}_{h_b}", product, some_pairs(False, 60))
    assert_computes(f"trunc8s_{h_a}_{h_b}", product, some_pairs(True, 60))


@given(bits, bits, columns)
def test_an_unsigned_broken_array_sums_the_kept_partial_products(h_a, h_b, v):
    def product(a, b):
        return summed_rows(a, b, lambda i, j: i >= h_a and j >= h_b and i + j >= v)

    assert_computes(f"bam8u_{h_a}_{h_b}_{v}", product, some_pairs(False, 60))


@pytest.mark.parametrize(("j", "k"), [(j, k) for j in range(8) for k in range(8) if j + k <= 8])
def test_perforation_leaves_out_successive_rows(j, k):
    def product(a, b):
        return summed_rows(a, b, lambda _, row: not j <= row < j + k)

    assert_computes(f"perf8u_{j}_{k}", product, some_pairs(False, 60))


def test_kulkarni_works_on_base_4_digits():
    assert_computes("kulkarni8u", kulkarni_product)


@pytest.mark.parametrize("k", range(16))
def test_lower_part_or_adds_row_by_row(k):
    assert_computes(f"loa8u_{k}", lambda a, b: lower_part_or_product(a, b, k), some_pairs(False, 3000))


@pytest.mark.parametrize("k", range(16))
def test_a_compressor_tree_is_wrong_by_what_its_approximate_compressors_add(k):
    assert_computes(f"comp42_8u_{k}", lambda a, b: compressor_product(a, b, k), some_pairs(False, 1000))


@pytest.mark.parametrize("k", range(5))
def test_the_error_tolerant_multiplier_scans_from_left_to_right(k):
    assert_computes(f"etm8u_{k}", lambda a, b: etm_product(a, b, k))


@pytest.mark.parametrize("m", range(4, 9))
def test_static_segments_are_multiplied_and_shifted_back(m):
    assert_computes(f"ssm8u_{m}", lambda a, b: ssm_product(a, b, m))


@pytest.mark.parametrize("k", range(3, 9))
def test_drum_keeps_k_bits_from_the_leading_one(k):
    def product(a, b):
        return drum_operand(a, k) * drum_operand(b, k)

    assert_computes(f"drum8u_{k}", product)
    assert_computes(f"drum8s_{k}", on_magnitudes(product))


def test_mitchell_adds_logarithms_and_nothing_is_cut_off():
    # The reference is rational: where they are equal, the integer form is the unrounded one.
    one_in_four = [(a, b) for a in range(256) for b in range(a % 4, 256, 4)]
    assert_computes("mitchell8u", mitchell_product, one_in_four)


def test_roba_rounds_operands_to_the_nearest_power_of_two():
    assert [power_near(value) for value in (1, 2, 3, 5, 6, 11, 12, 95, 96, 191, 192)] == [
        *(1, 2, 2, 4, 8, 8, 16, 64, 128, 128, 256)
    ]
    assert_computes("roba8u", roba_product)
    assert_computes("roba8s", on_magnitudes(roba_product))


# -- published and derived figures -------------------------------------------------------------------------------------


def metrics(name: str):
    return error_metrics(from_name(name))


def worst_relative(name: str) -> Fraction:
    multiplier = from_name(name)
    exact = exact_products(multiplier.signed)
    worst = np.unravel_index(np.argmax(np.abs(multiplier.table - exact) / np.maximum(np.abs(exact), 1)), exact.shape)
    return Fraction(abs(int(multiplier.table[worst]) - int(exact[worst])), abs(int(exact[worst])))


def test_the_2_by_2_block_of_kulkarni_is_wrong_for_3_times_3_only():
    block = from_name("kulkarni8u").table[:4, :4]
    assert block[3, 3] == 7
    assert np.argwhere(block != np.outer(range(4), range(4))).tolist() == [[3, 3]]


def test_kulkarni_has_its_published_errors():
    got = metrics("kulkarni8u")
    assert worst_relative("kulkarni8u") == Fraction(2, 9)  # 22.22 %, at any size
    # Wrong as soon as both operands have a digit 3: each misses one with probability (3/4)^4.
    assert got.ep_pct == pytest.approx(100 * (1 - 0.75**4) ** 2, rel=1e-12)
    # Each of the 16 blocks lacks 2 with probability 1/16.
    assert got.mae == -got.bias == 2 * sum(4**i for i in range(4)) ** 2 / 16
    # Published: the mean relative error is 1.39 % for 2×2 bits, 3.25 % for 8×8, 3.32 % for 16×16; 0 counts as exact.
    assert 100 * float(Fraction(2, 9) / 16) == pytest.approx(1.39, abs=0.005)
    assert got.mre_pct * (255 / 256) ** 2 == pytest.approx(3.25, abs=0.005)
    table = from_name("kulkarni8u").table.astype(np.int64)
    a, b = np.random.default_rng(0).integers(1, 1 << 16, (2, 400_000))
    middle = table[a >> 8, b & 255] + table[a & 255, b >> 8]
    wide = (table[a >> 8, b >> 8] << 16) + (middle << 8) + table[a & 255, b & 255]
    assert 100 * (1 - wide / (a * b)).mean() == pytest.approx(3.32, abs=0.04)


@pytest.mark.parametrize("k", range(3, 8))
def test_the_worst_relative_error_of_drum(k):
    # 2^t·1.0…0 becomes 2^t·1.0…01: too large by 2^(1−k), and both operands may be.
    expected = (1 + Fraction(1, 2 ** (k - 1))) ** 2 - 1
    assert worst_relative(f"drum8u_{k}") == worst_relative(f"drum8s_{k}") == expected


def test_drum_6_has_its_published_errors():
    assert metrics("drum8u_6").wcre_pct == pytest.approx(6.31, abs=0.05)  # seen by the authors; 6.348 is the limit
    wide = [abs(1 - drum_operand(a, 6) * drum_operand(b, 6) / (a * b)) for a, b in wide_pairs(20_000)]
    assert 100 * sum(wide) / len(wide) == pytest.approx(1.47, abs=0.02)  # published for 16×16 bits
    assert metrics("drum8u_6").mre_pct < 1.47  # fewer 8-bit operands are cut


@pytest.mark.parametrize("k", range(3, 8))
def test_drum_is_unbiased(k):
    # The 1 that replaces the bits cut off is half a unit more than their mean, in each of 256 − 2^k operands.
    mean = 255 / 2 + (256 - 2**k) / 256 / 2
    assert metrics(f"drum8u_{k}").bias == pytest.approx(mean**2 - (255 / 2) ** 2, rel=1e-9)
    assert abs(metrics(f"drum8u_{k}").bias) < 0.01 * 127.5**2
    assert abs(metrics(f"drum8s_{k}").bias) < 0.15
    assert metrics(f"ssm8u_{max(k, 4)}").bias == -metrics(f"ssm8u_{max(k, 4)}").mae  # a plain segment is biased


def test_mitchell_and_roba_have_their_published_worst_relative_error():
    for name in ("mitchell8u", "roba8u", "roba8s"):
        assert worst_relative(name) == Fraction(1, 9), name  # 11.1 %
    table = from_name("mitchell8u").table
    assert table[3, 3] == 8  # 1.1₂·1.1₂: x + y = 1
    assert (table <= exact_products(False)).all()
    rounded = from_name("roba8u").table
    assert (rounded[3, 3], rounded[3, 6], rounded[6, 6], rounded[255, 255]) == (8, 20, 32, 255**2 - 1)


@pytest.mark.parametrize("name", ["mitchell8u", "roba8u"])
def test_powers_of_two_are_multiplied_exactly(name):
    table = from_name(name).table
    for power in (1, 2, 4, 8, 16, 32, 64, 128):
        assert np.array_equal(table[power], power * np.arange(256))


def test_what_is_truncated_broken_or_perforated_is_missing_and_the_worst_case_is_all_ones():
    for h_a, h_b, v in itertools.product(range(0, 8, 2), range(0, 8, 3), range(0, 15, 5)):
        omitted = [1 << i + j for i in range(8) for j in range(8) if i < h_a or j < h_b or i + j < v]
        got = metrics(f"bam8u_{h_a}_{h_b}_{v}")
        assert got.wce == sum(omitted)
        assert got.bias == -got.mae == pytest.approx(-sum(omitted) / 4)  # a partial product is 1 for a quarter of all
        if v == 0:
            assert from_name(f"bam8u_{h_a}_{h_b}_0") == truncation(h_a, h_b, signed=False)
            assert from_name(f"bam8s_{h_a}_{h_b}_0") == truncation(h_a, h_b, signed=True)
            assert got.wce == 255**2 - (256 - 2**h_a) * (256 - 2**h_b)
    for j, k in [(0, 3), (2, 2), (7, 1), (1, 7), (5, 0)]:
        assert metrics(f"perf8u_{j}_{k}").wce == 255 * 2**j * (2**k - 1)
    assert perforation(0, 5) == truncation(0, 5, signed=False)


@pytest.mark.parametrize("m", range(4, 9))
def test_the_worst_case_of_static_segments_has_ones_in_all_bits_cut_off(m):
    assert metrics(f"ssm8u_{m}").wce == 255**2 - (256 - 2 ** (8 - m)) ** 2


def test_lower_part_or_by_hand():
    # k = 2: two ones in column 1 become 2 (OR) and a carry of 4, which is 2 too many, for a quarter of a quarter.
    got = metrics("loa8u_2")
    assert (got.wce, got.ep_pct, got.bias) == (2, 6.25, 0.125)
    assert from_name("loa8u_2").table[3, 3] == 11
    assert from_name("loa8u_15").table[255, 255] == 2**15 - 1  # nothing but OR
    assert from_name("loa8u_15").table[0b101, 0b11] == 0b1111


def test_the_error_tolerant_multiplier_by_hand():
    table = from_name("etm8u_4").table
    assert table[0b1011_0110, 0b0010_0010] == 22 << 8 | 0b0111_1111
    assert table[0b1011_0000, 0b0010_0000] == 22 << 8
    assert table[0b1111, 0b1110] == 15 * 14  # no high bit at all: exact
    assert table[0b1_0000, 0b1110] == 0b1111_1111  # one operand has a high bit: not exact, although 1·0 = 0


def test_the_layout_of_the_compressor_tree_is_that_of_the_paper():
    # One column more at a time: what column k adds is a multiple of 2^k, and columns 0 to 2 add nothing.
    tables = [from_name(f"comp42_8u_{k}").table for k in range(16)]
    for k, (table, following) in enumerate(itertools.pairwise(tables)):
        difference = following - table
        assert (difference % 2**k == 0).all()
        assert difference.any() == (3 <= k <= 12)
    # Column 3 has one compressor, column 7 has three (two in the first stage), each of them wrong by at most one unit.
    assert {int(value) for value in np.unique(tables[4] - tables[3])} == {-8, 0, 8}
    assert np.abs(tables[8] - tables[7]).max() <= 3 * 2**7


# -- what holds for every family ---------------------------------------------------------------------------------------

NEUTRAL = [
    *("trunc8u_0_0", "trunc8s_0_0", "bam8u_0_0_0", "bam8s_0_0_0", "perf8u_0_0", "perf8u_7_0", "loa8u_0", "loa8u_1"),
    *("comp42_8u_0", "comp42_8u_3", "etm8u_0", "ssm8u_8", "drum8u_8", "drum8s_8"),
]
COMMUTATIVE = [
    *("trunc8u_3_3", "trunc8s_2_2", "bam8u_1_1_6", "kulkarni8u", "loa8u_7", "etm8u_3", "ssm8u_5", "drum8u_4"),
    *("drum8s_5", "mitchell8u", "roba8u", "roba8s"),
]
GROWING = [
    [f"trunc8u_{h}_{h}" for h in range(8)],
    [f"trunc8s_{h}_{h}" for h in range(8)],
    [f"bam8u_0_0_{v}" for v in range(15)],
    [f"perf8u_0_{k}" for k in range(8)],
    [f"perf8u_{j}_1" for j in range(8)],
    [f"loa8u_{k}" for k in range(1, 16)],
    [f"comp42_8u_{k}" for k in range(3, 14)],
    [f"etm8u_{k}" for k in range(5)],
    [f"ssm8u_{m}" for m in range(8, 3, -1)],
    [f"drum8u_{k}" for k in range(8, 2, -1)],
    [f"drum8s_{k}" for k in range(8, 2, -1)],
]


def every_edge() -> list[str]:
    """Each family with all its parameters at their smallest, and at their largest, as far as these go together."""
    names = []
    for prefix, family in FAMILIES.items():
        for edge in (0, 1):
            values = [limits[edge] for limits in family.ranges.values()]
            names.append("_".join([prefix, *map(str, [7, 1] if prefix == "perf8u" and edge else values)]))
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("name", NEUTRAL)
def test_at_its_neutral_end_a_family_is_exact(name):
    multiplier = from_name(name)
    assert np.array_equal(multiplier.table, exact_products(multiplier.signed))


def test_symmetric_multipliers_commute_and_the_others_do_not():
    for name in COMMUTATIVE:
        table = from_name(name).table
        assert np.array_equal(table, table.T), name
    for name in ("trunc8u_3_0", "bam8u_0_2_0", "perf8u_2_2", "comp42_8u_7"):
        table = from_name(name).table
        assert not np.array_equal(table, table.T), name


@pytest.mark.parametrize("names", GROWING, ids=lambda names: names[0].rpartition("_")[0])
def test_the_mean_error_grows_with_the_parameter(names):
    errors = [metrics(name).mae for name in names]
    assert all(less < more for less, more in itertools.pairwise(errors)), errors


def test_a_zero_operand_gives_zero_but_for_two_families():
    for name in every_edge():
        if not name.startswith(("etm8u", "comp42_8u")):
            assert metrics(name).zero_operand == 0, name
    for k in range(5):
        assert metrics(f"etm8u_{k}").zero_operand == 4**k - 1
    for k in range(16):
        # The compressors make ones out of nothing, whatever the other operand: 1 in each of the columns 3 to k − 1.
        table = from_name(f"comp42_8u_{k}").table
        assert set(table[0]) == set(table[:, 0]) == {(1 << min(max(k, 3), 13)) - 8}


def test_sixteen_bits_hold_every_product():
    for name in [*every_edge(), *(f"loa8u_{k}" for k in range(16)), *(f"comp42_8u_{k}" for k in range(16))]:
        multiplier = from_name(name)
        limits = (-(2**15), 2**15) if multiplier.signed else (0, 2**16)
        assert limits[0] <= multiplier.table.min() and multiplier.table.max() < limits[1], name


# -- names -------------------------------------------------------------------------------------------------------------


def test_families_are_found_by_their_prefix():
    assert list(FAMILIES) == [family.prefix for family in FAMILIES.values()]
    assert {family.form for family in FAMILIES.values()} == {
        "trunc8u_<h_a>_<h_b> with 0 ≤ h_a ≤ 7, 0 ≤ h_b ≤ 7",
        "trunc8s_<h_a>_<h_b> with 0 ≤ h_a ≤ 7, 0 ≤ h_b ≤ 7",
        "bam8u_<h_a>_<h_b>_<v> with 0 ≤ h_a ≤ 7, 0 ≤ h_b ≤ 7, 0 ≤ v ≤ 14",
        "bam8s_<h_a>_<h_b>_<v> with 0 ≤ h_a ≤ 7, 0 ≤ h_b ≤ 7, 0 ≤ v ≤ 14",
        "perf8u_<j>_<k> with 0 ≤ j ≤ 7, 0 ≤ k ≤ 7",
        "kulkarni8u",
        "loa8u_<k> with 0 ≤ k ≤ 15",
        "comp42_8u_<k> with 0 ≤ k ≤ 15",
        "etm8u_<k> with 0 ≤ k ≤ 4",
        "ssm8u_<m> with 4 ≤ m ≤ 8",
        "drum8u_<k> with 3 ≤ k ≤ 8",
        "drum8s_<k> with 3 ≤ k ≤ 8",
        "mitchell8u",
        "roba8u",
        "roba8s",
    }
    assert all(family.description and family.source for family in FAMILIES.values())
    with pytest.raises(AttributeError):
        FAMILIES["drum8u"].prefix = "drum"


@pytest.mark.parametrize("name", every_edge())
def test_a_multiplier_carries_its_name_and_source_but_no_power_that_nobody_published(name):
    multiplier = catalogue.get(name)
    family = next(family for prefix, family in FAMILIES.items() if name.startswith(prefix))
    assert multiplier.name == name
    assert multiplier.signed == family.prefix.endswith("8s")
    assert multiplier.area_um2 is None and multiplier.delay_ns is None
    if family.prefix == "bam8s":
        assert multiplier.source == "estimated"
    else:
        assert multiplier.power_mw is None and multiplier.technology == "" and multiplier.source == family.source


def outside() -> list[tuple[str, str]]:
    """(name, what the message says) for every parameter one step below and above its range."""
    cases = []
    for prefix, family in FAMILIES.items():
        lowest = [low for low, _ in family.ranges.values()]
        for position, (parameter, (low, high)) in enumerate(family.ranges.items()):
            for value in (low - 1, high + 1):
                values = [*lowest[:position], value, *lowest[position + 1 :]]
                cases.append(("_".join([prefix, *map(str, values)]), f"{low} ≤ {parameter} ≤ {high}"))
    return cases


@pytest.mark.parametrize(("name", "message"), outside())
def test_parameters_outside_their_range_are_refused_with_the_range(name, message):
    with pytest.raises(InputError, match=message) as refusal:
        from_name(name)
    assert str(refusal.value).startswith(f"{name}: ")
    with pytest.raises(InputError, match=message):
        catalogue.get(name)


def test_builders_refuse_what_names_cannot_say():
    for build, values in [(family.build, family.ranges) for family in FAMILIES.values() if family.ranges]:
        with pytest.raises(InputError, match="_-1.*needs 0|_-1.*needs [34]"):
            build(*[-1] * len(values))
    with pytest.raises(InputError, match="drum8s_9: drum needs 3 ≤ k ≤ 8"):
        drum(9, signed=True)
    with pytest.raises(InputError, match="perf8u_5_4: perforation needs j [+] k ≤ 8"):
        catalogue.get("perf8u_5_4")


@pytest.mark.parametrize(
    "name",
    [
        "drum8u",
        "drum8u_",
        "drum8u_6_7",
        "drum8u_x",
        "drum8u_6.0",
        "drum8u_٦",
        "drum8u_+6",
        "drum8u_6 ",
        "drum8u_" + "6" * 9999,
    ],
    ids=lambda name: name[:12],
)
def test_a_malformed_name_is_told_the_form(name):
    with pytest.raises(InputError, match="drum8u_<k> with 3 ≤ k ≤ 8"):
        from_name(name)
    with pytest.raises(InputError, match="called mitchell8u$"):
        from_name("mitchell8u_3")


@pytest.mark.parametrize(
    "name", ["", "_", "mul8s_1KV8", "drum8", "drum8ux_6", "xdrum8u_6", "DRUM8U_6", "drum_6", "bam8"]
)
def test_other_names_are_of_no_family(name):
    assert from_name(name) is None


def test_an_unknown_name_still_suggests_the_nearest():
    with pytest.raises(InputError, match="unknown multiplier 'mul8s_1KV7'; did you mean mul8s_1KV"):
        catalogue.get("mul8s_1KV7")
    with pytest.raises(InputError, match="unknown multiplier 'drum9u_6'"):
        catalogue.get("drum9u_6")


def test_the_catalogue_keeps_what_it_has_built():
    assert catalogue.get("drum8u_6") is catalogue.get("drum8u_6")
    assert catalogue.get("drum8u_6") == drum(6, signed=False)
    assert catalogue.get("roba8s") == roba(signed=True) != catalogue.get("roba8u")


def test_every_builder_cites_its_source():
    for family in FAMILIES.values():
        build = getattr(family.build, "func", family.build)
        assert family.source.split(",")[0].split()[0] in inspect.getdoc(build), family.prefix
