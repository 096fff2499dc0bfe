"""Tables as Markdown, LaTeX and CSV. All text of a table is untrusted and acts as markup in none of them."""

import csv as csv_files
import io
import re
from collections.abc import Iterable, Sequence

from reports.tables.table import Cell, Table
from spaces.files.untrusted_text import csv_cell, escape_latex, escape_markdown

# Of LaTeX's article in \scriptsize: characters of a line, lines of a page that tabulars may fill, those that a tabular
# needs beside its rows, and the space between two columns.
LINE, PAGE, FRAME, GAP = 96, 58, 4, 2
BROKEN = (("p{0.22\\linewidth}", 20), ("p{0.4\\linewidth}", 38))  # columns of broken lines: labels, others; characters
LONG, HEADER = 32, 18  # characters beyond which a column of text, and a header, breaks its lines


# -- Markdown ----------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """A heading, the table (GitHub's), and the notes; ends with a line break."""
    aligned = ["---:" if column.numeric else "---" for column in table.columns]
    header = [escape_markdown(column.header) for column in table.columns]
    rows = [[escape_markdown(cell.text) for cell in row] for row in table.rows]
    lines = "\n".join(f"| {' | '.join(line)} |" for line in (header, aligned, *rows))
    notes = (escape_markdown(note) for note in table.notes)
    return "\n\n".join([f"### {escape_markdown(table.title)}", lines, *notes]) + "\n"


# -- LaTeX -------------------------------------------------------------------------------------------------------------


def latex(table: Table) -> str:
    r"""Table environments with ``\usepackage{booktabs}``: blocks of columns below one another, and of rows on pages."""
    blocks = _blocks(table)
    parts = _pages(table, max(1, PAGE // len(blocks) - FRAME)) or [[]]
    comment = "% needs \\usepackage{booktabs}\n"
    return comment + "\\clearpage\n".join(
        _float(table, rows, blocks, at, len(parts)) for at, rows in enumerate(parts, 1)
    )


def _blocks(table: Table) -> list[list[int]]:
    """The columns that fit beside one another, each time after those that say what a row is."""
    labels = list(range(table.labels))
    beside = sum(_width(table, at) for at in labels)
    blocks: list[list[int]] = []
    room = 0
    for at in range(table.labels, len(table.columns)):
        width = _width(table, at)
        if width > room:
            blocks.append([*labels])
            room = LINE - beside
        blocks[-1].append(at)
        room -= width
    return blocks or [labels]


def _width(table: Table, at: int) -> int:
    """Characters that a column takes up."""
    if _is_broken(table, at):
        return BROKEN[at >= table.labels][1] + GAP
    return GAP + max(map(len, [*_header_lines(table.columns[at].header), *(row[at].text for row in table.rows)]))


def _is_broken(table: Table, at: int) -> bool:
    return not table.columns[at].numeric and any(len(row[at].text) > LONG for row in table.rows)


def _pages(table: Table, room: int) -> list[list[tuple[Cell, ...]]]:
    """The rows, by the table environment that holds them; so many lines fit into one."""
    broken = [at for at in range(len(table.columns)) if _is_broken(table, at)]
    pages: list[list[tuple[Cell, ...]]] = []
    lines = 0
    for row in table.rows:
        height = max([1, *(-(-len(row[at].text) // BROKEN[at >= table.labels][1]) for at in broken)])
        if not pages or lines + height > room:
            pages.append([])
            lines = 0
        pages[-1].append(row)
        lines += height
    return pages


def _float(table: Table, rows: Sequence[tuple[Cell, ...]], blocks: list[list[int]], part: int, parts: int) -> str:
    caption = escape_latex(table.title) + (f" (part {part} of {parts})" if parts > 1 else "")
    label = f"tab:{re.sub(r'[^A-Za-z0-9-]+', '-', table.name)}{f'-{part}' if parts > 1 else ''}"
    notes = [f"\\par\\smallskip\\parbox{{\\linewidth}}{{\\scriptsize {escape_latex(note)}}}" for note in table.notes]
    return "\n".join(
        [
            "\\begin{table}[htbp]",
            "\\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}",
            f"\\caption{{{caption}}}\\label{{{label}}}",
            "\n\\par\\medskip\n".join(_tabular(table, rows, block) for block in blocks),
            *(notes if part == parts else ()),
            "\\end{table}\n",
        ]
    )


def _tabular(table: Table, rows: Sequence[tuple[Cell, ...]], columns: Sequence[int]) -> str:
    lines = [
        f"\\begin{{tabular}}{{@{{}}{''.join(_alignment(table, at) for at in columns)}@{{}}}}",
        "\\toprule",
        _line(_header(table.columns[at].header) for at in columns),
        "\\midrule",
        *(_line(escape_latex(row[at].text) for at in columns) for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


def _alignment(table: Table, at: int) -> str:
    if table.columns[at].numeric:
        return "r"
    return BROKEN[at >= table.labels][0] if _is_broken(table, at) else "l"


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
