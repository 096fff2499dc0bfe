"""Run folders and record files in, one tidy table out: a row per finalist, the histories beside it.

What may be compared shares a section: same data, space, protocol (by hash), scope and accounting. What cannot be used is listed
with its reason, and never dropped in silence. Nothing here imports torch.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from evaluation.runs import units
from evaluation.runs.folder import HISTORY, RECORD, RunFolder, read_history, read_record
from evaluation.runs.record import Finalist, Moment, Record, in_order
from reports.finding import LeftOut, find_runs
from reports.rows import cost_column, rows_of
from reports.searches import Searched, read_comparisons
from reports.variants import variants_of
from spaces.cli.programs import program
from spaces.errors import InputError

TIME_UNITS = (("device-h", 1.0), ("device-min", 1 / 60), ("device-s", 1 / 3600))  # and how many hours each has


@dataclass(frozen=True)
class Run:
    """A finished run. ``name`` is its own within a report; ``variant`` says its method and, where the runs of one
    method in a section differ, in which settings it departs from most of them."""

    name: str
    variant: str
    record: Record
    record_file: Path
    finalists: pd.DataFrame
    history: tuple[dict, ...]

    @property
    def method(self) -> str:
        return self.record.method

    @property
    def seed(self) -> int:
        return self.record.seed

    @cached_property
    def best(self) -> pd.Series:
        """The finalist of the highest validation accuracy: choosing by test accuracy would flatter the method.

        An architecture that was given has none, and is the only one of its run.
        """
        return self.finalists.loc[self.finalists["best"]].iloc[0]

    @property
    def best_finalist(self) -> Finalist:
        """The same finalist, as the record has it."""
        return self.record.finalists[int(self.best["finalist"]) - 1]

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The judged front at moments of the search, the last at its end."""
        return self.record.anytime

    @property
    def notes(self) -> tuple[str, ...]:
        return self.record.notes

    @property
    def failures(self) -> list[str]:
        """What went wrong inside the run, equal reasons together."""
        counts = Counter(f"{failure.stage}: {failure.reason}" for failure in self.record.failures)
        return [f"{what} ({count} ×)" for what, count in counts.items()]


