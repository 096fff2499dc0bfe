"""The command line of reports: run folders in, one comparison as Markdown and as CSV out.

    python -m reports.build runs/ --out report/

Numbers of different data sets, training limits, protocols (by hash) or scopes never share a table. What cannot be used
is listed with its reason. Bad input ends with one line that says what to do, and exit code 2. Nothing here imports torch.
"""

import argparse
import csv
import io
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from evaluation.records import CONFIG, HISTORY, RECORD, RunFolder, limit_note, read_record
from spaces.errors import InputError, suggest

BAD_INPUT, PROGRAM = 2, "python -m reports.build"
LEVELS = 2  # how deep below a given folder runs are looked for
# Names that live next to torch, so copied; tests hold them equal to the originals.
ARITHMETICS = ("fp32", "int8", "approximate")
ACCOUNTINGS = ("horowitz45", "approxdarts")
STAGES = ("search", "selection", "final", "test")
ENERGIES = (*(f"{arithmetic}_pj" for arithmetic in ARITHMETICS), "saving_vs_fp32", "saving_vs_int8")
SPLITS = [
    f"{arithmetic}_{part}_pj" for arithmetic in ARITHMETICS for part in ("multiplications", "additions", "memory")
]

# Columns of numbers: header, column of the CSV file, factor, format.
MEASURED = [
    *((f"test {name}, %", f"test_accuracy_{name}", 100, ".2f") for name in ARITHMETICS),
    ("drop vs int8, points", "accuracy_drop_vs_int8", 100, ".2f"),
    *((f"{name}, pJ", f"{{model}}_{name}_pj", 1, ",.0f") for name in ARITHMETICS),
    *((f"saved vs {base}, %", f"{{model}}_saving_vs_{base}", 100, ".2f") for base in ("fp32", "int8")),
]
HOURS = [(f"{stage}, device-h", f"{stage}_device_seconds", 1 / 3600, ".4f") for stage in (*STAGES, "total")]
COUNTED = [
    *((header, header.lower(), 1, ",d") for header in ("params", "MACs")),
    ("validation, %", "validation_accuracy", 100, ".2f"),
]

PREFACE = """# Comparison

Sections differ in data set, training limit, protocol or scope: do not compare across them. A method's row is the mean ±
sample standard deviation (from two runs on) over its runs, of each run's finalist with the highest **validation**
accuracy. "(k of n)": measured in k of n runs; –: in none. Savings and drops (test accuracy in exact int8 − approximate)
are taken run by run. Energy is per inference, without memory traffic. Every number in full: comparison.csv."""


@dataclass(frozen=True)
class LoadedRun:
    """A finished run and its rows of the CSV file, one per finalist."""

    folder: str
    record: dict
    rows: list[dict]

    @property
    def best(self) -> dict:
        """The finalist of the highest validation accuracy: choosing by test accuracy would flatter the method.

        An architecture that was given has none, and is the only one of its run.
        """
        return max(self.rows, key=lambda row: row["validation_accuracy"] or 0.0)

    @property
    def group(self) -> tuple[str, ...]:
        """Only runs of the same group are compared. Two image folders may share a name, but not a fingerprint."""
        keys = ("dataset", "protocol", "protocol_hash", "scope", "dataset_fingerprint", "train_limit")
        return tuple(self.rows[0][key] for key in keys)

    @property
    def settings(self) -> dict[str, str]:
        """What must be equal for two runs to be repetitions of one another, as text."""
        names = (
            "space",
            "space_config",
            "multiplier_choice",
            "budget",
            "multipliers",
            "energy_model",
            "method_config",
        )
        device = self.record["device"] if isinstance(self.record["device"], dict) else {}
        settings = {name: self.record.get(name) for name in names}
        # A driver or a power limit may change between repetitions.
        settings["device"] = {name: device.get(name) for name in ("type", "name", "count", "threads")}
        if moved := [note for note in _notes(self.record) if note.startswith("resumed on ")]:
            settings["moved"] = moved
        return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}


