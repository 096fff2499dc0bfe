"""Comparisons of searches on a table of trained networks, as ``approxnas table compare`` keeps them: what became of each.

Importing this leaves torch alone; reading a comparison imports it, for the costs of its networks are traced.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

import numpy as np

from evaluation.runs import units
from reports.finding import LeftOut, find_comparisons
from spaces.errors import InputError

if TYPE_CHECKING:
    from evaluation.benchmark.header import Table
    from evaluation.benchmark.ranking import Ranking
    from evaluation.benchmark.regret import Landscape
    from evaluation.benchmark.trajectories import Trajectory, TrajectoryFile
    from evaluation.settings.config import Budget

POINTS = 80  # of a curve


@dataclass(frozen=True)
class Curve:
    """Regret of a method's searches against what they had spent. Arrays (POINTS,)."""

    amounts: np.ndarray
    mean: np.ndarray
    low: np.ndarray  # ends of the 95 % interval of the mean (Student's)
    high: np.ndarray


FRONTS = ("true front", "predicted front")


@dataclass(frozen=True)
class Proposal:
    """A network that a search handed over, by its true figures."""

    error: float  # 0..1, mean over the table's trainings
    cost: float
    saved: float  # share of the same network's cost in exact int8
    summary: str


@dataclass(frozen=True)
class Searched:
    """A comparison. Methods are in the order of its ranking, best first."""

    name: str
    file: Path
    dataset: str
    space: str
    budget: str
    cost_model: str
    unit: str  # of costs
    spent_in: str  # what a budget is counted in
    hypervolume: float  # of the true front
    ranking: "Ranking"
    curves: Mapping[str, Curve]
    most_accurate: Mapping[str, tuple[Proposal, ...]]  # of every search
    typical: Mapping[str, tuple[Proposal, ...]]  # all that the search of the median regret handed over
    true_front: tuple[Proposal, ...]
    reliability: str = ""  # of errors that are predicted: how far they are to be trusted

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.space}, on a table of {'predicted' if self.reliability else 'trained'} networks"

    @property
    def front_name(self) -> str:
        return FRONTS[bool(self.reliability)]

    @property
    def searches(self) -> int:
        return sum(each.seeds for each in self.ranking.standings)


def read_comparisons(paths: Iterable[Path], left_out: list[LeftOut]) -> tuple[Searched, ...]:
    """The comparisons at or below these paths, that of most searches first; what cannot be read is left out."""
    found = []
    for file in find_comparisons(paths):
        try:
            found.append(read_searches(file))
        except (OSError, ValueError, RecursionError) as error:
            left_out.append(LeftOut(str(file), str(error)))
    found.sort(key=lambda each: -each.searches)
    return tuple(replace(each, name=f"searches{at}") for at, each in enumerate(found, 1))


def read_searches(file: Path) -> Searched:
    """Raises InputError where the file is no comparison, or of a table that there is not."""
    from evaluation.benchmark.presentation import table_of
    from evaluation.benchmark.ranking import rank
    from evaluation.benchmark.regret import Landscape
    from evaluation.benchmark.trajectories import TrajectoryFile
    from evaluation.settings.config import Budget
    from spaces.costs import COSTS

    found = TrajectoryFile(file)
    if not found.found:
        raise InputError(f"{file} holds no search; table compare adds some")
    table, cost, budget = table_of(found), found.common["cost"], Budget.parse(found.common["budget"])
    landscape = Landscape.of(table, cost)
    ranking = rank(found.found, landscape, budget)
    networks = _Networks(table, landscape, cost)
    by_method = {each.method: _of(found, each.method) for each in ranking.standings}
    return Searched(
        name=file.stem,
        file=file,
        dataset=found.common["dataset"],
        space=found.common["space"],
        budget=found.common["budget"],
        cost_model=cost,
        unit=COSTS[cost].unit,
        spent_in=_spent_in(budget),
        hypervolume=landscape.hypervolume,
        ranking=ranking,
        curves={method: _curve(runs, landscape, budget) for method, runs in by_method.items()},
        most_accurate={method: tuple(map(networks.most_accurate, runs)) for method, runs in by_method.items()},
        typical={method: networks.front(_typical(runs, landscape)) for method, runs in by_method.items()},
        true_front=tuple(networks.proposal(at) for at in landscape.front),
        reliability=table.reliability,
    )


def _of(file: "TrajectoryFile", method: str) -> list["Trajectory"]:
    return [each for each in file.found if each.method == method]


def _spent_in(budget: "Budget") -> str:
    if budget.work is not None:
        return "trained work"
    return "evaluations" if budget.evaluations is not None else "device time"


def _curve(searches: Sequence["Trajectory"], landscape: "Landscape", budget: "Budget") -> Curve:
    """Between two moments a search has what it had proposed at the first."""
    from evaluation.benchmark.ranking import granted_by, spent_of
    from evaluation.significance import students_interval

    most = granted_by(budget) or max(spent_of(each.moments[-1], budget) for each in searches)
    amounts = np.linspace(0, most, POINTS)
    rows = []
    for each in searches:
        regrets = [landscape.regret(()), *(landscape.regret(moment.proposals) for moment in each.moments)]
        spent = [spent_of(moment, budget) for moment in each.moments]
        rows.append(np.array(regrets)[np.searchsorted(spent, amounts, side="right")])
    values = np.array(rows)
    ends = np.array([students_interval(column.tolist()) for column in values.T])
    return Curve(amounts, values.mean(axis=0), np.maximum(ends[:, 0], 0.0), ends[:, 1])


def _typical(searches: Sequence["Trajectory"], landscape: "Landscape") -> tuple[int, ...]:
    """What the search of the median regret handed over."""
    regrets = {landscape.regret(each.moments[-1].proposals): each.moments[-1].proposals for each in searches}
    return regrets[median_low(regrets)]


class _Networks:
    """The true figures of a table's networks."""

    def __init__(self, table: "Table", landscape: "Landscape", cost: str) -> None:
        from spaces.costs import COSTS

        self.table, self.landscape, self.known = table, landscape, dict[int, Proposal]()
        self.model, self.space = COSTS[cost], table.make_space()

    def proposal(self, number: int) -> Proposal:
        if number not in self.known:
            one = self.table.architecture(number)
            whole = self.model.network(self.space.costs(one, self.table.shape), "int8").total
            cost = float(self.landscape.costs[number])
            self.known[number] = Proposal(float(self.landscape.errors[number]), cost, 1 - cost / whole, one.short())
        return self.known[number]

    def most_accurate(self, search: "Trajectory") -> Proposal:
        numbers = search.moments[-1].proposals
        return self.proposal(min(numbers, key=lambda at: (self.landscape.errors[at], self.landscape.costs[at])))

    def front(self, numbers: Sequence[int]) -> tuple[Proposal, ...]:
        return tuple(self.proposal(at) for at in numbers)


def cost_unit(found: Searched) -> tuple[str, float]:
    """The unit in which its costs are told, and how many of its own it has."""
    return units.suited(found.unit, max(each.cost for each in found.true_front))


def amount_unit(found: Searched) -> tuple[str, float]:
    """The same of what was spent: TMACs of trained work, seconds, or evaluations."""
    most = max(float(curve.amounts[-1]) for curve in found.curves.values())
    if found.spent_in == "trained work":
        return units.suited("MAC", most)
    return ("s" if found.spent_in == "device time" else ""), 1.0


def amount_words(found: Searched) -> str:
    """What was spent, and in which unit."""
    unit, _ = amount_unit(found)
    return f"{found.spent_in}, {unit}".removesuffix(", ")
