"""What fronts are worth, by hand and by brute force, and who is said to be better."""

import math
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from reports import statistics
from reports.load import Section, load
from reports.statistics import Reference
from reports.tables import search_cost
from tests.examples import examples
from tests.made_records import moment, record, save

HUNDRED = Reference(100.0, "pJ")
# Points on a grid of tenths, up to and beyond the reference.
POINTS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=7)
quick = settings(deadline=None, max_examples=examples(60))


def on_grid(points: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(error / 10, energy * 10.0) for error, energy in points]


def section(folder: Path, *records: dict) -> Section:
    """The only section of these records."""
    for number, made in enumerate(records):
        save(folder / f"run{number}", made)
    (only,) = load([folder]).sections
    return only


def searched(method: str, seed: int, *fronts: tuple[tuple[float, float], ...], **changes) -> dict:
    """A record whose judged fronts come every 36 device-seconds, a hundredth of an hour."""
    moments = [moment(mark, 36.0 * mark, *front) for mark, front in enumerate(fronts, 1)]
    return record(method=method, seed=seed, anytime=moments, **changes)


# -- one front ---------------------------------------------------------------------------------------------------------


def test_hypervolume_by_hand():
    # 0.8 wide from 0.2 and 0.4 high below 60, and half as wide below 20 only: 0.8 · 0.4 + 0.5 · 0.4.
    assert statistics.hypervolume([(0.5, 20.0), (0.2, 60.0), (0.6, 90.0)], HUNDRED) == pytest.approx(0.52)
    assert statistics.hypervolume([(0.0, 0.0)], HUNDRED) == 1.0
    # On the edge of the box or outside it a point dominates nothing.
    for front in ([], [(1.0, 10.0)], [(0.1, 100.0)], [(0.1, 200.0)]):
        assert statistics.hypervolume(front, HUNDRED) == 0.0
    assert statistics.hypervolume([(0.5, 50.0)], Reference(200.0, "pJ")) == pytest.approx(0.5 * 0.75)


@quick
@given(POINTS)
def test_hypervolume_against_counting_cells(points):
    dominated = sum(any(e <= x and p <= y for e, p in points) for x, y in product(range(10), repeat=2))
    assert statistics.hypervolume(on_grid(points), HUNDRED) == pytest.approx(dominated / 100)


def test_igd_plus_by_hand():
    best = [(0.1, 50.0), (0.3, 20.0)]
    assert statistics.igd_plus(best, best, HUNDRED) == 0.0
    # (0.2, 50) is 0.1 worse than the first in error; than the second by 0.3 in energy alone, its error being better.
    assert statistics.igd_plus([(0.2, 50.0)], best, HUNDRED) == pytest.approx((0.1 + 0.3) / 2)
    assert statistics.igd_plus([(0.0, 10.0)], best, HUNDRED) == 0.0  # better costs nothing
    assert statistics.igd_plus([], best, HUNDRED) is None
    assert statistics.igd_plus(best, [], HUNDRED) is None


@quick
@given(POINTS.filter(len), POINTS.filter(len))
def test_igd_plus_against_brute_force(front, best):
    front, best = on_grid(front), on_grid(best)
    nearest = [min(math.hypot(max(e - x, 0), max(p - y, 0) / 100) for e, p in front) for x, y in best]
    assert statistics.igd_plus(front, best, HUNDRED) == pytest.approx(sum(nearest) / len(nearest))


# -- several fronts ----------------------------------------------------------------------------------------------------


def test_attainment_by_hand():
    nested = [[(0.1 * n, 10.0 * n)] for n in range(1, 5)]
    found = statistics.attainment(nested, HUNDRED)
    # Half of four is two; each front dominates the next.
    assert {name: points.tolist() for name, points in found.items()} == {
        "best": [[0.1, 10.0]],
        "median": [[0.2, 20.0]],
        "worst": [[0.4, 40.0]],
    }
    # A search that found nothing is one of them all the same: nothing is reached by all.
    found = statistics.attainment([*nested, []], HUNDRED)
    assert found["median"].tolist() == [[pytest.approx(0.3), 30.0]] and found["worst"].shape == (0, 2)
    crossed = statistics.attainment([[(0.1, 50.0)], [(0.5, 10.0)]], HUNDRED)
    assert crossed["best"].tolist() == crossed["median"].tolist() == [[0.1, 50.0], [0.5, 10.0]]
    assert crossed["worst"].tolist() == [[0.5, 50.0]]
    assert [points.shape for points in statistics.attainment([], HUNDRED).values()] == [(0, 2)] * 3


