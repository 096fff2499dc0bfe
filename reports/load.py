"""Run folders and record files in, one tidy table out: a row per finalist, the histories beside it.

What may be compared shares a section: same data, space, protocol (by hash), scope and accounting. What cannot be used is listed
with its reason, and never dropped in silence. Nothing here imports torch.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from evaluation.runs.folder import CONFIG, HISTORY, RECORD, RunFolder, limit_note, read_history, read_record
from reports.rows import rows_of
from reports.variants import variants_of
from spaces.errors import InputError

LEVELS = 2  # how deep below a given folder runs are looked for


@dataclass(frozen=True)
class LeftOut:
    """A place that gave no run, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Run:
    """A finished run. ``name`` is its own within a report; ``variant`` says its method and, where the runs of one
    method in a section differ, in which settings it departs from most of them."""

    name: str
    variant: str
    record: dict
    record_file: Path
    finalists: pd.DataFrame
    history: tuple[dict, ...]

    @property
    def method(self) -> str:
        return self.record["method"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @cached_property
    def best(self) -> pd.Series:
        """The finalist of the highest validation accuracy: choosing by test accuracy would flatter the method.

        An architecture that was given has none, and is the only one of its run.
        """
        return self.finalists.loc[self.finalists["best"]].iloc[0]

    @property
    def moments(self) -> list[dict]:
        """The judged front at moments of the search, the last at its end: ``device_seconds``, ``front`` (error, pJ)."""
        return self.record.get("anytime") or []

    @property
    def notes(self) -> list[str]:
        """What the record says about how its run went."""
        notes = self.record.get("notes")
        return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []

    @property
    def failures(self) -> list[str]:
        """What went wrong inside the run, equal reasons together."""
        failures = self.record.get("failures")
        failures = [f for f in failures if isinstance(f, dict)] if isinstance(failures, list) else []
        counts = Counter(f"{failure.get('stage')}: {failure.get('reason')}" for failure in failures)
        return [f"{what} ({count} ×)" for what, count in counts.items()]


@dataclass(frozen=True)
class Section:
    """Runs that may be compared with one another, sorted by variant and seed."""

    name: str  # for file names: section1, section2, …
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        record = self.runs[0].record
        protocol = record["protocol"]
        return (
            f"{record['dataset']}{limit_note(record)}, space {record['space']}{self._space_settings}, "
            f"protocol {protocol['name']} ({protocol['hash'][:8]}), scope {record['scope']}, "
            f"energy by {record['energy_model']}"
        )

    @property
    def _space_settings(self) -> str:
        settings = self.runs[0].record.get("space_config")
        if not isinstance(settings, dict) or not settings:  # older records have none
            return ""
        return f" ({', '.join(f'{value} {name}'.replace('_', ' ') for name, value in settings.items())})"

    @property
    def data(self) -> str:
        """What the images are."""
        origins = sorted({str(run.record.get("dataset_origin") or "origin not recorded") for run in self.runs})
        return f"{'; '.join(origins)} (fingerprint {self.runs[0].record['dataset_fingerprint'][:8]})"

    @property
    def energy_model(self) -> str:
        return self.runs[0].record["energy_model"]

    @cached_property
    def variants(self) -> dict[str, tuple[Run, ...]]:
        """Variant → its runs."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.variant, []).append(run)
        return {variant: tuple(runs) for variant, runs in found.items()}

    @cached_property
    def finalists(self) -> pd.DataFrame:
        return pd.concat([run.finalists for run in self.runs], ignore_index=True)

    @property
    def pictured(self) -> dict[str, "Section"]:
        """What fits into one picture each: all methods in their usual settings, "", and the variants of one method."""
        usual = tuple(run for run in self.runs if run.variant == run.method)
        parts = {"": replace(self, runs=usual)}
        for method in dict.fromkeys(run.method for run in self.runs if run.variant != run.method):
            runs = tuple(run for run in self.runs if run.method == method)
            parts[method] = Section(f"{self.name}-variants-{len(parts)}", runs)
        return parts


@dataclass(frozen=True)
class Loaded:
    """All that a report is made of."""

    sections: tuple[Section, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def runs(self) -> list[Run]:
        return [run for section in self.sections for run in section.runs]

    @cached_property
    def finalists(self) -> pd.DataFrame:
        """A row per finalist; an empty cell is a number that nobody measured. Energies are in pJ per inference."""
        return pd.concat([section.finalists for section in self.sections], ignore_index=True)


def load(paths: Iterable[Path]) -> Loaded:
    """All finished runs at ``paths``: run folders, folders of them, or record files.

    A run that is still being written is unfinished, whatever its state. Raises InputError for a path that does not exist
    and where there is no finished run at all.
    """
    places, left_out = find_runs(paths)
    records: dict[str, tuple[Path, dict, list[dict]]] = {}  # content → where it was found, and what it says
    for place in places:
        try:
            file, record, rows = _read(place)
            content = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
            if content in records:  # counting it again would make the deviation too small
                raise InputError(f"a copy of {records[content][0].parent}; counted once")
            records[content] = file, record, rows
        except (OSError, ValueError, RecursionError) as error:  # all that JSON from elsewhere can cause
            reason = str(error) if isinstance(error, InputError) else f"it cannot be read: {error}"
            left_out.append(LeftOut(str(place), reason))
    if not records:
        first = f"{left_out[0].place}: {left_out[0].reason}" if left_out else "no paths were given"
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise InputError(f"no finished run to report: {first}{more}")
    return Loaded(_sections(list(records.values()), left_out), tuple(left_out))


# -- finding -----------------------------------------------------------------------------------------------------------


def find_runs(paths: Iterable[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Run folders and record files, each once, and what holds none. Raises InputError for a missing path."""
    found: dict[str, Path] = {}  # real record file → the place as the user named it
    left_out: list[LeftOut] = []
    for path in paths:
        known = len(left_out)
        places = _places(path, left_out)
        if not places and len(left_out) == known:
            left_out.append(LeftOut(str(path), f"it holds no run folder, up to {LEVELS} levels deep"))
        for place in places:
            record = place / RECORD if place.is_dir() else place
            found.setdefault(os.path.realpath(record), place)  # which takes a loop of links, unlike Path.resolve
    return list(found.values()), left_out


def _places(path: Path, left_out: list[LeftOut]) -> list[Path]:
    """The run folders at ``path``, or the file that it is. Raises InputError where there is nothing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"'{path}' does not exist; give run folders, folders of them, or record files") from None
    except OSError as error:
        left_out.append(LeftOut(str(path), f"it cannot be read: {error.strerror}"))
        return []
    return _run_folders(path, LEVELS, left_out) if path.is_dir() else [path]


def _run_folders(folder: Path, levels: int, left_out: list[LeftOut]) -> list[Path]:
    try:
        if any((folder / name).exists() for name in (CONFIG, HISTORY, RECORD)):
            return [folder]
        children = sorted(child for child in folder.iterdir() if child.is_dir()) if levels else []
    except OSError as error:
        left_out.append(LeftOut(str(folder), f"it cannot be read: {error.strerror}"))
        return []
    return [run for child in children for run in _run_folders(child, levels - 1, left_out)]


# -- one record --------------------------------------------------------------------------------------------------------


def _read(place: Path) -> tuple[Path, dict, list[dict]]:
    """The file, its record and its rows. Raises InputError that names the file and the reason."""
    file = place / RECORD if place.is_dir() else place
    if not file.exists():
        raise InputError(_how_far(place))
    record = read_record(file)
    if record.get("status") != "complete":
        raise InputError(f"{file}: the run's status is {record.get('status')!r}, not 'complete'")
    try:
        return file, record, rows_of(record)
    except InputError as error:
        raise InputError(f"{file} is damaged: {error}; restore it or start a new run") from None


def _how_far(place: Path) -> str:
    """Why there is no record, and how far the run has come."""
    RunFolder(place).config()  # has its own reason where the settings are damaged or newer
    history = read_history(place / HISTORY)
    last = history[-1] if history else {}
    done = f"{len(history)} steps, now in {last.get('stage')}" if last else "no step is done"
    return f"unfinished (still running or stopped): {done}; go on with python -m evaluation.run --resume {place}"


# -- sections ---------------------------------------------------------------------------------------------

_Found = tuple[Path, dict, list[dict]]


def _sections(found: list[_Found], left_out: list[LeftOut]) -> tuple[Section, ...]:
    """Only runs of one section are compared; that of most runs comes first, for it says most.

    Two image folders may share a name, but not a fingerprint.
    """
    names = _names([file for file, _, _ in found])
    groups: dict[tuple, list[tuple[str, _Found]]] = {}
    keys = (
        "dataset",
        "space",
        "protocol",
        "protocol_hash",
        "scope",
        "energy_model",
        "dataset_fingerprint",
        "train_limit",
    )
    for name, (file, record, rows) in zip(names, found):
        space = json.dumps(record.get("space_config"), sort_keys=True)
        group = (*(rows[0][key] for key in keys), space)
        groups.setdefault(group, []).append((name, (file, record, rows)))
    sections = []
    largest_first = sorted(_by_test_images(groups).items(), key=lambda group: (-len(group[1]), group[0]))
    for number, (_, members) in enumerate(largest_first, 1):
        variants = variants_of([record for _, (_, record, _) in members])
        runs = [
            _run(name, variant, f"section{number}", *parts, left_out)
            for variant, (name, parts) in zip(variants, members)
        ]
        runs.sort(key=lambda r: (r.variant != r.method, r.method, len(r.variant), r.variant, r.seed, r.name))
        sections.append(Section(f"section{number}", tuple(runs)))
    return tuple(sections)


def _by_test_images(groups: dict[tuple, list[tuple[str, _Found]]]) -> dict[tuple, list[tuple[str, _Found]]]:
    """Runs on other test images apart. Records that do not say which theirs were go with the only known ones."""
    apart: dict[tuple, list[tuple[str, _Found]]] = {}
    for group, members in groups.items():
        own = [str(record.get("test_fingerprint") or "") for _, (_, record, _) in members]
        known = set(own) - {""}
        for member, fingerprint in zip(members, own):
            images = fingerprint or (min(known) if len(known) == 1 else "")
            apart.setdefault((*group, images), []).append(member)
    return apart


def _run(
    name: str, variant: str, section: str, file: Path, record: dict, rows: list[dict], left_out: list[LeftOut]
) -> Run:
    frame = pd.DataFrame(rows)
    frame.insert(0, "section", section)
    frame.insert(1, "run", name)
    frame.insert(2, "variant", variant)
    frame["record_file"] = str(file)
    log = file.with_name(HISTORY)
    try:
        history = tuple(read_history(log))
    except (InputError, OSError) as error:
        history = ()
        left_out.append(LeftOut(f"{log} (its record is used)", str(error)))
    return Run(name, variant, record, file, frame, history)


def _names(files: Sequence[Path]) -> list[str]:
    """A name of its own for every run: that of its folder, with as many of those above as it takes."""
    parts = [(file.parent if file.name == RECORD else file.with_suffix("")).resolve().parts for file in files]
    names = [part[-1] for part in parts]
    for depth in range(2, max(map(len, parts), default=1) + 1):
        counts = Counter(names)
        names = [name if counts[name] == 1 else "/".join(part[-depth:]) for name, part in zip(names, parts)]
    return names
