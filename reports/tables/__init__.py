"""The tables of a report, from one section or from all that was loaded, and how they are written."""

from collections.abc import Iterator

from reports.load import Section
from reports.tables.cost import search_cost
from reports.tables.distances import winners
from reports.tables.energy import energy_split
from reports.tables.headline import headline
from reports.tables.multipliers import multipliers
from reports.tables.pairs import ablation, comparisons
from reports.tables.render import csv, latex, markdown
from reports.tables.results import finalists, methods
from reports.tables.searches import searches
from reports.tables.table import Cell, Column, Table

__all__ = [
    "Cell",
    "Column",
    "Table",
    "ablation",
    "comparisons",
    "csv",
    "energy_split",
    "finalists",
    "headline",
    "latex",
    "markdown",
    "methods",
    "multipliers",
    "of_section",
    "search_cost",
    "searches",
    "winners",
]


def of_section(section: Section) -> Iterator[Table]:
    """Every table of a section that has rows, in the order of a report."""
    for make in (headline, methods, comparisons, ablation, winners, energy_split, search_cost, finalists):
        table = make(section)
        if table.rows:
            yield table
