"""How good searches on a table are: regret to the exact front, ranks, and whether anything beats the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.trajectories import Moment, Trajectory
from evaluation.runs.accounts import TOLERANCE
from evaluation.settings.config import Budget
from evaluation.significance import CONTROLS, LEVEL, Comparison, students_interval
from evaluation.significance import compare as compared

PARTS = (0.1, 0.25, 0.5, 1.0)  # of the budget


@dataclass(frozen=True)
class Standing:
    """A method among others. Regrets are means over its seeds."""

    method: str
    seeds: int
    regrets: tuple[float, ...]  # after the ``PARTS`` of the budget; the last at the end
    interval: tuple[float, float]  # 95 %, of the mean regret at the end (Student's t)
    rank: float | None  # mean over the seeds that all methods have; None where there is none
    spent: float  # of the budget, in its unit
    overrun: bool

    @property
    def control(self) -> bool:
        """Whether it is there for others to be measured by."""
        return self.method in CONTROLS


@dataclass(frozen=True)
class Ranking:
    """All methods, best first."""

    standings: tuple[Standing, ...]
    shared_seeds: int
    friedman_p: float | None  # of the hypothesis that all methods are alike
    critical_difference: float | None  # of mean ranks (Nemenyi; Demšar, JMLR 2006)
    against_control: Comparison | None  # the best method that is no control, and the best control

    @property
    def sentence(self) -> str:
        """Whether the best method beats the best control."""
        pair = self.against_control
        if pair is None:
            return "There is no pair of a method and a control to compare."
        figures = (
            f"median difference of regret {pair.median_difference:+.4f}, p = {pair.adjusted_p:.2g}, {len(pair.seeds)} seeds"
        ).replace("-", "−")
        if pair.larger == pair.other:
            return f"The best method, {pair.one}, beats the best control, {pair.other} ({figures})."
        if pair.larger == pair.one:
            return f"No method beats the best control: {pair.other} has less regret than {pair.one} ({figures})."
        return f"The best method, {pair.one}, and the best control, {pair.other}, cannot be told apart ({figures})."


def spent_of(moment: Moment, budget: Budget) -> float:
    """In the budget's unit; device-seconds where it has none."""
    if budget.work is not None:
        return moment.work
    return float(moment.evaluations) if budget.evaluations is not None else moment.seconds


def granted_by(budget: Budget) -> float | None:
    """In the same unit."""
    limits = (budget.work, budget.evaluations, budget.seconds)
    return next((float(limit) for limit in limits if limit is not None), None)


def regret_at(found: Trajectory, landscape: Landscape, budget: Budget, amount: float) -> float:
    """Of what a search had proposed when it had spent so much."""
    before = [moment for moment in found.moments if spent_of(moment, budget) <= amount]
    return landscape.regret(before[-1].proposals if before else ())


def final_regret(found: Trajectory, landscape: Landscape) -> float:
    return landscape.regret(found.moments[-1].proposals)


def rank(searches: Sequence[Trajectory], landscape: Landscape, budget: Budget) -> Ranking:
    """Raises ValueError where there are no searches."""
    by_method: dict[str, dict[int, Trajectory]] = {}
    for each in searches:
        by_method.setdefault(each.method, {})[each.seed] = each
    finals = {
        name: {seed: final_regret(found, landscape) for seed, found in runs.items()} for name, runs in by_method.items()
    }
    shared = sorted(set.intersection(*(set(runs) for runs in finals.values())))
    ranks = _mean_ranks(finals, shared)
    standings = [
        _standing(name, list(runs.values()), list(finals[name].values()), landscape, budget, ranks.get(name))
        for name, runs in by_method.items()
    ]
    standings.sort(key=lambda each: each.regrets[-1])
    count = len(finals)
    several = count >= 2 and len(shared) >= 2
    return Ranking(
        tuple(standings),
        len(shared),
        _friedman(finals, shared) if count >= 3 and several else None,
        _critical_difference(count, len(shared)) if several else None,
        _against_control(standings, finals),
    )


def _standing(
    name: str,
    searches: Sequence[Trajectory],
    finals: Sequence[float],
    landscape: Landscape,
    budget: Budget,
    mean_rank: float | None,
) -> Standing:
    granted = granted_by(budget) or max(spent_of(each.moments[-1], budget) for each in searches)
    spent = fmean(spent_of(each.moments[-1], budget) for each in searches)
    parts = [fmean(regret_at(each, landscape, budget, part * granted) for each in searches) for part in PARTS[:-1]]
    overrun = spent > (1 + TOLERANCE) * granted
    return Standing(name, len(searches), (*parts, fmean(finals)), students_interval(finals), mean_rank, spent, overrun)


def _mean_ranks(finals: Mapping[str, Mapping[int, float]], shared: Sequence[int]) -> dict[str, float]:
    if not shared:
        return {}
    table = np.array([[runs[seed] for runs in finals.values()] for seed in shared])
    return dict(zip(finals, stats.rankdata(np.round(table, 12), axis=1).mean(axis=0).tolist()))


def _friedman(finals: Mapping[str, Mapping[int, float]], shared: Sequence[int]) -> float:
    columns = [[runs[seed] for seed in shared] for runs in finals.values()]
    if all(len(set(row)) == 1 for row in zip(*columns)):
        return 1.0
    return float(stats.friedmanchisquare(*columns).pvalue)


def _critical_difference(methods: int, seeds: int) -> float:
    """Of mean ranks: q √(k (k + 1) / 6 N), q of the studentised range over √2 (Demšar, JMLR 2006, section 3.2.2)."""
    q = float(stats.studentized_range.ppf(1 - LEVEL, methods, np.inf)) / 2**0.5
    return q * (methods * (methods + 1) / (6 * seeds)) ** 0.5


def _against_control(standings: Sequence[Standing], finals: Mapping[str, Mapping[int, float]]) -> Comparison | None:
    best = next((each.method for each in standings if not each.control), None)
    control = next((each.method for each in standings if each.control), None)
    if best is None or control is None:
        return None
    samples = {name: {seed: [value] for seed, value in finals[name].items()} for name in (best, control)}
    return compared(samples, [(best, control)])[0]