def find_runs(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Run folders and record files, each once, and notes on paths without any. Raises InputError for a missing path."""
    found: dict[Path, Path] = {}  # real record file → the place as the user named it
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"'{path}' does not exist; give run folders, folders of them, or record files")
        places = _run_folders(path, LEVELS) if path.is_dir() else [path]
        if not places:
            notes.append(f"'{path}' holds no run folder, up to {LEVELS} levels deep")
        for place in places:
            found.setdefault((place / RECORD if place.is_dir() else place).resolve(), place)
    return list(found.values()), notes


def _run_folders(folder: Path, levels: int) -> list[Path]:
    if any((folder / name).exists() for name in (CONFIG, HISTORY, RECORD)):
        return [folder]
    children = sorted(child for child in folder.iterdir() if child.is_dir()) if levels else []
    return [run for child in children for run in _run_folders(child, levels - 1)]


def load_runs(places: Iterable[Path]) -> tuple[list[LoadedRun], list[str]]:
    """The finished runs in the order of the report, and a line of text for every place that is none."""
    runs: list[LoadedRun] = []
    notes: list[str] = []
    for place in places:
        try:
            run = load_run(place)
            twin = next((other for other in runs if other.record == run.record), None)
            if twin:  # counting it again would make the deviation too small
                raise InputError(f"{run.folder} is a copy of {twin.folder}; counted once")
            runs.append(run)
        except (OSError, ValueError, RecursionError) as error:  # all that JSON from elsewhere can cause
            notes.append(str(error) if isinstance(error, InputError) else f"{place} cannot be read: {error}")
    return sorted(runs, key=lambda r: (*r.group, r.rows[0]["method"], r.rows[0]["seed"], r.folder)), notes


def load_run(place: Path) -> LoadedRun:
    """The run of a run folder or a record file. Raises InputError that names the file and the reason."""
    file = place / RECORD if place.is_dir() else place
    folder = str(file.parent if file.name == RECORD else file)
    if not file.exists():
        RunFolder(place).config()  # has its own reason where the settings are damaged or newer
        raise InputError(f"{place} is unfinished (still running or stopped): it has no {RECORD}")
    record = read_record(file)
    if record.get("status") != "complete":
        raise InputError(f"{file}: the run's status is {record.get('status')!r}, not 'complete'")
    try:
        rows = [_row(record, index, folder) for index in range(len(_pick(record, list, "finalists")))]
        if not rows:
            raise InputError("it has no finalists")
    except InputError as error:
        raise InputError(f"{file} is damaged: {error}; restore it or start a new run") from None
    return LoadedRun(folder, record, rows)


def _pick(node: Any, kind: Any, *path: str | int) -> Any:
    """The value of type ``kind`` at ``path``. Raises InputError where it is missing, of another type or not finite."""
    name = ".".join(map(str, path))
    for step in path:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"it lacks {name}") from None
    finite = not isinstance(node, int | float) or abs(node) < 1e100  # False for NaN, too
    if isinstance(node, bool) or not isinstance(node, kind) or not finite:
        raise InputError(f"{name} is {json.dumps(node)[:60]}")
    return node


def _row(record: dict, index: int, folder: str) -> dict:
    """One finalist as a row of the CSV file; None is a number that nobody measured."""
    number, at = int | float, ("finalists", index)
    model = _pick(record, str, "energy_model")
    if model not in ACCOUNTINGS:
        raise InputError(f"its accounting '{model}' is unknown")
    tested = {name: _pick(record, number | None, *at, "accuracy", "test", name) for name in ARITHMETICS}
    known = tested["int8"] is not None and tested["approximate"] is not None
    seconds = {stage: _pick(record, number, "ledger", stage, "device_seconds") for stage in STAGES}
    return {
        **{name: _pick(record, str, name) for name in ("method", "space", "dataset", "dataset_fingerprint")},
        "train_limit": _pick(record, int, "train_limit") if "train_limit" in record else 0,
        "protocol": _pick(record, str, "protocol", "name"),
        "protocol_hash": _pick(record, str, "protocol", "hash"),
        "seed": _pick(record, int, "seed"),
        "scope": _pick(record, str, "scope"),
        "energy_model": model,
        "finalist": index + 1,
        "key": _pick(record, str, *at, "key"),
        **{name: _pick(record, int, *at, name) for name in ("params", "macs")},
        "validation_accuracy": _pick(record, number | None, *at, "accuracy", "validation"),
        **{f"test_accuracy_{name}": share for name, share in tested.items()},
        "accuracy_drop_vs_int8": tested["int8"] - tested["approximate"] if known else None,
        **{f"{a}_{value}": _pick(record, number, *at, "energy", a, value) for a in ACCOUNTINGS for value in ENERGIES},
        **{name: _pick(record, number, *at, "energy", model, "split", *name.split("_", 1)) for name in SPLITS},
        **{f"device_{name}": _pick(record, str, "device", name) for name in ("type", "name")},
        **{f"{stage}_device_seconds": spent for stage, spent in seconds.items()},
        "total_device_seconds": sum(seconds.values()),
        "hypervolume": _pick(record, number | None, "hypervolume"),
        "run_folder": folder,
        "command": _pick(record, str, "command"),
    }


def csv_text(runs: Iterable[LoadedRun]) -> str:
    """One row per finalist; floats are written so that they read back exactly, an empty cell was not measured."""
    rows = [row for run in runs for row in run.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_text(runs: Iterable[LoadedRun], notes: Iterable[str]) -> str:
    """The comparison: a section per group of ``runs`` (sorted), then what was left out and what failed."""
    parts, failures, remarks = [PREFACE], [], []
    for (dataset, protocol, digest, scope, fingerprint, _), members in groupby(runs, key=lambda run: run.group):
        group = list(members)
        origins = sorted({str(run.record.get("dataset_origin") or "origin not recorded") for run in group})
        failures += [line for run in group for line in _failures(run)]
        remarks += [f"{run.folder}: {note}" for run in group for note in _notes(run.record)]
        parts += [
            _escape(f"## {dataset}{limit_note(group[0].record)}, protocol {protocol} ({digest[:8]}), scope {scope}"),
            _escape(f"Data: {'; '.join(origins)} (fingerprint {fingerprint[:8]})."),
            _method_table(group),
            _finalist_table(group),
        ]
    parts += ["## Left out", _bullets(notes) or "Nothing: every run that was found is in the tables."]
    parts += ["## Notes on these runs", _bullets(remarks)] if remarks else []
    parts += ["## Failures inside these runs", _bullets(failures)] if failures else []
    return "\n\n".join(parts) + "\n"


def _method_table(group: list[LoadedRun]) -> str:
    """One row per method; runs of one method with different settings are no repetitions and get a row each."""
    rows = []
    for method, members in groupby(group, key=lambda run: run.rows[0]["method"]):
        repetitions: dict[tuple, list[LoadedRun]] = {}
        for run in members:
            repetitions.setdefault(tuple(run.settings.items()), []).append(run)
        common = set.intersection(*(set(settings) for settings in repetitions))
        for settings, runs in repetitions.items():
            label = ", ".join([method, *(f"{name} {value}" for name, value in settings if (name, value) not in common)])
            best = [run.best for run in runs]
            seeds = " ".join(str(row["seed"]) for row in best)
            texts = [label, str(len(runs)), seeds, best[0]["device_name"], best[0]["energy_model"]]
            rows.append([*texts, *_numbers(best, [*MEASURED, *HOURS])])
    return _table(["method", "runs", "seeds", "device", "energy model"], [*MEASURED, *HOURS], rows)


def _finalist_table(group: list[LoadedRun]) -> str:
    rows = []
    for run in group:
        for row in run.rows:
            mark = "yes" if row is run.best else ""
            texts = [run.folder, row["method"], str(row["seed"]), str(row["finalist"]), mark, row["key"][:8]]
            rows.append([*texts, row["energy_model"], *_numbers([row], [*COUNTED, *MEASURED])])
    headers = ["run folder", "method", "seed", "finalist", "best on validation", "key", "energy model"]
    return _table(headers, [*COUNTED, *MEASURED], rows)


def _numbers(rows: list[dict], columns: list[tuple]) -> list[str]:
    return [
        mean_std([row[key.format(model=row["energy_model"])] for row in rows], factor, form)
        for _, key, factor, form in columns
    ]


def mean_std(values: list[float | None], factor: float, form: str) -> str:
    """The mean of what was measured, its sample standard deviation from two values on, and how many there are."""
    measured = [value * factor for value in values if value is not None]
    if not measured:
        return "–"
    text = format(statistics.mean(measured), form)
    if len(measured) > 1:
        text += f" ± {statistics.stdev(measured):{form}}"
    return text if len(measured) == len(values) else f"{text} ({len(measured)} of {len(values)})"


def _notes(record: dict) -> list[str]:
    """What a record says about how its run went."""
    notes = record.get("notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _failures(run: LoadedRun) -> list[str]:
    """What went wrong inside a finished run, equal reasons together."""
    failures = run.record.get("failures")
    failures = [f for f in failures if isinstance(f, dict)] if isinstance(failures, list) else []
    counts = Counter(f"{failure.get('stage')}: {failure.get('reason')}" for failure in failures)
    return [f"{run.folder}: {what} ({count} ×)" for what, count in counts.items()]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines)


def _table(headers: list[str], columns: list[tuple], rows: list[list[str]]) -> str:
    headers = [*headers, *(column[0] for column in columns)]
    aligned = ["---"] * (len(headers) - len(columns)) + ["---:"] * len(columns)
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in (headers, aligned, *rows))


def _escape(text: str) -> str:
    """One line of Markdown in which nothing from a record or a file name acts as markup."""
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(text.splitlines()))


def write_all(folder: Path, texts: dict[str, str]) -> None:
    """Each file whole or not at all, under its name only once all are written. Raises InputError."""
    drafts = {folder / f".{name}.tmp": folder / name for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for draft, path in drafts.items():
            # A file name need not be valid Unicode, and is no reason to lose the report.
            draft.write_text(texts[path.name], encoding="utf-8", errors="backslashreplace", newline="")
        for draft, path in drafts.items():
            draft.replace(path)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror}; choose another folder with --out") from None
    finally:
        for draft in filter(Path.is_file, drafts):
            draft.unlink()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # in one line, as the other command lines do
        raise InputError(f"{message}; see {PROGRAM} --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """``paths`` and ``out``. Raises InputError for anything not understood; exits with 0 after --help."""
    what = (
        "comparison.md (tables per data set, protocol and scope) and comparison.csv (a row per finalist, every number)"
    )
    parser = _Parser(prog=PROGRAM, description=f"Compare finished runs: writes {what}.", allow_abbrev=False)
    parser.add_argument("paths", nargs="+", type=Path, help="run folders, folders of run folders, or record files")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise suggest(unknown[0].partition("=")[0], ["--out", "--help"], "flag")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, say what was written, and return the exit code."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        places, notes = find_runs(options.paths)
        runs, reasons = load_runs(places)
        notes += reasons
        if not runs:
            more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
            raise InputError(f"no finished run to report: {notes[0]}{more}")
        write_all(options.out, {"comparison.md": markdown_text(runs, notes), "comparison.csv": csv_text(runs)})
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return BAD_INPUT
    left = f"; {len(notes)} left out, see the end of comparison.md" if notes else ""
    finalists = sum(len(run.rows) for run in runs)
    print(f"wrote comparison.md and comparison.csv to {options.out}: {len(runs)} runs, {finalists} finalists{left}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
