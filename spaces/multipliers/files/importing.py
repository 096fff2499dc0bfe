"""Copy foreign truth tables into a folder of our own: ``<name>.npy`` files and one ``figures.csv``.

All or nothing, even when the process is killed. Everything is written into a hidden folder first. For a new folder, one
rename makes it the folder. Otherwise one rename declares it complete, and its files are moved one by one; if that is
cut short, the next import moves the rest, and until then nobody reads the folder.
"""

import csv
import glob
import io
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spaces.errors import InputError
from spaces.files.reading import open_file
from spaces.files.saving import save_bytes
from spaces.multipliers.files.columns import HARDWARE, METRICS
from spaces.multipliers.files.datasheet import Figures
from spaces.multipliers.files.formats import FORMATS
from spaces.multipliers.files.index_order import Order
from spaces.multipliers.files.tables import SUFFIXES, UNFINISHED, Datasheet, Lookup, read_datasheets, verify
from spaces.multipliers.multiplier import Multiplier

FIGURES_FILE = "figures.csv"
COLUMNS = ("name", "signed", *HARDWARE, "technology", "source", *METRICS, "key")


@dataclass(frozen=True)
class Imported:
    """A circuit that is now in the folder; ``change`` is "new", "unchanged", "replaced" or "figures updated"."""

    sheet: Datasheet
    change: str


def read_sources(
    sources: Iterable[Path], *, signed: bool | None, order: Order | None, figures: Path | None, known: Lookup | None
) -> list[Datasheet]:
    """The verified circuits of several files and folders. Raises InputError for two of one name."""
    found: dict[str, Datasheet] = {}
    for source in sources:
        for sheet in read_datasheets(source, signed=signed, order=order, figures=figures):
            name = sheet.multiplier.name
            if name in found:
                raise InputError(f"two tables are called {name}: {found[name].path} and {sheet.path}")
            verify(sheet, known)
            found[name] = sheet
    return [found[name] for name in sorted(found)]


def import_tables(sheets: Iterable[Datasheet], folder: Path, *, overwrite: bool = False) -> list[Imported]:
    """Write the circuits into ``folder``, which then is one for ``--multipliers``; all of them or none.

    Raises InputError where the folder holds tables of other origin, or, unless ``overwrite``, another table or other
    figures under a name.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder")
    finish(folder)
    there = _contents(folder)
    rows = {name: _row(sheet) for name, sheet in there.items()}
    results = []
    for sheet in sheets:
        name = sheet.multiplier.name
        row, change = _merged(sheet, there.get(name), rows.get(name), folder, overwrite)
        rows[name] = row
        results.append(Imported(sheet, change))
    files = {
        f"{result.sheet.multiplier.name}.npy": FORMATS[".npy"].write(result.sheet.multiplier)
        for result in results
        if result.change in ("new", "replaced")
    }
    if any(result.change != "unchanged" for result in results):
        _write(folder, {FIGURES_FILE: _as_csv(rows), **files})
    return results


def keep_tables(multipliers: Iterable[Multiplier], folder: Path) -> None:
    """Write circuits with their figures into the new ``folder``, from which ``read_multipliers`` gives them back."""
    sheets = []
    for multiplier in multipliers:
        figures = {figure: getattr(multiplier, figure) for figure in HARDWARE}
        row = {figure: repr(value) for figure, value in figures.items() if value is not None}
        row |= {"technology": multiplier.technology} if multiplier.technology else {}
        sheets.append(Datasheet(multiplier, Figures(row, str(folder)), folder / f"{multiplier.name}.npy"))
    import_tables(sheets, folder)


def finish(folder: Path) -> None:
    """Move what an import that was cut short had completed, and remove what it had not."""
    unfinished = folder / UNFINISHED
    if unfinished.is_dir():
        for path in sorted(unfinished.iterdir()):
            path.replace(folder / path.name)
        unfinished.rmdir()
    beside = folder.parent.glob(f".{glob.escape(folder.name)}{UNFINISHED}-*")
    for left in [*folder.glob(f"{UNFINISHED}-*"), *beside]:
        shutil.rmtree(left)


def _contents(folder: Path) -> dict[str, Datasheet]:
    """The circuits that earlier imports left in the folder."""
    if not folder.exists():
        return {}
    tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not tables:
        return {}
    foreign = f"'{folder}' holds files that were not imported ({tables[0]}); import into a folder of its own"
    if FIGURES_FILE not in tables or not _is_ours(folder / FIGURES_FILE):
        raise InputError(foreign)
    if tables == [FIGURES_FILE]:
        return {}
    sheets = read_datasheets(folder, figures=folder / FIGURES_FILE)
    if any(sheet.path.suffix != ".npy" for sheet in sheets):
        raise InputError(foreign)
    return {sheet.multiplier.name: sheet for sheet in sheets}


def _is_ours(figures: Path) -> bool:
    with open_file(figures) as file:
        return file.readline(1 << 12).startswith(",".join(COLUMNS).encode())


def _row(sheet: Datasheet) -> dict[str, str]:
    """A row of our CSV; published figures keep their text."""
    published, multiplier = sheet.figures.row, sheet.multiplier
    row = {"name": multiplier.name, "signed": str(multiplier.signed).lower(), "key": multiplier.key}
    row |= {"technology": sheet.figures.technology, "source": multiplier.source}
    for figure, columns in HARDWARE.items():
        row[figure] = next((published[column] for column in columns if column in published), "")
    return row | {metric: published.get(metric, "") for metric in METRICS}


def _merged(
    sheet: Datasheet, there: Datasheet | None, old: dict[str, str] | None, folder: Path, overwrite: bool
) -> tuple[dict[str, str], str]:
    """The row to keep for a circuit, and what changes with it."""
    row, name = _row(sheet), sheet.multiplier.name
    if there is None or old is None:
        return row, "new"
    if there.multiplier != sheet.multiplier:
        if not overwrite:
            raise InputError(f"'{folder}' holds another table called {name}; rename {sheet.path}, or give --overwrite")
        return row, "replaced"
    for column in (*HARDWARE, *METRICS):
        if old[column] and row[column] and float(old[column]) != float(row[column]) and not overwrite:
            raise InputError(
                f"{name}: {column} is {old[column]} in '{folder / FIGURES_FILE}', but {row[column]} in "
                f"{sheet.figures.file}; give --overwrite to replace it"
            )
    if overwrite:
        merged = {column: row[column] or old[column] for column in COLUMNS}
    else:
        merged = {column: old[column] or row[column] for column in COLUMNS}
    return merged, "unchanged" if merged == old else "figures updated"


def _as_csv(rows: dict[str, dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    return text.getvalue().encode()


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all ``files`` (name → content) into ``folder``, or leave it as it is."""
    new = not folder.exists()
    hidden = f"{UNFINISHED}-{os.getpid()}"
    staging = folder.with_name(f".{folder.name}{hidden}") if new else folder / hidden
    try:
        staging.mkdir(parents=True)
        for name, content in files.items():
            save_bytes(staging / name, content)
        staging.rename(folder if new else folder / UNFINISHED)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(f"cannot write to '{folder}': {error.strerror}") from error
        raise
    finish(folder)
