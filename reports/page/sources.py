"""Where numbers come from: an anchor for every run, and one for every set of runs that a number was made from."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from evaluation.runs.record import LedgerRow
from reports.load import Loaded, Run
from reports.page.networks import Network
from spaces.arithmetic.arithmetics import ARITHMETICS

LONGEST = 4_000  # characters of one text from a record
MOST = 20  # notes, failures and the like that are listed of one run


class Sources:
    """Anchors of runs, ``run-3``, and of sets of runs, ``made-from-2``."""

    def __init__(self, loaded: Loaded) -> None:
        self.runs = {run.name: run for run in loaded.runs}
        self.numbers = {name: number for number, name in enumerate(self.runs, 1)}
        self.sets: dict[tuple[str, ...], str] = {}

    def anchor(self, runs: Iterable[str]) -> str:
        """The anchor of what these runs, by name, tell about themselves; "" where none is known."""
        names = tuple(sorted({name for name in runs if name in self.numbers}, key=self.numbers.__getitem__))
        if len(names) < 2:
            return f"run-{self.numbers[names[0]]}" if names else ""
        return self.sets.setdefault(names, f"made-from-{len(self.sets) + 1}")

    def title(self, names: Sequence[str]) -> str:
        """Which runs these are: their variants, and the seeds of each."""
        seeds: dict[str, list[int]] = {}
        for name in names:
            seeds.setdefault(self.runs[name].variant, []).append(self.runs[name].seed)
        text = "; ".join(f"{variant}, seed {_listed(found)}" for variant, found in list(seeds.items())[:MOST])
        return f"{len(names)} runs: {text}"


def relative_link(file: Path, folder: Path) -> str:
    """The address of a file as seen from a page in ``folder``, whatever its name holds."""
    try:
        path = os.path.relpath(file.resolve(), folder.resolve())
    except ValueError:  # another drive
        return file.resolve().as_uri()
    # "./" because a first part with a colon would read as a scheme.
    return "./" + quote_from_bytes(os.fsencode(path.replace(os.sep, "/")), safe="/")


def run_block(run: Run, anchor: str, out: Path, networks: dict[tuple[str, int], Network]) -> dict[str, Any]:
    """What the template shows of one run."""
    record = run.record
    return {
        "anchor": anchor,
        "name": run.name,
        "variant": run.variant,
        "seed": run.seed,
        "record": relative_link(run.record_file, out),
        "record_name": str(run.record_file),
        "command": _short(record.command),
        "facts": [(name, text) for name, text in _facts(run) if text],
        "ledger": _ledger(record.ledger),
        "arithmetics": main_first(record.arithmetics),
        "unit": record.unit,
        "finalists": [_finalist(run, int(number), networks) for number in run.finalists["finalist"]],
        "notes": _first([_short(note) for note in run.notes]),
        "failures": _first([_short(failure) for failure in run.failures]),
    }


def run_line(run: Run, anchor: str, out: Path) -> dict[str, Any]:
    """What the template shows of a run that is not shown in full."""
    return {"anchor": anchor, "name": _short(run.name), "record": relative_link(run.record_file, out)}


def _facts(run: Run) -> list[tuple[str, str]]:
    record, protocol = run.record, run.record.protocol
    device = {name: fact for name, fact in asdict(record.device).items() if fact is not None}
    return [
        ("device", _told(device)),
        ("versions", _told(record.versions)),
        ("space", f"{record.space} {_bracketed(record.space_config)}".strip()),
        ("budget of the search", _told(record.budget) or "none"),
        ("settings of the method", _told(record.method_config)),
        ("circuits", _told(record.multipliers)),
        ("protocol", f"{protocol.name}, hash {protocol.hash} {_bracketed(protocol.settings)}"),
        ("data", f"{record.dataset}: {_told(record.dataset_origin) or 'origin not recorded'}"),
        ("fingerprint of the data", _told(record.dataset_fingerprint)),
        ("hypervolume in the record", "" if record.hypervolume is None else f"{record.hypervolume:.4f}"),
    ]


def _ledger(ledger: Mapping[str, LedgerRow]) -> list[tuple[str, list[str]]]:
    """Stage → device-seconds, wall-seconds, warm-up, joules and peak memory as text; empty where not recorded."""
    names = ("device_seconds", "wall_seconds", "warm_up_seconds", "joules", "peak_memory_bytes")
    return [
        (stage, [_number(getattr(row, name), 1e6 if name.endswith("bytes") else 1.0) for name in names])
        for stage, row in list(ledger.items())[:MOST]
    ]


def _finalist(run: Run, number: int, networks: dict[tuple[str, int], Network]) -> dict[str, Any]:
    row = run.finalists.loc[run.finalists["finalist"] == number].iloc[0]
    finalist, record = run.record.finalists[number - 1], run.record
    tested = (finalist.accuracy.test.get(name) for name in main_first(record.arithmetics))
    return {
        "number": number,
        "network": networks[run.name, number].number,
        "best": bool(row["best"]),
        "summary": _short(finalist.summary or finalist.key[:8]),
        "validation": _number(finalist.accuracy.validation, 0.01),
        "tested": [_number(share, 0.01) for share in tested],
        "cost": _number(finalist.costs[record.cost].values["approximate"], 1.0),
    }


def main_first(arithmetics: Sequence[str]) -> list[str]:
    """The suite's own from the one that searches are about to the plainest, then the others."""
    own = [name for name in arithmetics if name in ARITHMETICS.built_in]
    return [*reversed(own), *(name for name in arithmetics if name not in own)]


def _listed(numbers: Sequence[int]) -> str:
    """``0 1 2``, at most ``MOST`` of them."""
    numbers = sorted(set(numbers))
    return " ".join(map(str, numbers[:MOST])) + (" …" if len(numbers) > MOST else "")


def _number(value: float | None, size: float) -> str:
    """A number in units of ``size``; "" where it was not measured."""
    return "" if value is None else f"{value / size:,.2f}"


def _told(value: Any) -> str:
    """A value of a record in words; "" where there is none."""
    if isinstance(value, dict):
        return _short(", ".join(f"{name} {_told(part) or 'none'}" for name, part in value.items()))
    if isinstance(value, list | tuple):
        return _short(", ".join(_told(part) or "none" for part in value))
    return "" if value in (None, "") else _short(value if isinstance(value, str) else json.dumps(value))


def _bracketed(value: Any) -> str:
    text = _told(value)
    return f"({text})" if text else ""


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … (cut here; the record has all of it)"


def _first(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - MOST} more, in the record"] if len(texts) > MOST else []
    return [*texts[:MOST], *more]
