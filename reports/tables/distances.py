"""How different the winners are: the architecture distance between the best finalists of runs."""

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean

from reports.load import Run, Section
from reports.tables.table import Cell, Column, Form, Table, average, words
from spaces.distance import distance
from spaces.errors import InputError
from spaces.registry import architecture_from_json
from spaces.space import Architecture

SHARE = Form(2)
NOTES = (
    "Architecture distance (D-DARTS, arXiv 2108.09306) between best finalists: 0 for the same network, 1 where no edge has "
    "anything in common with any other one's. Mean ± std over seeds: of two methods seed by seed, of one from each seed to the "
    "next. Among finalists: of one run.",
)


def winners(section: Section) -> Table:
    """A row and a column per variant; no rows where there are no two runs to compare."""
    variants = list(section.variants)
    columns = (Column("method", False), *map(Column, variants), Column("among finalists"))
    known = {run.name: _architecture(run) for runs in section.variants.values() for run in runs}
    rows = []
    for one in variants:
        cells = [_between(one, other, section.variants, known) for other in variants]
        finalists = [(run, _mean(run.record.distances)) for run in section.variants[one]]
        rows.append((words(one, [run.name for run in section.variants[one]]), *cells, average(finalists, SHARE)))
    found = any(cell.value is not None for row in rows for cell in row[1:])
    title = f"How different the winners are: {section.title}"
    return Table(f"{section.name}-distances", title, columns, tuple(rows) if found else (), NOTES)


def _between(
    one: str, other: str, variants: Mapping[str, Sequence[Run]], known: Mapping[str, Architecture | None]
) -> Cell:
    """Of two variants, or of a variant under one seed and the next."""
    if one == other:
        ordered = sorted(variants[one], key=lambda run: run.seed)
        pairs = list(itertools.pairwise(ordered))
    else:
        theirs = {run.seed: run for run in variants[other]}
        pairs = [(run, theirs[run.seed]) for run in variants[one] if run.seed in theirs]
    return average([(run, _apart(known[run.name], known[second.name])) for run, second in pairs], SHARE)


def _apart(one: Architecture | None, other: Architecture | None) -> float | None:
    return None if one is None or other is None or one.space != other.space else distance(one, other)


def _architecture(run: Run) -> Architecture | None:
    """None where the record holds no such thing, or one of a space that is not there."""
    try:
        return architecture_from_json(run.best_finalist.architecture)
    except (InputError, TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _mean(apart: Sequence[Sequence[float]]) -> float | None:
    """Over all pairs of a run's finalists."""
    pairs = [value for at, row in enumerate(apart) for value in row[:at]]
    return fmean(pairs) if pairs else None
