"""Which records measure a published row: those that its command makes, seed and device aside, and no others.

Criteria and commands are one: what a record must say is read from the parsed command. That imports torch, but only where
a record is on the official CIFAR-10 under the protocol ``darts``; most are not.
"""

import functools
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.runs.record import Record
from evaluation.settings.protocols import named_protocol
from reports.load import Run
from reports.paper.published import published
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.registry import architecture_from_json, find_published

PROTOCOL = "darts"
OFFICIAL = "CIFAR-10 from its official binary files"  # how the origin of those images begins
MOST_LISTED = 3  # differences that a reason lists


@dataclass(frozen=True)
class Counted:
    """The runs that measure something, by the name of the command that makes them; and the others, each with a reason."""

    by_rerun: Mapping[str, tuple[Run, ...]]
    others: tuple[tuple[Run, str], ...]

    def timed(self, rerun: str) -> tuple[Run, ...]:
        """The runs whose time counts as that of a GPU."""
        return tuple(run for run in self.by_rerun.get(rerun, ()) if not untimed(run))


@dataclass(frozen=True)
class Expected:
    """What a record says that a command made: settings by their names in the record; the cells, if they were given."""

    rerun: str
    settings: Mapping[str, Any]
    genotype: str = ""


def sort_out(runs: Iterable[Run]) -> Counted:
    """Every run to the rows that it measures, or to a reason why it measures none."""
    by_rerun: dict[str, list[Run]] = {}
    others: list[tuple[Run, str]] = []
    for run in runs:
        reasons = _other_setting(run.record)
        found = [] if reasons else [row.rerun for row in expected() if not _differences(run.record, row)]
        for name in found:
            by_rerun.setdefault(name, []).append(run)
        if not found:
            others.append((run, "; ".join(reasons) or _nearest(run.record)))
    return Counted({name: tuple(found) for name, found in by_rerun.items()}, tuple(others))


def untimed(run: Run) -> str:
    """Why the run's device-seconds are not those of a GPU search; empty where they are."""
    device = run.record.device.type
    if device != "cuda":
        return f"ran on device type {device}, not cuda"
    if any(note.startswith("resumed on ") for note in run.notes):
        return "went on on another device"
    if (run.record.engine or "auto") != "auto" or run.record.deterministic:
        return "ran with a forced engine or bit for bit"
    return ""


def _other_setting(record: Record) -> list[str]:
    """What alone keeps a record out of every table: other data, fewer images, another protocol."""
    reasons = []
    origin = record.dataset_origin or "origin not recorded"
    if record.dataset != "cifar10" or not origin.startswith(OFFICIAL):
        reasons.append(f"its data are not the official CIFAR-10 but '{record.dataset}': {origin.partition(';')[0]}")
    if record.train_limit:
        reasons.append(f"only {record.train_limit:,} training images")
    protocol, due = record.protocol, named_protocol(PROTOCOL)
    if protocol.hash != due.hash:
        reasons.append(f"protocol {protocol.name} ({protocol.hash[:8]}), not {PROTOCOL} ({due.hash[:8]})")
    return reasons


def _nearest(record: Record) -> str:
    """Why a record on the right data under the right protocol is none of those looked for: what it is nearest to."""
    known = [row for row in expected() if row.settings["method"] == record.method]
    if not known:
        return f"no row is measured by the method {record.method}"
    row, differences = min(((row, _differences(record, row)) for row in known), key=lambda pair: len(pair[1]))
    more = f" (and {len(differences) - MOST_LISTED} more)" if len(differences) > MOST_LISTED else ""
    return f"not what {row.rerun} asks for: {'; '.join(differences[:MOST_LISTED])}{more}"


# -- what a command makes ----------------------------------------------------------------------------------------------


@functools.cache
def expected() -> tuple[Expected, ...]:
    """What the records of all commands say: one entry per command and method."""
    return tuple(row for name, rerun in published().reruns.items() for row in _expected(name, rerun.command))


def _expected(name: str, command: str) -> list[Expected]:
    _, _, module, *arguments = shlex.split(command)
    if module == "evaluation.train":
        from evaluation.train import parse as parse_train

        training, protocol = parse_train(arguments)
        _require_setting(name, training, protocol)
        genotype, architecture = find_published(training.architecture)
        return [Expected(name, {"method": f"given-{genotype}", "space": architecture.space}, genotype)]
    from evaluation.run import parse as parse_run

    asked = parse_run(arguments)
    options = asked.options
    _require_setting(name, options, asked.protocol)
    library = catalogue.library(options.multipliers or catalogue.names())
    shared = {
        **{key: getattr(options, key) for key in ("scope", "multiplier_choice", "cost", "budget")},
        "space": asked.space,
        "space_config": asdict(asked.space_config),
        "multipliers": tuple(multiplier.name for multiplier in library),
        "tables": {multiplier.name: multiplier.key for multiplier in library},
        **({"snapshots": options.snapshots} if options.snapshots >= 0 else {}),
    }
    rows = []
    for method, config in asked.methods.items():
        own = {f"{method}.{key}": value for key, value in json.loads(json.dumps(asdict(config))).items()}
        rows.append(Expected(name, {"method": method} | shared | own))
    return rows


def _require_setting(name: str, options: Any, protocol: Any) -> None:
    """Raises InputError for a command in ``published.toml`` that is not about the published setting."""
    if (options.dataset, options.train_limit, protocol) != ("cifar10", 0, named_protocol(PROTOCOL)):
        raise InputError(f"the command {name} is not about CIFAR-10 under the protocol {PROTOCOL}")


def _differences(record: Record, row: Expected) -> list[str]:
    """Where a record departs from what the command makes, a text each."""
    said = {f"{record.method}.{key}": value for key, value in (record.method_config or {}).items()}
    said |= {name: value for name in row.settings if (value := getattr(record, name, None)) is not None}
    differing = []
    for name, due in row.settings.items():
        if name not in said:
            differing.append(f"{name} is not recorded")
        elif said[name] != due:
            differing.append(f"{name} is {_short(said[name])}, not {_short(due)}")
    if row.genotype and not _has_cells(record, row.genotype):
        differing.append(f"its cells are not those of {row.genotype}")
    return differing


def _short(value: object) -> str:
    return json.dumps(value)[:40] if value != "" else "none"


def _has_cells(record: Record, genotype: str) -> bool:
    """Whether the one finalist has the cells of a published genotype, whatever its circuits."""
    try:
        (finalist,) = record.finalists
        found = architecture_from_json(finalist.architecture)
    except ValueError:  # InputError, too
        return False
    _, published = find_published(genotype)
    return (
        found.space == published.space and found.with_multiplier(catalogue.EXACT_SIGNED, published.scope) == published
    )
