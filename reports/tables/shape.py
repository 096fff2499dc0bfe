"""What of a table is shown where there is little room: columns that say nothing leave, the best of a column stands out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from reports.tables.table import UNMEASURED, Cell, Column, Table

COMPACT = 8  # columns of a table that has not said which of its columns matter most


def hoisted(table: Table) -> tuple[Table, list[str]]:
    """The table without the columns whose every cell is the same, and a line for these.

    Labels, main columns and single rows stay.
    """
    if len(table.rows) < 2:
        return table, []
    same = [
        at
        for at in range(table.labels, len(table.columns))
        if not table.columns[at].main and len({row[at].text for row in table.rows}) == 1
    ]
    texts = [(table.columns[at].header, table.rows[0][at].text) for at in same]
    equal = [f"{header}: {text}" for header, text in texts if text not in (UNMEASURED, "")]
    lacking = [header for header, text in texts if text == UNMEASURED]
    lines = [f"In every row: {'; '.join(equal)}."] if equal else []
    lines += [f"Not measured: {', '.join(lacking)}."] if lacking else []
    return keep(table, [at for at in range(len(table.columns)) if at not in same]), lines


def compact(table: Table) -> Table:
    """The columns that a paper has room for: those that the table calls its main ones, or its first that differ."""
    main = [at for at, column in enumerate(table.columns) if column.main]
    if main:
        labels = [at for at in range(table.labels) if at not in main]
        return keep(table, [*labels, *main])
    narrow, _ = hoisted(table)
    return keep(narrow, range(min(COMPACT, len(narrow.columns))))


def for_papers(table: Table, headers: Collection[str]) -> Table:
    """The table with the columns of these headers as its main ones; a mapping says of each which way is better, if any."""
    better = headers if isinstance(headers, Mapping) else {}
    columns = (
        replace(column, main=column.header in headers, better=better.get(column.header)) for column in table.columns
    )
    return best_marked(replace(table, columns=tuple(columns)))


def keep(table: Table, columns: Sequence[int]) -> Table:
    """The table with these of its columns alone."""
    rows = tuple(tuple(row[at] for at in columns) for row in table.rows)
    labels = sum(at < table.labels for at in columns)
    return replace(table, columns=tuple(table.columns[at] for at in columns), rows=rows, labels=labels)


def turned(table: Table) -> Table:
    """A table of one row as one of two columns: what, and how much."""
    (row,) = table.rows
    rows = tuple(
        (Cell(c.header, c.header), cell) for c, cell in zip(table.columns, row) if cell.text not in (UNMEASURED, "")
    )
    return replace(table, columns=(Column("figure", False), Column("value", False)), rows=rows, labels=1)


def best_marked(table: Table) -> Table:
    """The best number of every column that says which way is better, where rows differ, is marked as such."""
    rows = [list(row) for row in table.rows]
    for at, column in enumerate(table.columns):
        known = [row[at].value for row in rows if isinstance(row[at].value, int | float)]
        if column.better is None or len(set(known)) < 2:
            continue
        choose: Callable = min if column.better == "less" else max
        top = choose(known)
        for row in rows:
            if row[at].value == top:
                row[at] = replace(row[at], best=True)
    return replace(table, rows=tuple(map(tuple, rows)))
