"""One file holds everything that a run needs to go on; it is replaced whole, so that it is always consistent."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from spaces import stopping
from spaces.errors import InputError
from spaces.files import saving
from spaces.files.reading import open_file, parsing


def save(path: Path, state: dict[str, Any]) -> None:
    """Atomically replace the checkpoint at ``path``.

    Raises OSError where it cannot be written and InputError for anything else: nothing that a training which fails
    would raise, too, so that neither is taken for the other.
    """
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()  # torch's writer takes any exception from a file, a stop's too, for a failure of its own
    with stopping.postponed():
        try:
            torch.save(state, content)
        except (RuntimeError, MemoryError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"{path} cannot be made ({reason}); go on with --resume") from error
        saving.save_bytes(path, content.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """The checkpoint at ``path``, tensors and plain values only. Raises InputError when it cannot be read."""
    with open_file(path) as file, parsing(path, "is damaged or no checkpoint", "; start a new run"):
        _require_plain(file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's advice on files that it did not write
                state = torch.load(file, map_location=device, weights_only=True)
        except pickle.UnpicklingError:  # whose text says how to load it all the same
            raise ValueError("it holds more than tensors and plain values, and is not loaded") from None
        if not isinstance(state, dict):
            raise ValueError("it does not hold the state of a run")
    return state


def _require_plain(file: BinaryIO) -> None:
    """Raises ValueError where the file is not one of torch's archives, or unpacks to more than it weighs."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, as no checkpoint is")
    if sum(member.file_size for member in members) > size:
        raise ValueError("it is shorter than it says")
    file.seek(0)


def require_like(state: Any, fresh: Any, at: str = "") -> None:
    """Raises ValueError where a state has other parts than a ``fresh`` one, or parts of other types or shapes.

    Lists may differ in length, and what is None at first may become anything.
    """
    if fresh is None:
        return
    if type(state) is not type(fresh):
        raise ValueError(f"{at or 'it'} is of type {type(state).__name__}, not {type(fresh).__name__}")
    if isinstance(fresh, torch.Tensor) and (state.shape != fresh.shape or state.dtype != fresh.dtype):
        raise ValueError(f"{at} has another shape")
    if isinstance(fresh, dict) and not at:
        if state.keys() != fresh.keys():
            raise ValueError(f"its parts are {', '.join(map(str, state))}")
        for name, part in fresh.items():
            require_like(state[name], part, str(name))
