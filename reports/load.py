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
from typing import Any

import pandas as pd

from evaluation.records import CONFIG, HISTORY, RECORD, RunFolder, limit_note, read_history, read_record
from spaces.errors import InputError

LEVELS = 2  # how deep below a given folder runs are looked for
# Names that live next to torch, so copied; tests hold them equal to the originals.
ARITHMETICS = ("fp32", "int8", "approximate")
ACCOUNTINGS = ("horowitz45", "approxdarts")
STAGES = ("search", "selection", "final", "test")
SAVINGS = ("saving_vs_fp32", "saving_vs_int8")
SPLITS = [
    f"{arithmetic}_{part}_pj" for arithmetic in ARITHMETICS for part in ("multiplications", "additions", "memory")
]
# What must be equal for two runs to be repetitions of one another; numbers of a driver and the like may change.
SETTINGS = ("multiplier_choice", "budget", "multipliers", "tables", "engine", "deterministic", "method_config")
DEVICE = ("type", "name", "count", "threads")
LARGEST = 1e100  # of any number in a record: beyond lies damage


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
        if not path.exists():
            raise InputError(f"'{path}' does not exist; give run folders, folders of them, or record files")
        places = _run_folders(path, LEVELS, left_out) if path.is_dir() else [path]
        if not places:
            left_out.append(LeftOut(str(path), f"it holds no run folder, up to {LEVELS} levels deep"))
        for place in places:
            record = place / RECORD if place.is_dir() else place
            found.setdefault(os.path.realpath(record), place)  # which takes a loop of links, unlike Path.resolve
    return list(found.values()), left_out


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
        rows = [_row(record, index) for index in range(len(_pick(record, list, "finalists")))]
        if not rows:
            raise InputError("it has no finalists")
        _check_moments(record)
    except InputError as error:
        raise InputError(f"{file} is damaged: {error}; restore it or start a new run") from None
    best = max(range(len(rows)), key=lambda index: rows[index]["validation_accuracy"] or 0.0)
    for index, row in enumerate(rows):
        row["best"] = index == best
    return file, record, rows


def _how_far(place: Path) -> str:
    """Why there is no record, and how far the run has come."""
    RunFolder(place).config()  # has its own reason where the settings are damaged or newer
    history = read_history(place / HISTORY)
    last = history[-1] if history else {}
    done = f"{len(history)} steps, now in {last.get('stage')}" if last else "no step is done"
    return f"unfinished (still running or stopped): {done}; go on with python -m evaluation.run --resume {place}"


def _pick(node: Any, kind: Any, *path: str | int) -> Any:
    """The value of type ``kind`` at ``path``. Raises InputError where it is missing, of another type or not finite."""
    name = ".".join(map(str, path))
    for step in path:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"it lacks {name}") from None
    finite = not isinstance(node, int | float) or abs(node) < LARGEST  # False for NaN, too
    if isinstance(node, bool) or not isinstance(node, kind) or not finite:
        raise InputError(f"{name} is {json.dumps(node)[:60]}")
    return node


def _share(record: dict, *path: str | int) -> float | None:
    """A share of images, or None. Raises InputError as ``_pick`` does, and outside 0..1."""
    value = _pick(record, int | float | None, *path)
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{'.'.join(map(str, path))} is {value}, not a share from 0 to 1")
    return value


def _amount(record: dict, *path: str | int) -> float:
    """Seconds or picojoules. Raises InputError as ``_pick`` does, and below 0."""
    value = _pick(record, int | float, *path)
    if value < 0:
        raise InputError(f"{'.'.join(map(str, path))} is {value}, below 0")
    return value


def _row(record: dict, index: int) -> dict:
    """One finalist; None is a number that nobody measured."""
    number, at = int | float, ("finalists", index)
    model = _pick(record, str, "energy_model")
    if model not in ACCOUNTINGS:
        raise InputError(f"its accounting {model!r:.60} is unknown")
    tested = {name: _share(record, *at, "accuracy", "test", name) for name in ARITHMETICS}
    known = tested["int8"] is not None and tested["approximate"] is not None
    seconds = {stage: _amount(record, "ledger", stage, "device_seconds") for stage in STAGES}
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
        "validation_accuracy": _share(record, *at, "accuracy", "validation"),
        **{f"test_accuracy_{name}": share for name, share in tested.items()},
        "accuracy_drop_vs_int8": tested["int8"] - tested["approximate"] if known else None,
        **{
            f"{a}_{name}_pj": _amount(record, *at, "energy", a, f"{name}_pj")
            for a in ACCOUNTINGS
            for name in ARITHMETICS
        },
        **{f"{a}_{name}": _pick(record, number, *at, "energy", a, name) for a in ACCOUNTINGS for name in SAVINGS},
        **{name: _amount(record, *at, "energy", model, "split", *name.split("_", 1)) for name in SPLITS},
        **{f"device_{name}": _pick(record, str, "device", name) for name in ("type", "name")},
        **{f"{stage}_device_seconds": spent for stage, spent in seconds.items()},
        "total_device_seconds": sum(seconds.values()),
        "hypervolume": _pick(record, number | None, "hypervolume"),
        "command": _pick(record, str, "command"),
    }


