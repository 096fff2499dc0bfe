"""Run folders and their files. What is read is checked."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.config import RunConfig, require_schema
from evaluation.datasets.containers import plain_name
from spaces.errors import InputError
from spaces.files.saving import append_line, save_bytes, save_json
from spaces.multipliers import catalogue
from spaces.multipliers.files import read_multipliers
from spaces.multipliers.importing import keep_tables
from spaces.multipliers.multiplier import Multiplier

CONFIG, HISTORY, PROPOSALS, RECORD = "config.json", "history.jsonl", "proposals.json", "record.json"
TABLES = "multipliers"  # the folder of truth tables that are not built in


def read_json(path: Path) -> Any:
    """Raises InputError that names the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it or start a new run") from None


def read_record(path: Path) -> dict:
    """A finished run's record. Raises InputError for another schema and for anything that is not a record."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise InputError(f"{path} is not the record of a run")
    require_schema(record["schema"], path)
    missing = {"method", "protocol", "dataset", "seed", "ledger", "finalists", "device"} - record.keys()
    if missing:
        raise InputError(f"{path} is not the record of a run: it lacks {', '.join(sorted(missing))}")
    return record


def limit_note(record: dict) -> str:
    """What goes behind the data set's name where training images were left out."""
    limit = record.get("train_limit", 0)  # older records have none
    return f" ({limit:,} training images)" if limit else ""


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
            if foreign := [circuit for circuit in library if catalogue.find(circuit.name) != circuit]:
                keep_tables(foreign, folder.path / TABLES)
            save_json(folder.path / CONFIG, config.to_json())
        except OSError as error:
            raise InputError(
                f"cannot write to '{parent}': {error.strerror}; choose another folder with --out"
            ) from None
        return folder

    def config(self) -> RunConfig:
        return RunConfig.from_json(read_json(self.path / CONFIG), self.path / CONFIG)

    def library(self, config: RunConfig) -> tuple[Multiplier, ...]:
        """The circuits that the run began with. Raises InputError where a truth table is no longer the same."""
        kept = self.path / TABLES
        foreign = {circuit.name: circuit for circuit in read_multipliers(kept)} if kept.is_dir() else {}
        circuits = [foreign[name] if name in foreign else catalogue.get(name) for name in config.multipliers]
        for circuit in circuits:
            if config.tables.get(circuit.name, circuit.key) != circuit.key:
                raise InputError(f"{self.path}: {circuit.name} has another truth table than when this run began")
        return catalogue.check_library(circuits)

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
        whole = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = whole[:lines]
        damaged = next((at for at, line in enumerate(kept, 1) if not _is_json_line(line)), None)
        if damaged or len(kept) < lines:
            what = f"line {damaged} is torn" if damaged else f"it has {len(kept)} of the {lines} lines recorded"
            raise InputError(f"{path} is damaged ({what}); restore it or start a new run")
        if len(whole) > lines:
            save_bytes(path, *kept)


def read_history(path: Path) -> list[dict]:
    """The steps of a run, which may still be writing: a last line without its end is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not _is_json_line(line):
            raise InputError(f"{path} is damaged (line {number} is torn)")
    return [json.loads(line) for line in lines]


def _is_json_line(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
