"""Published figures of circuits: CSV files, and whether a truth table is the one that the figures were published for."""

import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from spaces.errors import InputError
from spaces.files.csv_files import header_of, read_rows
from spaces.files.reading import open_file
from spaces.multipliers.files.columns import HARDWARE, NUMBERS, Columns, understand
from spaces.multipliers.multiplier import SIZE, Multiplier, error_metrics

_NUMBER = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
LARGEST_FILE = 4 << 20  # bytes of a CSV of figures

# Published figures carry at most eight significant digits; some were rounded twice (36.535 → 36.5 → 36).
SIGNIFICANT_DIGITS = 8
ROUNDED_TWICE = 1.1


@dataclass(frozen=True)
class Figures:
    """One circuit's row of a figures CSV: column → text, without empty cells."""

    row: dict[str, str]
    file: str

    def hardware(self) -> dict[str, float | None]:
        """``power_mw``, ``area_um2`` and ``delay_ns``; None where the row says nothing."""
        found = {}
        for figure, columns in HARDWARE.items():
            texts = [self.row[column] for column in columns if column in self.row]
            found[figure] = float(texts[0]) if texts else None
        return found

    @property
    def technology(self) -> str:
        """As the row says; FreePDK45 where it uses EvoApproxLib's columns ``pdk45_…``; else empty."""
        implied = "FreePDK45" if any(columns[0] in self.row for columns in HARDWARE.values()) else ""
        return self.row.get("technology", implied)

    @property
    def signed(self) -> bool | None:
        """What the column ``signed`` declares, if anything."""
        text = self.row.get("signed")
        return None if text is None else text == "true"


@dataclass(frozen=True)
class Deviation:
    """One error figure, recomputed from the truth table and as published (as the text of the CSV)."""

    figure: str
    recomputed: float
    published: str | None = None
    within: bool = True  # equal, but for rounding

    @property
    def amount(self) -> float | None:
        """Recomputed − published; None if unpublished."""
        return None if self.published is None else self.recomputed - float(self.published)


def deviations(multiplier: Multiplier, row: dict[str, str]) -> list[Deviation]:
    """Every error figure of the circuit, compared with the published ``row`` as far as that goes."""
    measured = asdict(error_metrics(multiplier))
    found = []
    for figure, value in measured.items():
        text = row.get(figure)
        within = text is None or _is_rounded(value, text)
        if figure == "mae_pct" and not within and "mae" in row and _is_rounded(measured["mae"], row["mae"]):
            within = _is_rounded(100 * float(row["mae"]) / SIZE**2, row[figure])  # computed from the printed MAE
        found.append(Deviation(figure, value, text, within))
    return found


def _is_rounded(value: float, text: str) -> bool:
    """Whether ``text`` is ``value``, rounded: half a unit of the last printed place apart at most.

    "12.0" counts as the whole number 12, because tables that pass through a spreadsheet gain such zeros.
    """
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    if not decimals.strip("0") and whole.strip("+-0"):
        decimals = ""
    place = int(exponent or 0) - len(decimals)
    published = float(text)
    if published:
        place = max(place, math.floor(math.log10(abs(published))) - SIGNIFICANT_DIGITS + 1)
    return abs(value - published) <= 0.5 * ROUNDED_TWICE * 10.0**place


def require_published(multiplier: Multiplier, figures: Figures) -> None:
    """Raises InputError where a published error figure is not that of the truth table."""
    wrong = [deviation for deviation in deviations(multiplier, figures.row) if not deviation.within]
    if wrong:
        wrong.sort(key=lambda deviation: deviation.figure != "wce")
        shown = ", ".join(f"{d.figure} {d.recomputed:.6g} (published: {d.published})" for d in wrong[:3])
        raise InputError(
            f"{multiplier.name}: the table has {shown} in {figures.file}; it is another circuit under that name "
            "(EvoApproxLib reuses names), or the figures are another's"
        )


# -- CSV files ---------------------------------------------------------------------------------------------------------


def is_figures_file(path: Path) -> bool:
    """Whether ``path`` is a CSV file with a column for names and at least one that holds, or may hold, a figure."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with open_file(path) as file:
        text = file.readline(1 << 16).decode("utf-8-sig", errors="replace")
    columns = understand(header_of(text))
    return columns.has_name and columns.has_figures


def read_figures(path: Path, names: Collection[str] | None = None) -> dict[str, Figures]:
    """The rows of a figures CSV by circuit; none, if ``names`` are given and it knows no circuit of them.

    Raises InputError for everything that is no such CSV, and for columns that could mean several things.
    """
    header, rows = read_rows(path, LARGEST_FILE)
    columns = understand(header)
    if not (columns.has_name and columns.has_figures):
        raise InputError(f"{path}: not a figures CSV; it needs a column 'name' and figures such as 'power_mw'")
    if names is not None and not any(cells.get(columns.name) in names for _, cells in rows):
        return {}
    columns.require_clear(path)
    found: dict[str, Figures] = {}
    for line, cells in rows:
        figures = _figures(cells, columns, path, line)
        if figures.row["name"] in found:
            raise InputError(f"{path}: circuit {figures.row['name']} is there twice")
        found[figures.row["name"]] = figures
    return found


def _figures(cells: dict[str, str], columns: Columns, path: Path, line: int) -> Figures:
    """One row by the fields that its columns mean, its cells checked and in the units of the fields."""
    if columns.name not in cells:
        raise InputError(f"{path}, line {line}: the circuit has no name")
    name, row = cells[columns.name], {}
    for column, (field, factor) in columns.meaning.items():
        if column not in cells:
            continue
        text = row[field] = cells[column]
        if field == "signed":
            row[field] = text.lower()  # spreadsheets write TRUE
        if field in NUMBERS:
            negative = text.startswith("-")
            if not _NUMBER.fullmatch(text) or (negative and float(text) and field != "bias"):
                raise InputError(f"{path}, circuit {name}: {column} must be a number, not '{text}'")
            if factor != 1:
                row[field] = f"{float(text) * factor:.12g}"
    if row.get("signed", "true") not in ("true", "false"):
        raise InputError(f"{path}, circuit {name}: signed must be true or false, not '{row['signed']}'")
    return Figures(row, path.name)


def find_figures(folder: Path, names: list[str], explicit: Path | None = None) -> dict[str, Figures]:
    """The figures of the circuits ``names``, whose tables lie in ``folder``; empty if there is no figures CSV.

    ``explicit`` names the only CSV to look into. Otherwise all figures CSVs in the folder are taken together; where it
    has none, those in its parent that know at least one of the circuits. Once there is a figures CSV, it must know
    every circuit. Raises InputError naming the circuit and the file for one that is missing, or is in two files.
    """
    if explicit is not None:
        files = {explicit: read_figures(explicit)}
    elif not (files := _figures_files(folder)):
        files = {path: rows for path, rows in _figures_files(folder.resolve().parent, names).items() if rows}
    if not files:
        return {}
    found = {}
    for name in names:
        known = [path for path, rows in files.items() if name in rows]
        if not known:
            raise InputError(f"circuit {name} is not in {' or '.join(map(str, files))}")
        if len(known) > 1:
            raise InputError(f"circuit {name} is in both {known[0]} and {known[1]}; choose one CSV of figures")
        found[name] = files[known[0]][name]
    return found


def _figures_files(folder: Path, names: Collection[str] | None = None) -> dict[Path, dict[str, Figures]]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError:  # above a folder of tables may lie one that is none of our business
        return {}
    return {path: read_figures(path, names) for path in paths if is_figures_file(path)}
