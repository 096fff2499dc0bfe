"""Small results that are worth keeping between processes, in the user's cache folder. Losing them costs time alone."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import platformdirs

from spaces.errors import InputError
from spaces.files.arrays import read_arrays
from spaces.files.json_files import read_json
from spaces.files.saving import save_bytes


def folder() -> Path:
    """Where results are kept: ``$APPROXNAS_CACHE``, else the platform's cache folder."""
    return Path(os.environ.get("APPROXNAS_CACHE") or platformdirs.user_cache_dir("approxnas-bench"))


def load_arrays(name: str) -> dict[str, np.ndarray] | None:
    """The arrays kept under ``name``; None where there are none or the file cannot be read. Callers check the content."""
    try:
        return read_arrays(folder() / f"{name}.npz")
    except InputError:  # a torn or foreign file means: compute it again
        return None


def save_arrays(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays under ``name``, if the folder can be written."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # numpy's own flag could be a name, too
    _save(f"{name}.npz", packed.getvalue())


def load_array(name: str) -> np.ndarray | None:
    """The array kept under ``name``, memory-mapped copy on write; None as for ``load_arrays``."""
    try:
        return np.load(folder() / f"{name}.npy", mmap_mode="c", allow_pickle=False)
    except Exception:
        return None


def save_array(name: str, array: np.ndarray) -> None:
    """Keep a large array under ``name``, if the folder can be written."""
    header = io.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    _save(f"{name}.npy", header.getvalue(), array.data.cast("B"))


def load_json(name: str) -> object:
    """The value kept under ``name``, or None."""
    try:
        return read_json(folder() / f"{name}.json")
    except InputError:
        return None


def save_json(name: str, value: object) -> None:
    """Keep a value under ``name``, if the folder can be written."""
    _save(f"{name}.json", json.dumps(value, indent=1).encode())


def _save(name: str, *parts: bytes | memoryview) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to stop
        path = folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_bytes(path, *parts, shared=True)