@quick
@given(st.lists(POINTS, min_size=1, max_size=5))
def test_attainment_against_brute_force(fronts):
    """A surface covers a cell of the grid where so many of the fronts do; and its corners are needed, all of them."""
    found = statistics.attainment([on_grid(front) for front in fronts], HUNDRED)
    for name, level in (("best", 1), ("median", math.ceil(len(fronts) / 2)), ("worst", len(fronts))):
        corners = [(round(error * 10), round(energy / 10)) for error, energy in found[name]]
        for x, y in product(range(10), repeat=2):
            reached = sum(any(e <= x and p <= y for e, p in front) for front in fronts)
            assert any(e <= x and p <= y for e, p in corners) == (reached >= level)
        assert corners == sorted(corners) and len(corners) == len(set(corners))
        assert not any(a != b and a[0] <= b[0] and a[1] <= b[1] for a in corners for b in corners)


# -- a section ---------------------------------------------------------------------------------------------------------


def test_one_reference_for_all_runs_of_a_section(tmp_path):
    """Versions may differ in what a reference network costs; the larger is that of all, whatever records say."""
    runs = section(
        tmp_path,
        searched("random", 0, ((0.5, 500.0),), reference_cost=1000.0),
        searched("evoapproxnas", 0, ((0.5, 500.0),), reference_cost=2000.0),
        record(method="given", anytime=[], reference_cost=9000.0),  # was given its architecture
    )
    found = statistics.reference(runs)
    assert found == Reference(2000.0, "pJ")
    volumes = {run.method: statistics.final_hypervolume(run, found) for run in runs.runs}
    assert volumes == {"random": pytest.approx(0.375), "evoapproxnas": pytest.approx(0.375), "given": None}
    assert "(100 %, 2 nJ)" in found.sentence and "energy ÷ 2 nJ" in found.sentence


@pytest.mark.parametrize(("pj", "text"), [(212749.8, "212.7 nJ"), (15484442.6, "15,484 nJ"), (42.0, "0.042 nJ")])
def test_the_sentence_names_the_reference(pj, text):
    assert f"the reference point (100 %, {text})" in Reference(pj, "pJ").sentence
    assert "IGD+" in Reference(pj, "pJ").sentence


def test_without_a_search_there_is_no_reference(tmp_path):
    runs = section(tmp_path, record(anytime=[]), record(seed=1, anytime=[]))
    assert statistics.reference(runs) is None and statistics.speeds(runs) is None
    assert statistics.comparisons(runs) == []
    assert statistics.union_front(runs).shape == (0, 2)


def test_the_union_front_is_what_no_run_beats(tmp_path):
    runs = section(
        tmp_path,
        searched("random", 0, ((0.1, 900.0),), ((0.3, 300.0), (0.5, 100.0))),  # the first front is not the last
        searched("random", 1, ((0.2, 400.0), (0.3, 350.0))),
        searched("random", 2, ((0.3, 300.0),)),
    )
    assert statistics.union_front(runs).tolist() == [[0.2, 400.0], [0.3, 300.0], [0.5, 100.0]]


def test_hypervolume_over_time(tmp_path):
    first, second = ((0.5, 500.0),), ((0.5, 200.0),)
    runs = section(tmp_path, searched("random", 0, first, second), searched("random", 1, (), first, first))
    found = statistics.reference(runs)
    assert statistics.anytime(runs.runs[0], found) == [(0.01, 0.25), (0.02, pytest.approx(0.4))]
    hours, low, median, high = statistics.median_anytime(runs.runs, found)
    # The first run keeps 0.4 once it has ended.
    assert hours.tolist() == [0.01, 0.02, 0.03]
    assert low.tolist() == [0.0, 0.25, 0.25]
    assert median.tolist() == pytest.approx([0.125, 0.325, 0.325])
    assert high.tolist() == pytest.approx([0.25, 0.4, 0.4])


