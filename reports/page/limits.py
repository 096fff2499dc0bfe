"""What the page of a report of many runs leaves to other files, so that it stays below 3 MB, and how it says so."""

from collections.abc import Iterable
from dataclasses import dataclass

from reports.load import Loaded

# Pictures take up to 1.4 MB of the page; what follows has to fit into the other 1.6.
ALL_RUNS, ALL_FINALISTS = 200, 600  # up to which everything is shown
OTHERS = 2_500  # runs that have at least a line with a link, each 0.2 KB


@dataclass(frozen=True)
class Limits:
    """How much of a report its page tells; None where it tells all."""

    runs: int | None = None  # that are shown in full, about 4 KB each
    points: int | None = None  # finalists in the interactive fronts, about 0.8 KB each with their genotypes
    rows: int | None = None  # of a table, up to 1.5 KB each
    listed: int | None = None  # runs behind one number


def limits(loaded: Loaded) -> Limits:
    """Those of a report of this size."""
    if len(loaded.runs) <= ALL_RUNS and len(loaded.finalists) <= ALL_FINALISTS:
        return Limits()
    return Limits(runs=60, points=300, rows=120, listed=50)


Point = tuple[str, int]  # a run's name, and the number of a finalist from 1


def runs_in_full(loaded: Loaded, most: int | None) -> set[str]:
    """The names of the runs to tell in full: of every variant as many as of the others, as far as it has them."""
    turns = [
        (turn, run.name)
        for section in loaded.sections
        for runs in section.variants.values()
        for turn, run in enumerate(runs)
    ]
    return {name for _, name in sorted(turns, key=lambda turn: turn[0])[:most]}


def points_shown(loaded: Loaded, fronts: Iterable[Point], most: int | None) -> set[Point]:
    """The finalists to mark in the fronts: those on a front first, then the best of each run, then others."""
    on_front = set(fronts)
    ranked = [
        (0 if (run.name, int(number)) in on_front else 1 if best else 2, (run.name, int(number)))
        for run in loaded.runs
        for number, best in zip(run.finalists["finalist"], run.finalists["best"])
    ]
    return {point for _, point in sorted(ranked, key=lambda rank: rank[0])[:most]}
