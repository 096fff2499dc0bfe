"""What the page of a report of many runs leaves to other files, so that it stays below 8 MB, and how it says so."""

from collections.abc import Iterable

from reports.load import Loaded

RUNS = 300  # that are told in full, about 6 KB each
POINTS = 1_500  # finalists in the interactive fronts, about 0.8 KB each with their genotypes
LISTED = 100  # runs that are listed behind one number

Point = tuple[str, int]  # a run's name, and the number of a finalist from 1


def runs_in_full(loaded: Loaded) -> set[str]:
    """The names of the runs to tell in full: of every variant as many as of the others, as far as it has them."""
    turns = [
        (turn, run.name)
        for section in loaded.sections
        for runs in section.variants.values()
        for turn, run in enumerate(runs)
    ]
    return {name for _, name in sorted(turns, key=lambda turn: turn[0])[:RUNS]}


def points_shown(loaded: Loaded, fronts: Iterable[Point]) -> set[Point]:
    """The finalists to mark in the fronts: those on a front first, then the best of each run, then others."""
    on_front = set(fronts)
    ranked = [
        (0 if (run.name, int(number)) in on_front else 1 if best else 2, (run.name, int(number)))
        for run in loaded.runs
        for number, best in zip(run.finalists["finalist"], run.finalists["best"])
    ]
    return {point for _, point in sorted(ranked, key=lambda rank: rank[0])[:POINTS]}
