"""Puts a report's files in place: all of them once all are written, and none that a former report left behind."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from evaluation.runs.folder import CONFIG, RECORD
from spaces import stopping
from spaces.errors import InputError
from spaces.files.json_files import read_json
from spaces.files.saving import save_json, save_text

MANIFEST = ".report.json"  # what the last report wrote: only these files may be removed by the next
DRAFT, LOCK = ".report-draft", ".report.lock"


def write_text(path: Path, text: str) -> None:
    """UTF-8 with the line ends of ``text``, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_text(path, text)


@contextmanager
def publishing(out: Path, program: str) -> Iterator[Path]:
    """An empty folder to write to, whose files take their places in ``out`` when the block ends without an error.

    Until then the files of the last report by ``program`` stay; then those of them that have no successor are removed.
    Other files in ``out`` are left alone. Raises InputError where ``out`` cannot be written, and for a run folder.
    """
    if any((out / name).exists() for name in (CONFIG, RECORD)):
        raise InputError(f"'{out}' is the folder of a run; choose another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(out / LOCK, blocking=False):
            draft = out / DRAFT
            shutil.rmtree(draft, ignore_errors=True)  # of a report that was killed
            draft.mkdir()
            try:
                yield draft
                with stopping.postponed():
                    _publish(draft, out, program)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except filelock.Timeout:
        raise InputError(f"another report is being written to '{out}'; wait, or choose another folder") from None
    except OSError as error:
        raise InputError(f"cannot write to '{out}': {error.strerror}; choose another folder with --out") from None


def _publish(draft: Path, out: Path, program: str) -> None:
    written = sorted(path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file())
    manifests = _manifests(out)
    for name in sorted(written, key=lambda name: name == "index.html"):  # last, as it links to the others
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(out / name)
    kept = {name for other, names in manifests.items() if other != program for name in names} | set(written)
    for name in set(manifests.get(program, ())) - kept:
        _remove(out, name)
    save_json(out / MANIFEST, manifests | {program: written})


def _manifests(out: Path) -> dict[str, list[str]]:
    """Program → the files that it wrote; nothing where the manifest cannot be read."""
    try:
        found = read_json(out / MANIFEST)
    except InputError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        program: [name for name in names if isinstance(name, str)]
        for program, names in found.items()
        if isinstance(names, list)
    }


def _remove(out: Path, name: str) -> None:
    """A file of the last report, and its folder if that is empty now. Never one outside of ``out``."""
    path = out / name
    with suppress(OSError, ValueError):  # a name that can be none is nobody's file
        if path.resolve().is_relative_to(out.resolve()):
            path.unlink()
            if path.parent != out:
                path.parent.rmdir()
