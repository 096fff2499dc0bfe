"""CSV that somebody hands in: bounded, and every row as wide as its header at most."""

import csv
import io
from pathlib import Path

from spaces.errors import InputError
from spaces.files.reading import parsing, read_text

MOST_ROWS = 100_000


def read_rows(path: Path, most: int) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns, and number of line and cells of each row: column → text, without empty cells.

    Raises InputError for what is no CSV, for a column that is there twice and for a row of more cells than columns.
    """
    with parsing(path, "is not a CSV file"):
        reader = csv.reader(io.StringIO(read_text(path, most), newline=""), skipinitialspace=True, strict=True)
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
    return columns, found
