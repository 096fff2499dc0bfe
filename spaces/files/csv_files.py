"""CSV that somebody hands in: bounded, and every row as wide as its header at most."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spaces.errors import InputError
from spaces.files.reading import parsing, read_text

MOST_ROWS = 100_000
_DECIMAL_COMMA, _DECIMAL_POINT = (
    re.compile(rf"[+-]?\d{{0,30}}{sign}\d{{1,30}}(e[+-]?\d{{1,2}})?", re.ASCII | re.IGNORECASE) for sign in (",", r"\.")
)
SEPARATORS = (",", ";", "\t")  # of spreadsheets; the semicolon where numbers have decimal commas


def read_rows(path: Path, most: int) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns, and number of line and cells of each row: column → text, without empty cells.

    Columns are separated by what separates most of them in the header. Below other separators than the comma, decimal
    commas become points. Raises InputError for what is no CSV, for a column that is there twice, for a row of more
    cells than columns, and where some numbers have decimal commas and others points.
    """
    with parsing(path, "is not a CSV file"):
        text = read_text(path, most)
        separator = separator_of(re.split(r"[\r\n]", text, maxsplit=1)[0])
        reader = _reader(io.StringIO(text, newline=""), separator)
        columns = [column.strip() for column in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: a column is there twice")
    if len(rows) > MOST_ROWS:
        raise InputError(f"{path}: {len(rows):,} rows are more than such a file can have ({MOST_ROWS:,})")
    found = []
    for line, row in rows:
        if len(row) > len(columns):
            raise InputError(f"{path}, line {line}: more cells than columns")
        found.append((line, {column: text.strip() for column, text in zip(columns, row) if text.strip()}))
    return columns, found if separator == "," else _with_points(path, found)


def header_of(line: str) -> list[str]:
    """The columns of a CSV's first line; none where it is no such line."""
    try:
        return [column.strip() for column in next(_reader(io.StringIO(line, newline=""), separator_of(line)), [])]
    except csv.Error:
        return []


def separator_of(line: str) -> str:
    """What separates most columns of a header; the comma, where nothing does."""
    counts = {separator: len(next(csv.reader([line], delimiter=separator), [])) for separator in SEPARATORS}
    return max(SEPARATORS, key=counts.__getitem__)


def _reader(lines: io.StringIO, separator: str) -> Any:  # the type of csv.reader has no name
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _with_points(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> list[tuple[int, dict[str, str]]]:
    """The cells, with points in numbers that have decimal commas."""
    texts = {text for _, cells in rows for text in cells.values()}
    commas = sorted(text for text in texts if _DECIMAL_COMMA.fullmatch(text))
    points = sorted(text for text in texts if _DECIMAL_POINT.fullmatch(text))
    if commas and points:
        raise InputError(
            f"{path}: has decimal commas ({commas[0]}) and decimal points ({points[0]}); write one of them"
        )
    changed = {text: text.replace(",", ".") for text in commas}
    return [(line, {column: changed.get(text, text) for column, text in cells.items()}) for line, cells in rows]
