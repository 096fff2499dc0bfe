"""The command line: multipliers, their figures and errors, and tables of others.

    python -m spaces.multipliers list
    python -m spaces.multipliers show mul8s_1L2H
    python -m spaces.multipliers import tables/ --to circuits/
    python -m spaces.multipliers errors circuits/

Bad input ends with one line that says what to do, and exit code 2. Nothing here imports torch.
"""

import csv
import io
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import tyro

from spaces.cli.commands import guarded, leave
from spaces.cli.flags import Unset, parse_subcommand
from spaces.cli.programs import program
from spaces.cli.terminal import Terminal
from spaces.errors import InputError, suggest
from spaces.files.saving import save_bytes
from spaces.multipliers import catalogue, presentation
from spaces.multipliers.files.datasheet import Figures, deviations
from spaces.multipliers.files.importing import import_tables, read_sources
from spaces.multipliers.files.index_order import Order
from spaces.multipliers.files.tables import Datasheet, read_datasheets, verify

DEVIATES = 1  # exit code
PROGRAM = program("multipliers")
DESCRIPTION = """Approximate multipliers: what there is, what it costs, where it errs; and others' truth tables."""


@dataclass(frozen=True)
class List:
    """A table of circuits: power, area, delay, errors recomputed from the truth tables, and rank (the number of exact
    integer factors, which decides how fast a circuit is emulated)."""

    multipliers: Unset[tuple[str, ...]] = ()
    """Names of circuits, table files (.bin, .npy, .txt, .csv, .h) or folders of them; none: all that are built in."""
    csv: bool = False
    """Print comma-separated values, in full precision."""


@dataclass(frozen=True)
class Show:
    """Everything about one circuit, and a picture of its error over both operands."""

    multiplier: tyro.conf.Positional[str]
    """Name of a circuit, or a table file."""
    png: Unset[Path | None] = None
    """Where to write the picture; by default NAME.png in the current folder."""


@dataclass(frozen=True)
class Import:
    """Check truth tables of other tools and copy them into a folder for --multipliers: all of them, or none.

    A figures CSV in the folder of the tables, or else in its parent, gives power, area and delay; the error figures in
    it must be those of the tables.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Table files (.bin, .npy, .txt, .csv, .h) or folders of them."""
    to: Path
    """The folder to import into: a new one, or one of earlier imports."""
    signed: bool = False
    """The tables are those of signed circuits. By default the name says so (mul8s…), or the table itself."""
    unsigned: bool = False
    """The tables are those of unsigned circuits."""
    order: Annotated[str, tyro.conf.arg(metavar="{numeric,twos-complement}", help_behavior_hint="")] = ""
    """Index order of signed tables: −128 first, or 0 first and −128 after 127. By default the table itself says so."""
    figures: Unset[Path | None] = None
    """The CSV with the published figures, if it does not lie beside the tables."""
    overwrite: bool = False
    """Replace a table or a figure that the folder holds under the same name."""


@dataclass(frozen=True)
class Errors:
    """Error figures recomputed from the truth tables, beside the published ones; exit code 1 if any deviates by more
    than rounding."""

    multipliers: Unset[tyro.conf.Positional[tuple[str, ...]]] = ()
    """Names of circuits, table files (.bin, .npy, .txt, .csv, .h) or folders of them; none: all that are built in."""


COMMANDS = {"list": List, "show": Show, "import": Import, "errors": Errors}


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: run(parse(arguments)))


# -- parsing -----------------------------------------------------------------------------------------------------------


def parse(arguments: list[str]) -> Any:
    """The command. Raises InputError; exits with 0 after --help."""
    return parse_subcommand(COMMANDS, PROGRAM, DESCRIPTION, arguments)


# -- commands ----------------------------------------------------------------------------------------------------------


def run(command: List | Show | Import | Errors) -> int:
    """Carry out a parsed command; returns the exit code."""
    if isinstance(command, List):
        return _list(command)
    if isinstance(command, Show):
        return _show(command)
    if isinstance(command, Import):
        return _import(command)
    return _errors(command)


def datasheets(items: Iterable[str]) -> list[Datasheet]:
    """The circuits that the items name (as in ``catalogue.library``), with what was published about them, unchecked."""
    found: list[Datasheet] = []
    for item in items:
        if catalogue.is_path(item):
            found += read_datasheets(Path(item))
        else:
            published = catalogue.published_figures(item) if item in catalogue.names() else {}
            row = {column: repr(value) for column, value in published.items()}
            found.append(Datasheet(catalogue.get(item), Figures(row, "mul8s_figures.csv"), Path(item)))
    return found


def _list(command: List) -> int:
    sheets = datasheets(command.multipliers or catalogue.names())
    for sheet in sheets:
        verify(sheet, catalogue.find)
    rows = [presentation.row(sheet.multiplier) for sheet in sheets]
    if command.csv:
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"signed": str(row["signed"]).lower()} for row in rows)
    else:
        Terminal().print(presentation.overview(rows))
    return 0


def _show(command: Show) -> int:
    sheets = datasheets([command.multiplier])
    if len(sheets) > 1:
        raise InputError(f"'{command.multiplier}' holds {len(sheets)} circuits; name one table file in it")
    multiplier = sheets[0].multiplier
    picture = command.png or Path(f"{multiplier.name}.png")
    if picture.suffix.lower() != ".png":
        raise InputError(f"--png {picture}: the picture is a PNG; end its name in .png")
    from spaces.multipliers.error_map import draw_error_map  # matplotlib takes a second to import

    drawn = io.BytesIO()
    draw_error_map(multiplier).savefig(drawn, dpi=150)
    save_bytes(picture, drawn.getvalue())
    console = Terminal()
    console.print("", presentation.properties(multiplier))
    console.print(presentation.comparison(sheets))
    console.print(f"error over both operands: {picture}", highlight=False, soft_wrap=True)
    return 0


def _import(command: Import) -> int:
    if not command.sources:
        raise InputError("name the table files or folders to import")
    if command.signed and command.unsigned:
        raise InputError("--signed and --unsigned exclude each other")
    if command.order not in ("", *get_args(Order)):
        raise suggest(command.order, get_args(Order), "index order")
    sheets = read_sources(
        command.sources,
        signed=True if command.signed else (False if command.unsigned else None),
        order=cast(Order, command.order) if command.order else None,
        figures=command.figures,
        known=catalogue.find,
    )
    for result in import_tables(sheets, command.to, overwrite=command.overwrite):
        print(f"{result.change}: {presentation.in_a_line(result.sheet)}")
    print(f"use them with: --multipliers {shlex.quote(str(command.to))}")
    return 0


def _errors(command: Errors) -> int:
    sheets = datasheets(command.multipliers or catalogue.names())
    found = [deviation for sheet in sheets for deviation in deviations(sheet.multiplier, sheet.figures.row)]
    published = [deviation for deviation in found if deviation.published is not None]
    wrong = sum(not deviation.within for deviation in published)
    console = Terminal()
    console.print(presentation.comparison(sheets))
    verdict = f"{wrong} deviate by more than rounding" if wrong else "none deviates by more than rounding"
    console.print(
        f"{len(sheets)} circuits, {len(published)} published error figures: {verdict}", highlight=False, soft_wrap=True
    )
    return DEVIATES if wrong else 0


if __name__ == "__main__":
    leave(main())