def test_the_median_curve_begins_where_all_are_known(tmp_path):
    early = searched("random", 0, ((0.5, 500.0),))
    late = record(seed=1, anytime=[moment(1, 90.0, (0.5, 200.0))])
    runs = section(tmp_path, early, late, record(seed=2, anytime=[]))
    curve = statistics.median_anytime(runs.runs, statistics.reference(runs))
    assert (curve.hours.tolist(), curve.low.tolist()) == ([0.025], [0.25])
    assert [part.size for part in statistics.median_anytime([], HUNDRED)] == [0, 0, 0, 0]


def test_times_to_the_common_hypervolume(tmp_path):
    """0.25 at 36 s and 0.4 at 72 s against 0.3 at 108 s: the slower one's final value is reached at 72 s."""
    fast = searched("fast", 0, ((0.5, 500.0),), ((0.5, 200.0),))
    slow = searched("slow", 0, (), (), ((0.5, 400.0),))
    target, faster, seconds = statistics.speeds(section(tmp_path, fast, slow))
    assert target == pytest.approx(0.3)
    assert faster == {"fast": pytest.approx(1.5), "slow": 1.0}
    assert seconds == {"fast": [72.0], "slow": [108.0]}


@pytest.mark.parametrize("methods", [("timeless", "slow"), ("timeless", "approxdarts"), ("timeless",)])
def test_a_front_that_took_no_time_gives_times_but_no_ratio(tmp_path, methods):
    made = [record(method=name, anytime=[moment(1, 36.0 * at, (0.5, 200.0))]) for at, name in enumerate(methods)]
    told = section(tmp_path, *made)
    assert statistics.speeds(told)[1:] == ({}, {name: [36.0 * at] for at, name in enumerate(methods)})
    time, faster = list(zip(*search_cost(told).rows))[-2:]
    assert 0.0 in {cell.value for cell in time} and {cell.value for cell in faster} == {None}


# -- how sure we are ---------------------------------------------------------------------------------------------------


def exhaustive_bca(sample: list[float]) -> tuple[float, float]:
    """Efron's interval from all resamples rather than from some of them."""
    values = np.array(sample)
    means = np.array([np.mean(drawn) for drawn in product(sample, repeat=len(sample))])
    centre = values.mean()
    bias = norm.ppf(((means < centre - 1e-12).mean() + (means <= centre + 1e-12).mean()) / 2)
    left_out = np.array([np.delete(values, at).mean() for at in range(len(values))])
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    ends = []
    for z in norm.ppf([0.025, 0.975]):
        share = norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(np.quantile(means, share))
    return ends[0], ends[1]


def test_the_interval_of_few_values_is_students():
    sample = [0.61, 0.64, 0.70, 0.71, 0.75]  # mean 0.682, standard deviation 0.0563
    half = 2.7764 * 0.056303 / math.sqrt(5)
    assert statistics.interval(sample) == pytest.approx((0.682 - half, 0.682 + half), abs=1e-5)
    many = [math.sin(at) for at in range(20)]  # bounded and symmetric: wider by Student's law than they vary
    half = 2.0930 * np.std(many, ddof=1) / math.sqrt(20)
    low, high = statistics.interval(many)
    assert high - low != pytest.approx(2 * half, rel=0.01) and high - low == pytest.approx(2 * half, rel=0.15)


def test_the_interval_against_all_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "FEWEST_OF_BOOTSTRAP", 3)
    sample = [0.61, 0.64, 0.70, 0.71, 0.75]
    assert statistics.interval(sample) == pytest.approx(exhaustive_bca(sample), abs=0.004)
    six = [0.1, 0.2, 0.3, 0.5, 0.6, 0.9]
    medians = [np.median(drawn) for drawn in product(six, repeat=6)]
    assert statistics.interval(six, np.median) == pytest.approx(np.quantile(medians, [0.025, 0.975]), abs=0.05)
    # The interval of fewer would be the whole range of the values, which holds the true median too rarely.
    assert statistics.interval(six[:5], np.median) is None