def _check_moments(record: dict) -> None:
    """Raises InputError where the fronts over time are not what they should be."""
    moments = record.get("anytime") or []
    if moments and _amount(record, "reference_pj") == 0:
        raise InputError("reference_pj is 0")
    last = 0.0
    for at in range(len(_pick(record, list, "anytime")) if moments else 0):
        seconds = _amount(record, "anytime", at, "device_seconds")
        if seconds < last:
            raise InputError(f"anytime.{at} is earlier than the moment before it")
        last = seconds
        for point in range(len(_pick(record, list, "anytime", at, "front"))):
            if _share(record, "anytime", at, "front", point, 0) is None:
                raise InputError(f"anytime.{at}.front.{point} has no error")
            _amount(record, "anytime", at, "front", point, 1)


# -- sections and variants ---------------------------------------------------------------------------------------------

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
    largest_first = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    for number, (_, members) in enumerate(largest_first, 1):
        variants = _variants([record for _, (_, record, _) in members])
        runs = [
            _run(name, variant, f"section{number}", *parts, left_out)
            for variant, (name, parts) in zip(variants, members)
        ]
        runs.sort(key=lambda r: (r.variant != r.method, r.method, len(r.variant), r.variant, r.seed, r.name))
        sections.append(Section(f"section{number}", tuple(runs)))
    return tuple(sections)


def _run(
    name: str, variant: str, section: str, file: Path, record: dict, rows: list[dict], left_out: list[LeftOut]
) -> Run:
    frame = pd.DataFrame(rows)
    frame.insert(0, "section", section)
    frame.insert(1, "run", name)
    frame.insert(2, "variant", variant)
    frame["record_file"] = str(file)
    try:
        history = tuple(read_history(file.with_name(HISTORY)))
    except (InputError, OSError) as error:
        history = ()
        left_out.append(LeftOut(f"{file.with_name(HISTORY)} (its record is used)", str(error)))
    return Run(name, variant, record, file, frame, history)


def _names(files: Sequence[Path]) -> list[str]:
    """A name of its own for every run: that of its folder, with as many of those above as it takes."""
    parts = [(file.parent if file.name == RECORD else file.with_suffix("")).resolve().parts for file in files]
    names = [part[-1] for part in parts]
    for depth in range(2, max(map(len, parts), default=1) + 1):
        counts = Counter(names)
        names = [name if counts[name] == 1 else "/".join(part[-depth:]) for name, part in zip(names, parts)]
    return names


def settings_of(record: dict) -> dict[str, str]:
    """What tells a run from its repetitions, as text by name; the method's own settings one by one."""
    settings = {name: record.get(name) for name in SETTINGS if name != "method_config"}
    own = record.get("method_config")
    settings |= own if isinstance(own, dict) else {"method_config": own}
    device = record["device"] if isinstance(record["device"], dict) else {}
    settings["device"] = " ".join(str(device[name]) for name in DEVICE if device.get(name) is not None)
    notes = record.get("notes") if isinstance(record.get("notes"), list) else []
    if moved := [note for note in notes if isinstance(note, str) and note.startswith("resumed on ")]:
        settings["moved"] = moved
    return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}


def _variants(records: list[dict]) -> list[str]:
    """The name of every record's variant: its method, and what sets it apart from the method's usual settings.

    Usual is what most other methods share, and of that what most runs have: methods are compared in usual settings.
    """
    all_settings = [settings_of(record) for record in records]
    own = [record["method_config"] if isinstance(record.get("method_config"), dict) else {} for record in records]
    shared = [
        tuple((name, value) for name, value in sorted(settings.items()) if name not in config)
        for settings, config in zip(all_settings, own)
    ]
    methods_with: dict[tuple, set[str]] = {}
    for record, common in zip(records, shared):
        methods_with.setdefault(common, set()).add(record["method"])
    names = [""] * len(records)
    for method in {record["method"] for record in records}:
        members = [at for at, record in enumerate(records) if record["method"] == method]
        kinds = Counter(tuple(sorted(all_settings[at].items())) for at in members)
        popular = {tuple(sorted(all_settings[at].items())): len(methods_with[shared[at]]) for at in members}
        usual = dict(max(kinds, key=lambda kind: (popular[kind], kinds[kind])))  # of equals the first that was found
        for at in members:
            names[at] = _told(method, all_settings[at], usual)
    return names


def _told(method: str, settings: dict[str, str], usual: dict[str, str]) -> str:
    differing = [name for name in {**usual, **settings} if settings.get(name) != usual.get(name)]
    told = [f"{name}={_short(settings.get(name))}" for name in differing if name != "tables"]
    if "tables" in differing and "multipliers" not in differing:
        told.append("other truth tables under the same names")
    return f"{method} ({', '.join(told)})" if told else method


def _short(text: str | None) -> str:
    """A setting in few words."""
    value = None if text is None else json.loads(text)
    if isinstance(value, list) and len(value) > 2:
        digest = hashlib.sha256(text.encode()).hexdigest()[:4]
        return f"{len(value)} of them #{digest}"  # two lists of equal length must not read the same
    if isinstance(value, list):
        return "+".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values() if part is not None)
    return "none" if value in (None, "") else str(value)
