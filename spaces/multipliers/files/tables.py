"""Truth tables in the formats of other tools. Nothing that is read here is ever unpickled.

| suffix | content | index order |
|---|---|---|
| ``.bin`` | 65,536 little-endian 16-bit words (TFApprox) | a·256 + b; signed: found out, written as two's complement |
| ``.npy``, ``.npz`` | whole numbers, 256×256 or 65,536; one array | signed: found out, written in numeric order |
| ``.txt``, ``.csv`` | whole numbers, 256 rows of 256, or one per line | signed: found out, written in numeric order |
| ``.h`` | ``int16_t lut[256][256] = {{…}, …};`` (AdaPT) | signed: two's complement, 0 to 127, then −128 to −1 |

The first operand is always the row. How the index order is found out: see ``spaces.multipliers.files.index_order``.
Signedness is what the caller declares, else the column ``signed`` of the figures CSV, else the name (``mul8s…``,
``…8u_…``), else the format (the element type of a C header), else what correlates best with the exact product.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spaces.errors import InputError
from spaces.files.reading import open_file
from spaces.files.saving import save_bytes
from spaces.multipliers.files.datasheet import Figures, find_figures, is_figures_file, require_published
from spaces.multipliers.files.formats import FORMATS
from spaces.multipliers.files.index_order import AXES, UNSIGNED, Order, RawTable, settle
from spaces.multipliers.multiplier import EXACT_POWER_MW, SIZE, Multiplier

SUFFIXES = tuple(FORMATS)
UNFINISHED = ".import"  # in a folder: what an import that was cut short has still to move there
_SIGN_IN_NAME = re.compile(r"^mul8([su])|8([su])(?:_|$)")

PLAUSIBLE_POWER = (0.01, 3.0)  # times that of the exact multiplier
# The first bytes of a CSV of numbers, below an empty corner or not.
_NUMBERS_AHEAD = re.compile(rb",?[-+]?\d[\dA-Fa-fx.eE+\-,;\s]*$")

Lookup = Callable[[str], Multiplier | None]  # a circuit of the catalogue by its name


@dataclass(frozen=True)
class Datasheet:
    """A circuit and what was published about it (an empty row if nothing was)."""

    multiplier: Multiplier
    figures: Figures
    path: Path


def read_table(path: Path, *, signed: bool | None = None, order: Order | None = None) -> tuple[np.ndarray, bool]:
    """The truth table in ``path`` (int64, 256×256, in numeric order: −128 or 0 first) and whether it is signed.

    ``signed`` and ``order`` declare what is known, ``order`` matters to signed tables only. Raises InputError for what
    is no table of 65,536 integers, and for one that looks like another index order or signedness than the declared.
    """
    path = Path(path)
    return _settle(_read(path), path.stem, signed, order)


def read_multipliers(
    path: Path,
    *,
    signed: bool | None = None,
    order: Order | None = None,
    figures: Path | None = None,
    known: Lookup | None = None,
) -> tuple[Multiplier, ...]:
    """The circuit of a table file, or those of all table files in a folder, sorted by name; named as the files are.

    Power, area and delay come from the CSV ``figures``, else from those that ``find_figures`` finds; without any they
    are None. Besides what ``read_table`` refuses, raises InputError for an empty folder, two files of one name, a figures
    CSV that lacks a circuit, a table whose error figures are not the published ones, and one that carries the name of
    another circuit that ``known`` knows.
    """
    sheets = read_datasheets(path, signed=signed, order=order, figures=figures)
    for sheet in sheets:
        verify(sheet, known)
    return tuple(sheet.multiplier for sheet in sheets)


def read_datasheets(
    path: Path, *, signed: bool | None = None, order: Order | None = None, figures: Path | None = None
) -> tuple[Datasheet, ...]:
    """As ``read_multipliers``, but neither the published error figures nor the names are checked."""
    path = Path(path)
    files = table_files(path) if path.is_dir() else [path]
    raw = {file: _read(file) for file in files}
    published = find_figures(path if path.is_dir() else path.parent, [file.stem for file in files], figures)
    return tuple(
        _datasheet(file, raw[file], published.get(file.stem, Figures({}, "")), signed, order) for file in files
    )


def verify(sheet: Datasheet, known: Lookup | None = None) -> None:
    """Raises InputError where the published error figures, or the circuit known by that name, are not the table's."""
    require_published(sheet.multiplier, sheet.figures)
    other = known(sheet.multiplier.name) if known else None
    if other is None or other == sheet.multiplier:
        return
    if other == replace(sheet.multiplier, table=sheet.multiplier.table.T):
        raise InputError(f"{sheet.path}: this is the built-in {other.name} with its operands swapped; transpose it")
    raise InputError(f"{sheet.path}: {other.name} is built in and has another truth table; give the file another name")


