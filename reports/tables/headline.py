"""The table that answers first: six columns, a row per method, the best front first."""

import math
from dataclasses import replace

from evaluation.runs import units
from evaluation.significance import Comparison
from reports import statistics
from reports.load import Section
from reports.rows import saving_column
from reports.tables.results import HYPERVOLUME, test_error
from reports.tables.shape import best_marked
from reports.tables.table import (
    PERCENT,
    UNMEASURED,
    Cell,
    Column,
    Form,
    Table,
    average,
    cost_form,
    measured,
    nothing,
    number,
    words,
)

P = Form()
NOTE = (
    "Mean ± sample standard deviation over runs, of each the finalist of the highest validation accuracy; the best of a "
    "column is bold."
)
P_NOTE = "p: of the paired test of hypervolumes against the first row, after Holm's correction."


def headline(section: Section) -> Table:
    """A row per method in its usual settings, or per variant where there is one method only."""
    methods = {run.method for run in section.runs}
    usual = [variant for variant, runs in section.variants.items() if len(methods) == 1 or variant == runs[0].method]
    ordered = sorted(usual, key=lambda variant: -_volume(section, variant))
    noun, (unit, _) = units.noun(section.unit), cost_form(section)
    columns = (
        Column("method", False),
        Column("test error, %", better="less"),
        Column(f"{noun}, {unit}", better="less"),
        Column("saved vs exact int8, %", better="more"),
        Column("hypervolume", better="more"),
        Column("p vs first"),
    )
    against = {pair.one if pair.other == ordered[0] else pair.other: pair for pair in _pairs(section, ordered[0])}
    rows = tuple(_row(section, variant, against.get(variant)) for variant in ordered)
    table = Table(
        f"{section.name}-headline",
        f"At a glance: {section.title}",
        tuple(replace(column, main=True) for column in columns),
        rows,
        (NOTE, P_NOTE),
    )
    return best_marked(table)


def _volume(section: Section, variant: str) -> float:
    scale = statistics.reference(section)
    values = [statistics.final_hypervolume(run, scale) for run in section.variants[variant]]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else -math.inf


def _pairs(section: Section, top: str) -> list[Comparison]:
    return [pair for pair in statistics.comparisons(section) if top in (pair.one, pair.other)]


def _row(section: Section, variant: str, pair: Comparison | None) -> tuple[Cell, ...]:
    runs, (_, cost) = section.variants[variant], cost_form(section)
    names, scale = tuple(run.name for run in runs), statistics.reference(section)

    def mean(value, form: Form) -> Cell:
        return average([(run, value(run.best)) for run in runs], form)

    volumes = [(run, statistics.final_hypervolume(run, scale)) for run in runs]
    p = number(pair.adjusted_p, P, names) if pair and pair.seeds else nothing(names)
    return (
        replace(words(variant, names), text=f"{variant} ({len(runs)})"),
        mean(test_error("approximate"), PERCENT),
        mean(lambda row: measured(row, section.cost_column()), cost),
        mean(lambda row: measured(row, saving_column(section.cost, "int8")), PERCENT),
        average(volumes, HYPERVOLUME),
        replace(p, text=p.text if pair else UNMEASURED),
    )
