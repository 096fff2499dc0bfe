"""One file holds everything that a run needs to go on; it is replaced whole, so that it is always consistent."""

import io
from pathlib import Path
from typing import Any

import torch

from spaces import stopping
from spaces.errors import InputError
from spaces.files import saving


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
        saving.save_bytes(path, content.getbuffer())


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """The checkpoint at ``path``, tensors and plain values only. Raises InputError when it cannot be read."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged or no checkpoint ({reason}); start a new run") from None
    if not isinstance(state, dict):
        raise InputError(f"{path} is no checkpoint of a run; start a new run")
    return state
