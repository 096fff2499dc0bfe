"""Where the run folders and record files are among the paths that a report is asked for."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evaluation.runs.folder import CONFIG, HISTORY, RECORD
from spaces.errors import InputError

LEVELS = 2  # how deep below a given folder runs are looked for


@dataclass(frozen=True)
class LeftOut:
    """A place that gave no run, and why."""

    place: str
    reason: str


def find_comparisons(paths: Iterable[Path]) -> list[Path]:
    """The files of ``approxnas table compare`` at or below these paths, each once; a run's history is none."""
    found: dict[str, Path] = {}
    for path in paths:
        for file in _jsonl_files(path, LEVELS):
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _jsonl_files(path: Path, levels: int) -> list[Path]:
    """Nothing where a place cannot be read: whoever looks for runs says so."""
    try:
        if not path.is_dir():
            return [path] if is_comparison(path) and path.exists() else []
        if any((path / name).exists() for name in (CONFIG, HISTORY, RECORD)):
            return []
        children = sorted(path.iterdir())
    except OSError:
        return []
    files = [child for child in children if is_comparison(child) and child.is_file()]
    folders = [child for child in children if child.is_dir()] if levels else []
    return files + [file for folder in folders for file in _jsonl_files(folder, levels - 1)]


def is_comparison(path: Path) -> bool:
    """Whether a file is called as those of table compare are."""
    return path.suffix == ".jsonl" and path.name != HISTORY


def find_runs(paths: Iterable[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Run folders and record files, each once, and what holds none. Raises InputError for a missing path."""
    found: dict[str, Path] = {}  # real record file → the place as the user named it
    left_out: list[LeftOut] = []
    for path in paths:
        known = len(left_out)
        places = _places(path, left_out)
        if not places and len(left_out) == known and not find_comparisons([path]):
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
    if path.is_dir():
        return _run_folders(path, LEVELS, left_out)
    return [] if is_comparison(path) else [path]


def _run_folders(folder: Path, levels: int, left_out: list[LeftOut]) -> list[Path]:
    try:
        if any((folder / name).exists() for name in (CONFIG, HISTORY, RECORD)):
            return [folder]
        children = sorted(child for child in folder.iterdir() if child.is_dir()) if levels else []
    except OSError as error:
        left_out.append(LeftOut(str(folder), f"it cannot be read: {error.strerror}"))
        return []
    return [run for child in children for run in _run_folders(child, levels - 1, left_out)]
