"""What fronts are worth and how sure we are of it: hypervolume, IGD+, attainment, intervals, paired comparisons.

Fronts are what the harness judged at moments of a search: points (validation error 0..1, cost per inference). Every run of
a section is measured against one reference, whatever the space that it searched. Nothing here imports torch.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import moocore
import numpy as np
from scipy.stats import bootstrap

from evaluation import significance
from evaluation.cli import comparison
from evaluation.runs import units
from evaluation.runs.record import Record
from evaluation.significance import Comparison
from reports.load import Run, Section
from reports.variants import SETTINGS, settings_of

Front = Sequence[Sequence[float]] | np.ndarray  # points (validation error 0..1, cost): (n, 2)
CONFIDENCE, FEWEST, FEWEST_OF_MEDIAN, RESAMPLES, SEED = 0.95, 3, 6, 9999, 0  # of intervals
# Values of a mean from which its interval is a bootstrap one: of fewer, BCa intervals of 95 % held the mean of normal
# values in 72 % (of 3), 84 % (5) and 93 % (10) of 400 samples, Student's in 95 %, 94 % and 97 %; and of exponential ones in
# 65 %, 78 % and 87 %, Student's in 87 %, 87 % and 89 %.
FEWEST_OF_BOOTSTRAP = 20
OUTSIDE = 2.0  # a normalised coordinate that no front of the box reaches


@dataclass(frozen=True)
class Reference:
    """The reference point of a section: error 1, and the largest cost of its runs' reference networks in int8."""

    cost: float
    unit: str

    @property
    def sentence(self) -> str:
        """What hypervolume and IGD+ mean here; to be printed under every use."""
        unit, size = units.of_tables(self.unit)
        amount = self.cost / size
        most = f"{amount:,.4g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"
        return (
            "Fronts: the networks that the harness judged on validation at the end of a search; error ÷ 100 %, "
            f"{units.noun(unit)} ÷ {most} "
            "(the largest of this section's reference networks in exact int8). Hypervolume: share of the box between "
            f"(0 %, 0 {unit}) and the reference point (100 %, {most}) that a front dominates. IGD+: mean distance, in these "
            "units, by which a front falls short of the best points of all runs of the section together; 0 is best."
        )


def reference(section: Section) -> Reference | None:
    """The reference of a section; None where no run has a judged front, or none of a positive cost."""
    largest = max((run.record.reference_cost for run in section.runs if run.moments), default=0.0)
    return Reference(float(largest), section.unit) if largest > 0 else None


def judged(runs: Iterable[Run]) -> list[Run]:
    """The runs that searched, and so have a front; an architecture that was given has none."""
    return [run for run in runs if run.moments]


def final_front(run: Run) -> Front:
    """The judged front at the end of the search, of a run that has one."""
    return run.moments[-1].front


def _normalised(front: Front, reference: Reference) -> np.ndarray:
    """(n, 2): error and cost ÷ reference; only points inside the box, as the others are worth nothing."""
    points = np.asarray(front, dtype=float).reshape(-1, 2) / (1.0, reference.cost)
    return points[(points < 1.0).all(axis=1)]


def hypervolume(front: Front, reference: Reference) -> float:
    """The share, 0..1, of the reference's box that a front dominates."""
    points = _normalised(front, reference)
    return float(moocore.hypervolume(points, ref=[1.0, 1.0])) if points.size else 0.0


def final_hypervolume(run: Run, reference: Reference | None) -> float | None:
    """Of the judged front at the end of a run's search; None where there is none."""
    return hypervolume(final_front(run), reference) if run.moments and reference else None


def union_front(section: Section) -> np.ndarray:
    """(n, 2): the points (error, cost) of all final fronts of the section that no other dominates, by error."""
    points = np.array([point for run in judged(section.runs) for point in final_front(run)], dtype=float).reshape(-1, 2)
    return np.unique(moocore.filter_dominated(points), axis=0) if points.size else points


def igd_plus(front: Front, union_front: Front, reference: Reference) -> float | None:
    """IGD+ (Ishibuchi et al., 2015) against the best known front, in units of the reference.

    The mean over the points of ``union_front`` of the distance to the nearest point of ``front``, where only what is
    worse counts. None where either is empty.
    """
    scale = (1.0, reference.cost)
    points, best = (np.asarray(found, dtype=float).reshape(-1, 2) / scale for found in (front, union_front))
    return float(moocore.igd_plus(points, ref=best)) if points.size and best.size else None


# -- over time ---------------------------------------------------------------------------------------------------------


def anytime(run: Run, reference: Reference) -> list[tuple[float, float]]:
    """(Device-hours of search, hypervolume of the front judged then), in order; nothing is known in between."""
    return [(moment.device_seconds / 3600, moment.hypervolume) for moment in _rescored(run, reference).anytime]


class Steps(NamedTuple):
    """Step curves: from ``hours[i]`` until ``hours[i + 1]`` the values are those at i. Arrays (n,)."""

    hours: np.ndarray
    low: np.ndarray  # the least of the runs
    median: np.ndarray
    high: np.ndarray  # the largest


def median_anytime(runs: Iterable[Run], reference: Reference) -> Steps:
    """Hypervolume against device-hours over several runs: least, median, largest.

    It begins where something is known of every run; a run that has ended keeps its last value. Empty without fronts.
    """
    curves = [anytime(run, reference) for run in judged(runs)]
    start = max((curve[0][0] for curve in curves), default=0.0)
    hours = sorted({hour for curve in curves for hour, _ in curve if hour >= start})
    known = np.array([[[value for at, value in curve if at <= hour][-1] for curve in curves] for hour in hours])
    known = known.reshape(len(hours), len(curves))
    if not hours:
        return Steps(*np.zeros((4, 0)))
    return Steps(np.array(hours), known.min(axis=1), np.median(known, axis=1), known.max(axis=1))


