"""Whether one search is better than another: runs paired by seed, one test, and its words.

The terminal's table and the reports both use it, so that they never disagree. Nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median

import numpy as np
from scipy.stats import rankdata, t, wilcoxon

LEVEL = 0.05  # of significance
CONTROLS = ("random", "local_search", "zero")  # methods that others are measured by
DIGITS = 12  # differences beyond are round-off, not ranks

EXPLANATION = (
    "p: two-sided Wilcoxon signed-rank test of hypervolumes at the end of the search, runs paired by seed; exact up to 50 "
    "pairs, with ties up to 13; after Holm's correction over all pairs of methods, or over all variants of one. "
    "r: matched-pairs rank-biserial correlation, from −1 to 1."
)


@dataclass(frozen=True)
class Comparison:
    """Two samples of hypervolumes, paired by seed."""

    one: str
    other: str
    seeds: tuple[int, ...]  # that both have
    differences: tuple[float, ...]  # one − other, seed by seed
    p: float  # of this pair alone
    adjusted_p: float  # after Holm's correction over all pairs
    effect: float  # matched-pairs rank-biserial correlation, −1..1; positive: ``one`` is larger
    seeds_needed: int  # so that a difference could show, given how many pairs are compared
    possible: bool  # whether so many seeds could show a difference at all
    interval: tuple[float, float] | None = None  # 95 %, of the median difference; where somebody computed it
    unequal: tuple[str, ...] = ()  # settings other than the methods' own in which the two differ

    @property
    def median_difference(self) -> float | None:
        return median(self.differences) if self.differences else None

    @property
    def larger(self) -> str | None:
        """Which has the larger hypervolume; None where the test cannot tell."""
        if self.adjusted_p >= LEVEL:
            return None
        return self.one if self.effect > 0 else self.other

    @property
    def verdict(self) -> str:
        """In words, with the numbers that it rests on; differences and r are those of the first minus the second."""
        words = f"{self.larger} has the larger hypervolume" if self.larger else "not distinguishable in hypervolume"
        words += f" ({self._figures()})"
        if not self.possible:
            words += f"; so few pairs can never show a difference, it takes {self.seeds_needed} seeds of both"
        return f"{words}; mind that they also differ in {', '.join(self.unequal)}" if self.unequal else words

    @property
    def sentence(self) -> str:
        return f"{self.one} and {self.other}: {self.verdict}"

    def _figures(self) -> str:
        pairs = len(self.seeds)
        if not pairs:
            return "no seed in common"
        parts = [f"median difference {self.median_difference:+.3f}".replace("-", "−")]
        if self.interval:
            low, high = (f"{end:+.3f}".replace("-", "−") for end in self.interval)
            parts.append(f"95 % interval {low} to {high}")
        parts += [f"p = {self.adjusted_p:.2g}", f"{pairs} pair{'s' * (pairs > 1)}"]
        return ", ".join([*parts, f"r = {self.effect:+.2f}".replace("-", "−")])


def compare(
    samples: Mapping[str, Mapping[int, Sequence[float]]], pairs: Sequence[tuple[str, str]] | None = None
) -> list[Comparison]:
    """All ``pairs`` of ``samples``, or those that are asked for; p-values are corrected for their number.

    ``samples``: name → seed → hypervolumes. Repetitions of one seed count once, by their mean.
    """
    values = {name: {seed: mean(found) for seed, found in runs.items()} for name, runs in samples.items()}
    pairs = list(combinations(values, 2)) if pairs is None else pairs
    seeds = [tuple(sorted(values[one].keys() & values[other].keys())) for one, other in pairs]
    differences = [
        tuple(values[one][seed] - values[other][seed] for seed in shared) for (one, other), shared in zip(pairs, seeds)
    ]
    p = [signed_rank_p(found) for found in differences]
    adjusted = holm(p)
    # Holm's correction is monotone in every p, so that this bounds it from below.
    lowest = holm([lowest_p(len(shared)) for shared in seeds])
    return [
        Comparison(
            one=one,
            other=other,
            seeds=seeds[at],
            differences=differences[at],
            p=p[at],
            adjusted_p=adjusted[at],
            effect=rank_biserial(differences[at]),
            seeds_needed=needed_pairs(len(pairs)),
            possible=lowest[at] < LEVEL,
        )
        for at, (one, other) in enumerate(pairs)
    ]


def signed_rank_p(differences: Sequence[float]) -> float:
    """Of the two-sided Wilcoxon signed-rank test that differences are symmetric about 0; pairs without one are dropped.

    Exact up to 50 differences without ties, and up to 13 with ties; else by the normal approximation.
    """
    unequal = _unequal(differences)
    return float(wilcoxon(unequal).pvalue) if unequal.size else 1.0


def rank_biserial(differences: Sequence[float]) -> float:
    """(W₊ − W₋) / (W₊ + W₋), the rank sums of positive and negative differences (Kerby, 2014); 0 where there are none."""
    unequal = _unequal(differences)
    ranks = rankdata(np.abs(unequal))
    return float((ranks * np.sign(unequal)).sum() / ranks.sum()) if unequal.size else 0.0


def _unequal(differences: Sequence[float]) -> np.ndarray:
    rounded = np.round(np.asarray(differences, dtype=float), DIGITS)
    return rounded[rounded != 0]


def students_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Of the mean, by Student's t; the mean itself where all values are equal, or there is one."""
    sample = np.asarray(values, dtype=float)
    if np.ptp(sample) == 0:
        return float(sample.mean()), float(sample.mean())
    half = t.ppf((1 + confidence) / 2, sample.size - 1) * sample.std(ddof=1) / sample.size**0.5
    return float(sample.mean() - half), float(sample.mean() + half)


def lowest_p(pairs: int) -> float:
    """The smallest p that the test can give: two of the 2^pairs patterns of signs are the most extreme."""
    return min(1.0, 2.0 ** (1 - pairs))


def needed_pairs(comparisons: int) -> int:
    """The fewest pairs with which every one of so many comparisons could come out below ``LEVEL`` after correction."""
    pairs = 1
    while comparisons * lowest_p(pairs) >= LEVEL:
        pairs += 1
    return pairs


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the same order (Holm, 1979): the i-th smallest of n times n − i + 1, made monotone."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(order)
    highest = 0.0
    for at, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - at) * float(p_values[index])))
        adjusted[index] = highest
    return adjusted
