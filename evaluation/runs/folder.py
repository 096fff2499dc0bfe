"""Run folders and their files. What is read is checked."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from evaluation.datasets.containers import plain_name
from evaluation.runs.older_records import OLDER, upgraded, upgraded_line
from evaluation.runs.record import COMPLETE, Record
from evaluation.settings.config import RunConfig, require_schema
from spaces.errors import InputError
from spaces.files.json_files import is_json_object, parse_json, read_json
from spaces.files.reading import read_bytes
from spaces.files.saving import append_line, save_bytes, save_json
from spaces.multipliers import catalogue
from spaces.multipliers.files.importing import keep_tables
from spaces.multipliers.files.tables import read_multipliers
from spaces.multipliers.multiplier import Multiplier

CONFIG, HISTORY, PROPOSALS, RECORD = "config.json", "history.jsonl", "proposals.json", "record.json"
STATE = Path("checkpoint") / "state.pt"
LARGEST_HISTORY = 256 << 20  # bytes: a million steps
TABLES = "multipliers"  # the folder of truth tables that are not built in


def read_record(path: Path) -> Record:
    """A finished run's record. Raises InputError for an unknown schema and for anything that is not a whole record."""
    data = read_json(path)
    if not isinstance(data, dict) or type(data.get("schema")) is not int:
        raise InputError(f"{path} is not the record of a run")
    if data["schema"] != OLDER:
        require_schema(data["schema"], path)
    if data.get("status") != COMPLETE:
        raise InputError(f"{path}: the run's status is {data.get('status')!r:.60}, not '{COMPLETE}'")
    try:
        return Record.from_json(upgraded(data) if data["schema"] == OLDER else data)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}; restore it or start a new run") from None


class RunFolder:
    """``runs/<method>-<dataset>-<protocol>-s<seed>-<id>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, config: RunConfig, library: Sequence[Multiplier]) -> "RunFolder":
        """A new folder with its ``config.json`` and a copy of what ``library`` has that is not built in.

        Raises InputError where it cannot be written.
        """
        dataset = plain_name(Path(config.dataset))
        stem = f"{config.method}-{dataset}-{config.protocol.name}-s{config.seed}"
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            number = 1
            while True:
                path = parent / f"{stem}-{number}"
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    number += 1
            folder = cls(path)
            folder.fill(config, library)
        except OSError as error:
            raise InputError(
                f"cannot write to '{parent}': {error.strerror}; choose another folder with --out"
            ) from None
        return folder

    def fill(self, config: RunConfig, library: Sequence[Multiplier]) -> None:
        """Write the settings, and a copy of what ``library`` has that is not built in. Raises OSError."""
        if foreign := [multiplier for multiplier in library if catalogue.find(multiplier.name) != multiplier]:
            keep_tables(foreign, self.path / TABLES)
        save_json(self.path / CONFIG, config.to_json())

    def config(self) -> RunConfig:
        return RunConfig.from_json(read_json(self.path / CONFIG), self.path / CONFIG)

    def library(self, config: RunConfig) -> tuple[Multiplier, ...]:
        """The circuits that the run began with. Raises InputError where a truth table is no longer the same."""
        kept = self.path / TABLES
        foreign = {multiplier.name: multiplier for multiplier in read_multipliers(kept)} if kept.is_dir() else {}
        multipliers = [foreign[name] if name in foreign else catalogue.get(name) for name in config.multipliers]
        for multiplier in multipliers:
            if config.tables.get(multiplier.name, multiplier.key) != multiplier.key:
                raise InputError(f"{self.path}: {multiplier.name} has another truth table than when this run began")
        return catalogue.check_library(multipliers)

    def weights(self, number: int, arithmetic: str) -> Path:
        """Where the trained network of finalist ``number``, from 1, is kept."""
        return self.path / "checkpoint" / f"finalist{number}-{arithmetic}.pt"

    def append_history(self, line: dict) -> None:
        append_line(self.path / HISTORY, json.dumps(line, allow_nan=False))

    def truncate_history(self, lines: int) -> None:
        """Keep the first ``lines`` lines: what came after the last checkpoint is done again.

        Raises InputError when fewer whole lines are there than the checkpoint knows of.
        """
        path = self.path / HISTORY
        whole = _lines(path) if path.exists() else []
        kept = whole[:lines]
        damaged = next(
            (at for at, line in enumerate(kept, 1) if not (line.endswith(b"\n") and is_json_object(line))), None
        )
        if damaged or len(kept) < lines:
            what = f"line {damaged} is torn" if damaged else f"it has {len(kept)} of the {lines} lines recorded"
            raise InputError(f"{path} is damaged ({what}); restore it or start a new run")
        if len(whole) > lines:
            save_bytes(path, *kept)


def read_history(path: Path) -> list[dict]:
    """The steps of a run, which may still be writing: a last line without its end is left out."""
    if not path.exists():
        return []
    lines = _lines(path)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    history = []
    for number, line in enumerate(lines, 1):
        if not is_json_object(line):
            raise InputError(f"{path} is damaged (line {number} is torn)")
        history.append(upgraded_line(parse_json(line, path)))
    return history


def _lines(path: Path) -> list[bytes]:
    return read_bytes(path, LARGEST_HISTORY).splitlines(keepends=True)
