"""The command line: run folders in; tables, figures and one self-contained page out.

    python -m reports.build runs/ --out report/
    python -m reports.build runs/ --out report/ --watch      # again whenever a run begins or ends

Runs of different data sets, training limits, spaces, protocols (by hash), scopes or accountings never share a table. What
cannot be used is listed with its reason. The old report stays until the new one is whole. Bad input ends with one line that
says what to do, and exit code 2. Nothing here imports torch.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from evaluation.runs.folder import CONFIG, RECORD
from reports import figures, tables, text
from reports.figures import Picture
from reports.figures.style import count
from reports.files import publishing, write_text
from reports.finding import find_runs
from reports.load import Loaded, load
from reports.page.document import page
from reports.tables import Table
from spaces.cli.commands import guarded, leave
from spaces.cli.flags import Parser, path
from spaces.cli.programs import program
from spaces.errors import InputError
from spaces.files.untrusted_text import csv_cell

PROGRAM = program("report")
WATCH_SECONDS = 10.0
RENDERERS = {"md": tables.markdown, "tex": tables.latex, "csv": tables.csv}
MANY_COLUMNS = "-methods"  # of this table a paper prints the headline, which has a LaTeX file of its own


def build(paths: Sequence[Path], out: Path, command: str) -> str:
    """Write the report of the runs at ``paths`` to ``out``; ``command`` is what does so. Returns a line about it.

    Raises InputError where there is nothing to report and where ``out`` cannot be written.
    """
    with Progress() as progress:
        progress.say("reading runs")
        loaded = load(paths)
        with publishing(out, "reports.build") as draft:
            _write(loaded, draft, out, command, progress)
    left = f"; {len(loaded.left_out)} left out, listed at its end" if loaded.left_out else ""
    searched = f", {sum(each.searches for each in loaded.searches):,} searches on a table"
    what = f"{count(len(loaded.runs), 'run')}, {count(len(loaded.finalists), 'finalist')}{searched if loaded.searches else ''}"
    return f"wrote {out / 'index.html'}: {what}{left}"


def _write(loaded: Loaded, draft: Path, out: Path, command: str, progress: "Progress") -> None:
    """All files of the report."""
    progress.say("tables")
    made, files = _write_tables(loaded, draft)
    drawn, more_files = _write_figures(loaded, draft, progress)
    progress.say("page")
    write_text(draft / "finalists.csv", loaded.finalists.map(csv_cell).to_csv(index=False, lineterminator="\n"))
    write_text(draft / "report.md", text.report(loaded, made, command))
    write_text(draft / "index.html", page(loaded, made, drawn, out, command, files | more_files))


def _write_tables(loaded: Loaded, draft: Path) -> tuple[dict[str, list[Table]], dict[str, list[str]]]:
    """The tables by section, "" for those of all, and the files of each by its name."""
    made = {found.name: list(tables.searches(found)) for found in loaded.searches}
    made |= {section.name: list(tables.of_section(section)) for section in loaded.sections}
    made[""] = [table for table in [tables.multipliers(loaded)] if table.rows]
    files: dict[str, list[str]] = {}
    for table in (table for group in made.values() for table in group):
        suffixes = [suffix for suffix in RENDERERS if suffix != "tex" or not table.name.endswith(MANY_COLUMNS)]
        files[table.name] = [f"tables/{table.name}.{suffix}" for suffix in suffixes]
        for suffix, name in zip(suffixes, files[table.name]):
            write_text(draft / name, RENDERERS[suffix](table))
    return made, files


def _write_figures(
    loaded: Loaded, draft: Path, progress: "Progress"
) -> tuple[list[tuple[Picture, str]], dict[str, list[str]]]:
    """The figures with their SVG text, and the files of each by its name."""
    folder = draft / "figures"
    folder.mkdir()
    drawn: list[tuple[Picture, str]] = []
    files: dict[str, list[str]] = {}
    for picture in figures.pictures(loaded):
        progress.say(f"figure {len(drawn) + 1}: {picture.name}")
        figures.write(picture, folder)
        drawn.append((picture, (folder / f"{picture.name}.svg").read_text(encoding="utf-8")))
        files[picture.name] = [f"figures/{picture.name}{suffix}" for suffix in figures.FORMATS]
    return drawn, files


class Progress:
    """A line on the standard error that says what is being made, where that is a terminal; it leaves nothing behind."""

    def __enter__(self) -> "Progress":
        return self

    def say(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text} …", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def watch(paths: Sequence[Path], out: Path, command: str, seconds: float) -> None:
    """Build again whenever a run begins or ends, looking every so many seconds, until Ctrl-C.

    Raises InputError for a path that is not there to begin with; what goes missing later may come back.
    """
    find_runs(paths)
    seen: object = ()
    while True:
        try:
            now = _state(paths)
        except (InputError, OSError):
            now = None
        if now != seen:
            try:
                print(time.strftime("%H:%M:%S"), build(paths, out, command), flush=True)
            except (InputError, OSError) as error:  # the next run may mend it
                print(time.strftime("%H:%M:%S"), "waiting:", error, flush=True)
            seen = now
        time.sleep(seconds)


def _state(paths: Sequence[Path]) -> dict[Path, float]:
    """Settings and records of all runs, with the times of their last change. A run's steps do not count."""
    files = [place / name for place in find_runs(paths)[0] for name in (CONFIG, RECORD)]
    state = {}
    for file in files:
        try:
            state[file] = file.stat().st_mtime
        except OSError:  # not there yet
            continue
    return state


def parser() -> Parser:
    """Of the command line."""
    what = (
        "index.html (one self-contained page), report.md, finalists.csv, tables/ (Markdown, LaTeX, CSV) and figures/ "
        "(PDF, SVG, PNG)"
    )
    made = Parser(PROGRAM, f"Compare finished runs: writes {what}.")
    made.add_argument("paths", nargs="+", type=path, help="run folders, folders of run folders, or record files")
    made.add_argument("--out", type=path, default=Path("report"), help="folder to write to (default: report)")
    made.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"go on, and build again whenever a run begins or ends; look every SECONDS ({WATCH_SECONDS:g}); Ctrl-C ends it",
    )
    return made


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """``paths``, ``out`` and ``watch``. Raises InputError for anything not understood; exits with 0 after --help."""
    options = parser().parse(arguments)
    if options.watch is not None and not 0 < options.watch < 1e6:
        raise InputError("--watch needs a positive number of seconds")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, build, say what was written, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        options = parse(arguments)
        command = shlex.join([*PROGRAM.split(), *arguments])
        if options.watch is None:
            print(build(options.paths, options.out, command))
        else:
            watch(options.paths, options.out, command, options.watch)
        return 0

    return guarded(work)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    leave(main())