def table_files(folder: Path) -> list[Path]:
    """The table files of a folder, sorted. Raises InputError when there is none, or two of one name."""
    if (folder / UNFINISHED).exists():
        raise InputError(f"an import into '{folder}' was cut short; give an import into it again")
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMATS and _is_table(path))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    if not paths:
        raise InputError(f"folder '{folder}' holds no table files ({', '.join(SUFFIXES)})")
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise InputError(f"'{folder}' holds two tables of one name: {seen[path.stem].name} and {path.name}")
        seen[path.stem] = path
    return sorted(paths, key=lambda path: path.stem)


def write_table(multiplier: Multiplier, path: Path) -> None:
    """Write the truth table to ``path`` in the format of its suffix; an existing file is replaced at once or not at all.

    Raises InputError for an unknown suffix, and where a product does not fit into the 16 bits of the format.
    """
    path = Path(path)
    content = FORMATS[_suffix(path)].write(multiplier)
    try:
        save_bytes(path, content)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}") from None


def _is_table(path: Path) -> bool:
    """Not a hidden file, a folder, or a CSV of anything but numbers."""
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() != ".csv" or is_figures_file(path):
        return path.suffix.lower() != ".csv"
    with open_file(path) as file:
        return _NUMBERS_AHEAD.match(file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()) is not None


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"'{path}': unknown kind of table '{path.suffix}'; known: {', '.join(SUFFIXES)}")
    return suffix


def _read(path: Path) -> RawTable:
    if not path.exists() or path.is_dir():
        raise InputError(f"'{path}' is a folder, not a file" if path.is_dir() else f"'{path}' does not exist")
    return FORMATS[_suffix(path)].read(path)


def _datasheet(file: Path, raw: RawTable, figures: Figures, signed: bool | None, order: Order | None) -> Datasheet:
    if "key" in figures.row:
        table, is_signed = _by_key(raw, figures)
    else:
        table, is_signed = _settle(raw, file.stem, figures.signed if signed is None else signed, order)
    multiplier = Multiplier(
        name=file.stem,
        signed=is_signed,
        table=table,
        technology=figures.technology,
        source=figures.row.get("source", figures.file or file.name),
        **figures.hardware(),
    )
    _warn_of_power(multiplier)
    return Datasheet(multiplier, figures, file)


def _warn_of_power(multiplier: Multiplier) -> None:
    """A power in another unit, or of another technology, gives energies that mean nothing."""
    if multiplier.power_mw is None:
        return
    exact = EXACT_POWER_MW[multiplier.signed]
    lowest, highest = PLAUSIBLE_POWER
    if multiplier.technology == "FreePDK45":  # of EvoApproxLib, which has circuits of 0.005 (mul8u_17C8) and of nothing
        lowest = 0
    if not lowest * exact <= multiplier.power_mw <= highest * exact:
        warnings.warn(
            f"multiplier {multiplier.name}: a power of {multiplier.power_mw:g} mW is {multiplier.power_mw / exact:.3g} times "
            f"that of the exact multiplier, {exact} mW; is its unit mW, and its technology the same?",
            stacklevel=2,
        )


def _by_key(raw: RawTable, figures: Figures) -> tuple[np.ndarray, bool]:
    """The reading whose key is the recorded one, which settles every doubt."""
    for axis in AXES:
        candidate = Multiplier(name="", signed=axis != UNSIGNED, table=raw.table(axis))
        if candidate.key == figures.row["key"]:
            return candidate.table.astype(np.int64), candidate.signed
    raise InputError(f"{raw.where}: not the table whose key {figures.file} records; delete it and import it again")


def _settle(raw: RawTable, name: str, signed: bool | None, order: Order | None) -> tuple[np.ndarray, bool]:
    """``index_order.settle`` with what the name and the format declare, in that order."""
    declared_by = ""
    if signed is None and (found := _SIGN_IN_NAME.search(name)):
        signed, declared_by = "s" in found.groups(), "by its name"
    if signed is None and raw.signed is not None:
        signed, declared_by = raw.signed, "by its element type"
    table, signed = settle(raw, signed, declared_by, order or raw.order)
    if signed and _lacks_negative_quadrant(table):
        raise InputError(
            f"{raw.where}: for two negative operands it holds the products of their magnitudes, wrong in sign for −128 "
            "(an error of AdaPT's LUT_convert); convert the circuit again"
        )
    return table, signed


def _lacks_negative_quadrant(table: np.ndarray) -> bool:
    """Whether T(a, b) = T(|a|, |b|) for all a, b < 0, where |−128| wraps to −128: a signed table in numeric order."""
    magnitude = np.concatenate([[0], np.arange(SIZE - 1, SIZE // 2, -1)])  # index of |a| for a = −128, …, −1
    quadrant = table[: SIZE // 2, : SIZE // 2]
    return np.array_equal(quadrant, table[np.ix_(magnitude, magnitude)]) and bool(quadrant[0, 1:].min() < 0)