def speeds(section: Section) -> tuple[float, dict[str, float], dict[str, list[float]]] | None:
    """The common hypervolume, method → how many times faster than the worst it is there, and method → each run's
    device-seconds to it (infinite: never), as ``evaluation.cli.comparison`` defines them; methods in their usual settings.
    None without fronts.
    """
    found = reference(section)
    if found is None:
        return None
    # A poor variant of a method must not set what all have to reach.
    records = [_rescored(run, found) for run in judged(section.runs) if run.variant == run.method]
    if not records:
        return None
    target = comparison.target_hypervolume(records)
    seconds = {
        name: [comparison.seconds_to(r, target) for r in runs] for name, runs in comparison.by_method(records).items()
    }
    return target, comparison.speed_ups(records), seconds


def _rescored(run: Run, reference: Reference) -> Record:
    """The record with its variant as its method, and with hypervolumes in units of the section's reference."""
    moments = tuple(replace(moment, hypervolume=hypervolume(moment.front, reference)) for moment in run.moments)
    value = hypervolume(final_front(run), reference)
    return replace(run.record, method=run.variant, method_config={}, hypervolume=value, anytime=moments)


# -- several fronts ----------------------------------------------------------------------------------------------------


def attainment(fronts: Sequence[Front], reference: Reference) -> dict[str, np.ndarray]:
    """Empirical attainment surfaces (Fonseca et al., 2011): the corners (n, 2) of error and cost, by error.

    ``best`` is reached by at least one of the fronts, ``median`` by at least half of them, ``worst`` by all. An empty
    array: nothing inside the reference's box is reached by so many.
    """
    levels = {"best": 0.0, "median": 50.0, "worst": 100.0}
    if not fronts:
        return {name: np.zeros((0, 2)) for name in levels}
    normalised = [_normalised(front, reference) for front in fronts]
    # A front without a point in the box counts as one of the fronts all the same.
    filled = [points if points.size else np.full((1, 2), OUTSIDE) for points in normalised]
    sets = np.repeat(np.arange(len(filled)), [len(points) for points in filled])
    rows = moocore.eaf(np.concatenate(filled), sets, percentiles=list(levels.values()))
    surfaces = {name: rows[rows[:, 2] == level, :2] for name, level in levels.items()}
    inside = {name: corners[(corners < 1.0).all(axis=1)] for name, corners in surfaces.items()}
    return {name: corners[np.argsort(corners[:, 0])] * (1.0, reference.cost) for name, corners in inside.items()}


# -- how sure we are ---------------------------------------------------------------------------------------------------


def interval(values: Iterable[float], statistic: Callable[..., np.ndarray] = np.mean) -> tuple[float, float] | None:
    """The 95 % interval of the mean: Student's, from 20 values on the bootstrap's, bias-corrected and accelerated (Efron,
    1987); seeded.

    For another ``statistic``, such as np.median, by percentiles of the bootstrap. None below three values (six for a median,
    whose range alone would be taken else), and where it degenerates.
    """
    sample = np.array(list(values), dtype=float)
    if sample.size < (FEWEST if statistic is np.mean else FEWEST_OF_MEDIAN) or np.ptp(sample) == 0:
        return None
    if statistic is np.mean and sample.size < FEWEST_OF_BOOTSTRAP:
        return significance.students_interval(sample, CONFIDENCE)
    method = "BCa" if statistic is np.mean else "percentile"
    with warnings.catch_warnings():  # of degenerate samples, which show as NaN
        warnings.simplefilter("ignore")
        found = bootstrap(
            (sample,),
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    return (float(found.low), float(found.high)) if np.isfinite([found.low, found.high]).all() else None


def comparisons(section: Section) -> list[Comparison]:
    """Hypervolumes at the end of the search, runs paired by seed: all pairs of methods, then variants of each.

    A method stands in its usual settings; its other variants are compared with these alone. Holm's correction counts the
    pairs of methods, and apart from them the variants of each method, so that an ablation does not blur a comparison.
    """
    found = reference(section)
    if found is None:
        return []
    samples: dict[str, dict[int, list[float]]] = {}
    methods: dict[str, str] = {}
    for run in judged(section.runs):
        samples.setdefault(run.variant, {}).setdefault(run.seed, []).append(hypervolume(final_front(run), found))
        methods[run.variant] = run.method
    usual = [variant for variant, method in methods.items() if variant == method]
    families = [list(combinations(usual, 2))]
    families += [[(v, one) for v, method in methods.items() if method == one and v != one] for one in usual]
    return [
        replace(pair, interval=interval(pair.differences, np.median), unequal=_unequal(section, pair))
        for family in families
        for pair in significance.compare(samples, family)
    ]


def _unequal(section: Section, pair: Comparison) -> tuple[str, ...]:
    """What makes a comparison of two methods unfair; variants of one method say by name in what they differ."""
    one, other = (section.variants[name][0] for name in (pair.one, pair.other))
    if one.method == other.method:
        return ()
    settings, others = settings_of(one.record), settings_of(other.record)
    shared = (*(name for name in SETTINGS if name != "method_config"), "device")
    return tuple(name.replace("_", " ") for name in shared if settings.get(name) != others.get(name))
