"""Tables as Markdown, LaTeX and CSV. All text of a table is untrusted and acts as markup in none of them."""

import csv as csv_files
import io
import re
from collections.abc import Iterable

from reports.tables.shape import compact, hoisted
from reports.tables.table import Cell, Table
from spaces.files.untrusted_text import csv_cell, escape_latex, escape_markdown

MOST_ROWS = 40  # of a table in a paper
BROKEN = ("p{0.22\\linewidth}", "p{0.34\\linewidth}")  # columns of broken lines: labels, others
LONG, HEADER = 32, 18  # characters beyond which a column of text, and a header, breaks its lines


# -- Markdown ----------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """A heading, what all rows share, the table (GitHub's), and the notes; ends with a line break."""
    title, (table, shared) = table.title, hoisted(table)
    aligned = ["---:" if column.numeric else "---" for column in table.columns]
    header = [escape_markdown(column.header) for column in table.columns]
    rows = [[escape_markdown(cell.text) for cell in row] for row in table.rows]
    lines = "\n".join(f"| {' | '.join(line)} |" for line in (header, aligned, *rows))
    notes = (escape_markdown(note) for note in table.notes)
    return "\n\n".join([f"### {escape_markdown(title)}", *map(escape_markdown, shared), lines, *notes]) + "\n"


# -- LaTeX -------------------------------------------------------------------------------------------------------------


def latex(table: Table) -> str:
    r"""One table environment, with ``\usepackage{booktabs}``: its main columns alone, best values bold."""
    shown = compact(table)
    rows = shown.rows[:MOST_ROWS]
    more = f" The first {len(rows)} of {len(shown.rows)} rows." if len(rows) < len(shown.rows) else ""
    label = re.sub(r"[^A-Za-z0-9-]+", "-", table.name)
    columns = "".join(_alignment(shown, at) for at in range(len(shown.columns)))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}[tbp]",
            "\\centering\\small\\setlength{\\tabcolsep}{4pt}",
            f"\\caption{{{escape_latex(table.title + '.' + more)}}}\\label{{tab:{label}}}",
            f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            "\\toprule",
            _line(_header(column.header) for column in shown.columns),
            "\\midrule",
            *(_line(_latex_cell(cell) for cell in row) for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}\n",
        ]
    )


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return f"\\textbf{{{text}}}" if cell.best else text


def _alignment(table: Table, at: int) -> str:
    if table.columns[at].numeric:
        return "r"
    broken = any(len(row[at].text) > LONG for row in table.rows)
    return BROKEN[at >= table.labels] if broken else "l"


def _header_lines(text: str) -> list[str]:
    """Broken after colons and, where it is long, after commas."""
    parts = re.split(r"(?<=:)\s", text)
    return [line for part in parts for line in (re.split(r"(?<=,)\s", part) if len(part) > HEADER else [part])]


def _header(text: str) -> str:
    lines = [escape_latex(line) for line in _header_lines(text)]
    stacked = r" \\ ".join(lines)
    return stacked if len(lines) == 1 else f"\\begin{{tabular}}[b]{{@{{}}c@{{}}}}{stacked}\\end{{tabular}}"


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


# -- CSV ---------------------------------------------------------------------------------------------------------------


def csv(table: Table) -> str:
    """Values that read back exactly; further numbers of a cell in columns of their own, an empty cell was not measured."""
    parts = [
        list(dict.fromkeys(name for row in table.rows for name in row[at].parts)) for at in range(len(table.columns))
    ]
    text = io.StringIO()
    writer = csv_files.writer(text, lineterminator="\n")
    headers = [
        [column.header, *(f"{column.header} [{name}]" for name in names)] for column, names in zip(table.columns, parts)
    ]
    writer.writerow([csv_cell(header) for group in headers for header in group])
    for row in table.rows:
        writer.writerow(
            [csv_cell(found) for cell, names in zip(row, parts) for found in (cell.value, *map(cell.parts.get, names))]
        )
    return text.getvalue()