def test_the_interval_is_the_same_every_time_and_none_where_nothing_is_known():
    sample = [0.5, 0.52, 0.61, 0.66]
    assert statistics.interval(sample) == statistics.interval(iter(sample))
    for degenerate in ([], [0.5], [0.5, 0.6], [0.5] * 5):
        assert statistics.interval(degenerate) is None


def seven_seeds(folder: Path, **changes) -> Section:
    """Three methods over seven seeds with one point each: hypervolume = (1 − error) · 0.5."""
    steps = [s / 100 for s in range(7)]
    errors = {"alpha": [0.1 + step for step in steps], "beta": [0.5] * 7, "gamma": [0.47 + step for step in steps]}
    return section(
        folder,
        *(
            searched(name, s, ((error, 500.0),), **(changes if name == "beta" else {}))
            for name, found in errors.items()
            for s, error in enumerate(found)
        ),
    )


def test_who_is_better_and_by_how_much(tmp_path):
    pairs = {(pair.one, pair.other): pair for pair in statistics.comparisons(seven_seeds(tmp_path))}
    # alpha − beta: (0.5 − 0.1 − s/100) / 2 = 0.20 − s/200; all seven of one sign: 3 · 2/2^7 after Holm.
    clear = pairs["alpha", "beta"]
    assert clear.differences == pytest.approx([0.2 - s / 200 for s in range(7)])
    assert (clear.larger, clear.effect, clear.adjusted_p) == ("alpha", 1.0, pytest.approx(6 / 128))
    # The least of seven is the median of 1.0 % of all resamples, one of the least two that of 10.8 %: the ends are the
    # second and the sixth.
    assert clear.interval == pytest.approx((0.175, 0.195))
    assert clear.sentence.startswith(
        "alpha and beta: alpha has the larger hypervolume (median difference +0.185, 95 % "
    )
    # beta − gamma: (s − 3)/200, as many up as down.
    even = pairs["beta", "gamma"]
    assert (even.larger, even.effect, even.adjusted_p) == (None, pytest.approx(0.0), 1.0)
    assert "not distinguishable" in even.verdict and even.possible


def test_unequal_conditions_are_said_aloud(tmp_path):
    pairs = statistics.comparisons(seven_seeds(tmp_path, budget="5m", multiplier_choice="network"))
    told = {(pair.one, pair.other): pair.unequal for pair in pairs}
    assert told == {
        ("alpha", "beta"): ("multiplier choice", "budget"),
        ("alpha", "gamma"): (),
        ("beta", "gamma"): ("multiplier choice", "budget"),
    }


def test_settings_of_one_method_are_compared_with_the_usual_ones_and_counted_apart(tmp_path):
    """Seven seeds each: two methods make one pair, three settings of one of them two more, each family on its own."""
    runs = section(
        tmp_path,
        *(searched("alpha", s, ((0.1 + s / 100, 500.0),)) for s in range(8)),
        *(searched("beta", s, ((0.6, 500.0),)) for s in range(7)),
        *(searched("alpha", s, ((0.4, 500.0),), budget="5m") for s in range(7)),
        *(searched("alpha", s, ((0.3, 500.0),), budget="9m") for s in range(7)),
    )
    pairs = statistics.comparisons(runs)
    assert [(pair.one, pair.other) for pair in pairs] == [
        ("alpha", "beta"),
        ("alpha (budget=5m)", "alpha"),
        ("alpha (budget=9m)", "alpha"),
    ]
    # All of one sign: 2/2^7 = 0.0156, twice that in the family of two.
    assert [pair.adjusted_p for pair in pairs] == pytest.approx([2 / 128, 4 / 128, 4 / 128])
    assert [pair.effect for pair in pairs] == [1.0, -1.0, -1.0]
    assert [pair.seeds_needed for pair in pairs] == [6, 7, 7]
    assert [pair.unequal for pair in pairs] == [(), (), ()]  # the name of the variant says it


def test_importing_leaves_torch_alone():
    code = "import sys, reports.statistics, reports.tables; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False).returncode == 0
