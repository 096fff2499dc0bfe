"""The paired test against counting by hand, and the words that say what it can tell."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from evaluation import significance
from evaluation.significance import compare, holm, needed_pairs, rank_biserial, signed_rank_p
from tests.examples import examples

DIFFERENCES = st.lists(st.integers(-5, 5).map(lambda n: n / 10), min_size=1, max_size=8)


def counted_p(differences: list[float]) -> float:
    """The share of all patterns of signs whose rank sums are as uneven as those seen."""
    sizes = [abs(d) for d in differences if d]
    ranks = rankdata(sizes)
    seen = abs(sum(rank if d > 0 else -rank for rank, d in zip(ranks, (d for d in differences if d))))
    sums = [abs(sum(sign * rank for sign, rank in zip(signs, ranks))) for signs in product((-1, 1), repeat=len(ranks))]
    return sum(total >= seen - 1e-9 for total in sums) / len(sums)


@settings(deadline=None, max_examples=examples(60))
@given(DIFFERENCES)
def test_p_is_exact_with_ties_and_zeros(differences):
    assert signed_rank_p(differences) == pytest.approx(counted_p(differences))


@given(DIFFERENCES)
def test_the_effect_turns_with_its_pairs(differences):
    assert rank_biserial([-d for d in differences]) == pytest.approx(-rank_biserial(differences))
    assert -1 <= rank_biserial(differences) <= 1


def test_the_effect_by_hand():
    # Ranks of 0.1, 0.2, 0.3, 0.4 are 1 to 4: (1 + 3 + 4 − 2) / 10.
    assert rank_biserial([0.1, -0.2, 0.3, 0.4]) == pytest.approx(0.6)
    assert rank_biserial([0.0, 0.0]) == 0.0
    # 0.6 − 0.3 and 0.7 − 0.4 differ in the last bit and share a rank: (1.5 − 1.5) / 3.
    assert rank_biserial([0.6 - 0.3, -(0.7 - 0.4)]) == 0.0


def test_holm_by_hand():
    # Smallest first: 3 · 0.01, 2 · 0.02, 1 · 0.03 → made monotone.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.data())
def test_holm_is_monotone_in_every_p(p_values, data):
    """The bound on what so few pairs can show rests on it."""
    at = data.draw(st.integers(0, len(p_values) - 1))
    smaller = [*p_values]
    smaller[at] = data.draw(st.floats(0, p_values[at]))
    assert all(low <= high + 1e-12 for low, high in zip(holm(smaller), holm(p_values)))


def test_how_many_seeds_it_takes():
    assert needed_pairs(1) == 6  # 2 / 2^6 = 0.031
    assert needed_pairs(3) == 7  # 3 · 2 / 2^7 = 0.047
    assert needed_pairs(10) == 9  # 10 · 2 / 2^9 = 0.039


def samples(**values: list[float]) -> dict[str, dict[int, list[float]]]:
    return {name: {seed: [value] for seed, value in enumerate(found)} for name, found in values.items()}


def test_three_methods_over_seven_seeds():
    steps = [n / 100 for n in range(7)]
    pairs = compare(samples(best=[0.7 + s for s in steps], even=[0.5] * 7, mixed=[0.5 + s - 0.03 for s in steps]))
    assert [(pair.one, pair.other) for pair in pairs] == [("best", "even"), ("best", "mixed"), ("even", "mixed")]
    clear, also, none = pairs
    # All seven of one sign: 2 / 2^7 = 0.0156; two such pairs of three: 3 · 0.0156 both.
    assert (clear.p, clear.adjusted_p) == (pytest.approx(2 / 128), pytest.approx(6 / 128))
    assert (also.adjusted_p, also.larger) == (pytest.approx(6 / 128), "best")
    assert clear.verdict == "best has the larger hypervolume (median difference +0.230, p = 0.047, 7 pairs, r = +1.00)"
    assert none.larger is None
    assert none.sentence == (
        "even and mixed: not distinguishable in hypervolume (median difference +0.000, p = 1, 7 pairs, r = +0.00)"
    )


def test_the_smaller_one_may_come_first():
    (pair,) = compare(samples(low=[0.1] * 6, high=[0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    assert pair.verdict == "high has the larger hypervolume (median difference −0.350, p = 0.031, 6 pairs, r = −1.00)"


def test_seeds_pair_and_repetitions_of_one_seed_count_once():
    (pair,) = compare({"a": {0: [0.5, 0.7], 1: [0.1], 2: [0.9]}, "b": {2: [0.2], 0: [0.4], 5: [0.0]}})
    assert pair.seeds == (0, 2)
    assert pair.differences == pytest.approx((0.2, 0.7))
    assert "2 pairs" in pair.verdict and pair.verdict.endswith(
        "; so few pairs can never show a difference, it takes 6 seeds of both"
    )


def test_without_a_common_seed_nothing_is_said():
    (pair,) = compare({"a": {0: [0.5]}, "b": {1: [0.4]}})
    assert (pair.p, pair.effect, pair.median_difference, pair.larger) == (1.0, 0.0, None, None)
    assert pair.verdict.startswith("not distinguishable in hypervolume (no seed in common); so few pairs")
    assert compare({"a": {0: [0.5]}}) == compare({}) == []


def test_what_so_few_pairs_can_show_depends_on_the_other_pairs():
    """Holm multiplies the last of three by one only."""
    a, b, c = (
        {seed: [level + seed / 100] for seed in seeds}
        for level, seeds in ((0.6, range(9)), (0.3, range(11)), (0.1, range(3, 11)))
    )
    # 3 · 2/2^9 = 0.0117 and 2 · 2/2^8 = 0.0156 come first: the six pairs of a and c have 2/2^6 = 0.0313 to themselves.
    pairs = compare({"a": a, "b": b, "c": c})
    assert [(len(pair.seeds), round(pair.adjusted_p, 4), pair.possible) for pair in pairs] == [
        (9, 0.0117, True), (6, 0.0312, True), (8, 0.0156, True),
    ]  # fmt: skip
    # With six pairs of b and c, too, both need 2 · 2/2^6 = 0.0625.
    pairs = compare({"a": a, "b": b, "c": {seed: c[seed] for seed in range(3, 9)}})
    assert [(round(pair.adjusted_p, 4), pair.possible) for pair in pairs] == [(0.0117, True), *[(0.0625, False)] * 2]


def test_what_else_differs_is_said():
    (pair,) = compare(samples(a=[0.5], b=[0.4]))
    told = replace(pair, unequal=("budget", "device"), interval=(-0.1, 0.25)).verdict
    assert "95 % interval −0.100 to +0.250" in told and told.endswith("; mind that they also differ in budget, device")


def test_the_explanation_names_the_level_of_exactness():
    assert "exact up to 50" in significance.EXPLANATION and "Holm" in significance.EXPLANATION