@dataclass(frozen=True)
class Section:
    """Runs that may be compared with one another, sorted by variant and seed."""

    name: str  # for file names: section1, section2, …
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        record = self.runs[0].record
        return (
            f"{record.dataset}{record.limit_note}, space {record.space}{self._space_settings}, "
            f"protocol {record.protocol.name} ({record.protocol.hash[:8]}), scope {record.scope}, "
            f"{units.noun(record.unit)} by {record.cost}"
        )

    @property
    def _space_settings(self) -> str:
        settings = self.runs[0].record.space_config
        if not settings:  # older records have none
            return ""
        return f" ({', '.join(f'{value} {name}'.replace('_', ' ') for name, value in settings.items())})"

    @property
    def data(self) -> str:
        origins = sorted({run.record.dataset_origin or "origin not recorded" for run in self.runs})
        return f"{'; '.join(origins)} (fingerprint {self.runs[0].record.dataset_fingerprint[:8]})"

    @property
    def cost(self) -> str:
        """The name of the cost model that guided the searches."""
        return self.runs[0].record.cost

    @property
    def unit(self) -> str:
        """Of that cost."""
        return self.runs[0].record.unit

    @cached_property
    def cost_unit(self) -> tuple[str, float]:
        """The unit in which all words and tables tell the section's costs, and how many of ``unit`` it has."""
        shown, size = units.of_tables(self.unit)
        more, factor = units.suited(shown, float(self.finalists[self.cost_column()].median()) / size)
        return more, size * factor

    @cached_property
    def time_unit(self) -> tuple[str, float]:
        """The unit in which they tell device times, and how many hours it has."""
        longest = float(self.finalists["total_device_seconds"].max()) / 3600
        return next((found for found in TIME_UNITS if longest >= found[1]), TIME_UNITS[-1])

    @property
    def apart(self) -> str:
        """What the cost model tells, but counts in no total, in words."""
        return " and ".join({"memory": "memory traffic"}.get(part, part) for part in self.runs[0].record.parts[1])

    @cached_property
    def arithmetics(self) -> tuple[str, ...]:
        """Those that finalists were tested in or have a cost in; the suite's own first."""
        return in_order(name for run in self.runs for name in run.record.arithmetics)

    def cost_column(self, arithmetic: str = "approximate") -> str:
        """The column of ``finalists`` that holds the cost of one inference."""
        return cost_column(self.cost, arithmetic, self.unit)

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
    searches: tuple[Searched, ...] = ()  # comparisons on a table of trained networks

    @property
    def runs(self) -> list[Run]:
        return [run for section in self.sections for run in section.runs]

    @cached_property
    def finalists(self) -> pd.DataFrame:
        """A row per finalist; an empty cell is a number that was not measured. Costs are per inference."""
        frames = [section.finalists for section in self.sections]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def load(paths: Iterable[Path]) -> Loaded:
    """All finished runs and comparisons on a table at ``paths``: run folders, folders of them, or files.

    Raises InputError for a path that does not exist and where there is nothing finished at all.
    """
    paths = list(paths)
    places, left_out = find_runs(paths)
    records: dict[str, tuple[Path, Record, list[dict]]] = {}  # content → where it was found, and what it says
    for place in places:
        try:
            file, record, rows = _read(place)
            content = hashlib.sha256(json.dumps(record.to_json(), sort_keys=True).encode()).hexdigest()
            if content in records:  # counting it again would make the deviation too small
                raise InputError(f"a copy of {records[content][0].parent}; counted once")
            records[content] = file, record, rows
        except (OSError, ValueError, RecursionError) as error:  # all that JSON from elsewhere can cause
            reason = str(error) if isinstance(error, InputError) else f"it cannot be read: {error}"
            left_out.append(LeftOut(str(place), reason))
    searches = read_comparisons(paths, left_out)
    if not records and not searches:
        first = f"{left_out[0].place}: {left_out[0].reason}" if left_out else "no paths were given"
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise InputError(f"no finished run to report: {first}{more}")
    return Loaded(_sections(list(records.values()), left_out), tuple(left_out), searches)


# -- one record --------------------------------------------------------------------------------------------------------


def _read(place: Path) -> tuple[Path, Record, list[dict]]:
    """The file, its record and its rows. Raises InputError that names the file and the reason."""
    file = place / RECORD if place.is_dir() else place
    if not file.exists():
        raise InputError(_how_far(place))
    record = read_record(file)
    return file, record, rows_of(record)


def _how_far(place: Path) -> str:
    """Why there is no record, and how far the run has come."""
    RunFolder(place).config()  # has its own reason where the settings are damaged or newer
    history = read_history(place / HISTORY)
    last = history[-1] if history else {}
    done = f"{len(history)} steps, now in {last.get('stage')}" if last else "no step is done"
    return f"unfinished (still running or stopped): {done}; go on with {program('run')} --resume {place}"


# -- sections ---------------------------------------------------------------------------------------------

_Found = tuple[Path, Record, list[dict]]


def _sections(found: list[_Found], left_out: list[LeftOut]) -> tuple[Section, ...]:
    """Only runs of one section are compared; that of most runs comes first, for it says most.

    Two image folders may share a name, but not a fingerprint.
    """
    names = _names([file for file, _, _ in found])
    groups: dict[tuple, list[tuple[str, _Found]]] = {}
    for name, (file, record, rows) in zip(names, found):
        settings = (record.protocol.name, record.protocol.hash, record.scope, record.cost)
        images = (record.dataset_fingerprint, record.train_limit, record.task, record.evaluator)
        space = json.dumps(record.space_config, sort_keys=True)
        group = (record.dataset, record.space, *settings, *images, space, record.unit)
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
        own = [record.test_fingerprint for _, (_, record, _) in members]
        known = set(own) - {""}
        for member, fingerprint in zip(members, own):
            images = fingerprint or (min(known) if len(known) == 1 else "")
            apart.setdefault((*group, images), []).append(member)
    return apart


def _run(
    name: str, variant: str, section: str, file: Path, record: Record, rows: list[dict], left_out: list[LeftOut]
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
