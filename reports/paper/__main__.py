"""The command line: the published tables, with reported, computed and measured figures side by side.

    python -m reports.paper
    python -m reports.paper runs/ --out report/
    python -m reports.paper --rerun                                    # the commands that would measure each row anew
    python -m reports.paper --rerun run --rows darts-2-cell

Bad input ends with one line that says what to do, and exit code 2.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.files import publishing, write_text
from reports.load import Loaded, load
from reports.paper import contents, measures
from reports.paper.measures import EMPTY
from reports.paper.published import published
from reports.paper.qualifying import Counted, sort_out
from reports.tables import Cell, Column, Table, csv, latex, markdown
from reports.tables.table import words
from spaces.cli.commands import guarded, leave
from spaces.cli.flags import Parser, path
from spaces.cli.programs import program
from spaces.errors import InputError, suggest
from spaces.files.untrusted_text import plain

PROGRAM = program("paper")
RECORDS = Path(__file__).parents[1] / "records"
NAMES = ("paper.md", "paper.tex", "paper.csv")

PREFACE = """# The published tables

Columns are of four kinds. *Reported*: as the authors print it. *Computed*: by this suite from the architecture alone, \
without any training. *Measured*: by a run of this suite whose record qualifies; a cell that was not measured is empty. \
*At reduced scale*: by runs on other data or under a shorter protocol, which are named with the figure."""


def parser() -> Parser:
    """Of the command line."""
    what = (
        "The published tables, with reported, computed and measured columns: writes paper.md, paper.tex and paper.csv."
    )
    made = Parser(PROGRAM, what)
    made.add_argument(
        "paths",
        nargs="*",
        type=path,
        help="run folders, folders of them, or record files (default: reports/records)",
    )
    made.add_argument("--out", type=path, default=Path("report"), help="folder to write to (default: report)")
    made.add_argument(
        "--rerun",
        nargs="?",
        const="print",
        choices=("print", "run"),
        help="instead of tables, print the commands that would measure the rows anew, or run them",
    )
    made.add_argument("--rows", nargs="+", metavar="ROW", help="with --rerun, of these commands only")
    return made


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """``paths``, ``out``, ``rerun`` and ``rows``. Raises InputError; exits with 0 after --help."""
    options = parser().parse(arguments)
    known = published().reruns
    for name in options.rows or ():
        if name not in known:
            raise suggest(name, known, "row")
    if options.rows and not options.rerun:
        raise InputError(f"--rows chooses commands of --rerun; see {PROGRAM} --help")
    if options.rerun == "run" and not options.rows:
        raise InputError(f"--rerun run takes GPU-days for every row; choose with --rows: {', '.join(known)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Parse, build or run, and return the exit code."""

    def work() -> int:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        if options.rerun == "run":
            run(options.rows)
            return 0
        loaded = _load(options.paths)
        counted = sort_out(loaded.runs)
        if options.rerun:
            print(commands(counted, options.rows or tuple(published().reruns)), end="")
        else:
            build(loaded, counted, options.out)
        return 0

    return guarded(work)


def _load(paths: Sequence[Path]) -> Loaded:
    """What was given, or what is kept here; an installed copy keeps nothing, and then nothing is measured."""
    if not paths and not RECORDS.is_dir():
        return Loaded((), ())
    return load(paths or [RECORDS])


def build(loaded: Loaded, counted: Counted, out: Path) -> None:
    """Write the tables in three forms, and print what the first of them says."""
    tables = contents.tables(counted, loaded.left_out)
    text = markdown_text(tables, counted)
    with publishing(out, "reports.paper") as folder:
        for name, content in zip(NAMES, (text, latex_text(tables), csv_text(tables))):
            write_text(folder / name, content)
    print(short(tables, counted))
    print(f"wrote {', '.join(NAMES)} to {out}")


def short(tables: Sequence[Table], counted: Counted) -> str:
    """The claims, a few lines each, and how many records say anything of them."""
    found = len({run.name for runs in counted.by_rerun.values() for run in runs})
    lines = [f"{_counted(found, 'record')} under the published protocol; {_counted(len(counted.others), 'other')}."]
    kinds = ("reported", "computed", "measured", "at reduced scale")
    for row in tables[0].rows:
        told = dict(zip((column.header for column in tables[0].columns), row))
        lines.append(plain(row[0].text))
        lines += [f"  {kind}: {plain(told[kind].text)}" for kind in kinds if told[kind].text]
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'s' * (count != 1)}"


def markdown_text(tables: Sequence[Table], counted: Counted) -> str:
    found = len({run.name for runs in counted.by_rerun.values() for run in runs})
    said = f"Records that qualify: {found}." if found else "No record here qualifies: nothing is measured yet."
    parts = [f"{PREFACE} {said}", "## Tables", *(markdown(table).strip() for table in tables)]
    parts += ["## Measuring them anew", f"```sh\n{commands(counted, tuple(published().reruns)).strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def latex_text(tables: Sequence[Table]) -> str:
    return "\n".join(latex(table) for table in tables)


def csv_text(tables: Sequence[Table]) -> str:
    """A line per cell: the table, its row by its first cell, the column, the text, the number in full, and its runs."""
    lines = [
        (*map(words, (table.name, label.text, column.header, cell.text)), _number(cell), words(" ".join(cell.runs)))
        for table in tables
        for label, *cells in table.rows
        for column, cell in zip(table.columns[1:], cells)
    ]
    columns = tuple(Column(header) for header in ("table", "row", "column", "text", "value", "runs"))
    return csv(Table("cells", "", columns, tuple(lines)))


def _number(cell: Cell) -> Cell:
    return cell if isinstance(cell.value, float | int) else EMPTY


# -- measuring anew ----------------------------------------------------------------------------------------------------


def commands(counted: Counted, names: Sequence[str]) -> str:
    """The commands as a shell takes them; what they took before stands above them, where somebody measured it."""
    parts = []
    for name in names:
        took = measures.duration(counted.by_rerun.get(name, ())) or "how long it takes was not measured"
        parts.append(f"# {name}: {plain(took)}\n{published().reruns[name].command}\n")
    return "\n".join(parts)


def run(names: Sequence[str]) -> None:
    """Run the commands one after the other; their records go to runs/. Raises InputError at the first that fails."""
    for name in names:
        _, *arguments = shlex.split(published().reruns[name].command)
        print(f"{name}: {published().reruns[name].command}", flush=True)
        code = subprocess.run([sys.executable, *arguments], check=False).returncode
        if code:
            raise InputError(f"{name} ended with exit code {code}; its own message is above")
    print(f"done; {PROGRAM} runs/ takes the new records in")


if __name__ == "__main__":
    leave(main())
