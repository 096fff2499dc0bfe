"""An architecture that somebody hands in: a published one by name, a finalist of a record, a file, or text as papers print it.

Files hold an architecture as records spell it, a genotype of DARTS as JSON or as its code prints it, or a cell of
NAS-Bench-201; the last two may be given as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.runs.folder import RECORD, TABLES, read_record
from spaces.errors import InputError
from spaces.files.json_files import read_json
from spaces.files.reading import read_text
from spaces.multipliers import catalogue
from spaces.multipliers.files.tables import read_multipliers
from spaces.multipliers.multiplier import Multiplier
from spaces.registry import SPACES, architecture_from_json, find_published, from_literature
from spaces.space import Architecture

LARGEST_TEXT = 1 << 18  # bytes of a file that is no JSON


@dataclass(frozen=True)
class Given:
    """What to train: the architecture, what to call it, and its circuits."""

    name: str
    architecture: Architecture
    library: tuple[Multiplier, ...]

    @property
    def space_settings(self) -> dict:
        """The settings of a run that describe the architecture's space."""
        name = self.architecture.space
        config = asdict(SPACES[name].config_of(self.architecture))
        return {"space": name, "space_config": config, "scope": self.architecture.scope}


def resolve(text: str, finalist: int = 0, multiplier: str = "", scope: str = "own") -> Given:
    """The architecture that ``text`` names.

    ``text`` is a published name, a genotype as it is printed, a record, a run folder or another file. ``finalist`` counts
    from 1 and is for records, of which 0 takes the first. ``multiplier`` (a name or a table file) replaces every circuit,
    and ``scope`` what they govern ("own": as the architecture says). Raises InputError for what cannot be found, read or
    combined.
    """
    if (printed := from_literature(text)) is not None:
        _refuse_finalist(finalist, f"{text[:40]}…")
        return _on_exact(f"printed-{printed.key[:8]}", printed, multiplier, scope)
    path = Path(text)
    try:
        name, architecture = find_published(text)
    except InputError as error:
        if path.exists() or path.suffix in (".json", ".txt", ".py") or len(path.parts) > 1:
            return _from_path(path, finalist, multiplier, scope)
        raise InputError(f"{error}; or give a record.json or a genotype.json") from None
    _refuse_finalist(finalist, text)
    return _on_exact(name, architecture, multiplier, scope)


def _from_path(path: Path, finalist: int, multiplier: str, scope: str) -> Given:
    if path.is_dir():
        if not (path / RECORD).exists():
            raise InputError(f"'{path}' is not the folder of a finished run: it has no {RECORD}")
        path = path / RECORD
    data: Any = read_text(path, LARGEST_TEXT).strip() if path.suffix in (".txt", ".py") else read_json(path)
    if isinstance(data, dict) and "finalists" in data:
        return _from_record(path, finalist, multiplier, scope)
    _refuse_finalist(finalist, str(path))
    try:
        if (genotype := from_literature(data)) is not None:
            return _on_exact(_as_name(path.stem), genotype, multiplier, scope)
        architecture = _from_json(data)
        library = _library(architecture.multipliers, {}, {}) if not multiplier else _one(multiplier)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Given(_as_name(path.stem), _changed(architecture, library, multiplier, scope), library)


def _on_exact(name: str, architecture: Architecture, multiplier: str, scope: str) -> Given:
    """An architecture that came without multipliers of its own."""
    library = _one(multiplier or catalogue.EXACT_SIGNED)
    scope = architecture.scope if scope == "own" else scope
    return Given(name, architecture.with_multiplier(library[0].name, scope), library)


def _from_record(path: Path, finalist: int, multiplier: str, scope: str) -> Given:
    record = read_record(path)
    number = finalist or 1
    if not 1 <= number <= len(record.finalists):
        raise InputError(f"{path} has no finalist {number}; it has {len(record.finalists)}")
    try:
        architecture = _from_json(record.finalists[number - 1].architecture)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    name = _as_name(f"{record.method.removeprefix('given-')}-{architecture.key[:8]}")
    if multiplier:
        library = _one(multiplier)
    else:
        kept = path.parent / TABLES
        foreign = {each.name: each for each in read_multipliers(kept)} if kept.is_dir() else {}
        library = _library(architecture.multipliers, foreign, record.tables or {})
    return Given(name, _changed(architecture, library, multiplier, scope), library)


def _from_json(data: object) -> Architecture:
    if not (isinstance(data, dict) and isinstance(data.get("space"), str) and data["space"] in SPACES):
        raise InputError(
            f"neither a record nor an architecture (with 'space': {' or '.join(SPACES)}) nor a genotype (with 'normal' and "
            "'reduce', or Genotype(…)) nor a cell of NAS-Bench-201 (|nor_conv_3x3~0|+…)"
        )
    return architecture_from_json(data)


def _one(multiplier: str) -> tuple[Multiplier, ...]:
    library = catalogue.library([multiplier])
    if len(library) > 1:
        raise InputError(f"--multiplier takes one circuit, but '{multiplier}' holds {len(library)}; name a table file")
    return library


def _library(names: Sequence[str], foreign: dict[str, Multiplier], keys: dict[str, str]) -> tuple[Multiplier, ...]:
    """The circuits of an architecture; ``keys`` say which truth tables are meant where names alone would not."""
    multipliers = []
    for name in names:
        try:
            multiplier = foreign[name] if name in foreign else catalogue.get(name)
        except InputError as error:
            raise InputError(f"{error}; give a circuit with --multiplier") from None
        if keys.get(name, multiplier.key) != multiplier.key:
            raise InputError(
                f"{name} is another circuit here than in the record; keep the record in its run folder, or give --multiplier"
            )
        multipliers.append(multiplier)
    return catalogue.check_library(multipliers)


def _changed(architecture: Architecture, library: tuple[Multiplier, ...], multiplier: str, scope: str) -> Architecture:
    """The architecture with its circuits and its scope replaced, where that is asked for."""
    scope = architecture.scope if scope == "own" else scope
    return architecture.with_multiplier(library[0].name, scope) if multiplier else architecture.with_scope(scope)


def _refuse_finalist(finalist: int, text: str) -> None:
    if finalist:
        raise InputError(f"--finalist is for records; '{text}' is a single architecture")


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)
