"""One file holds everything that a run needs to go on; it is replaced whole, so that it is always consistent."""

import os
from pathlib import Path
from typing import Any

import torch

from spaces.errors import InputError


def save(path: Path, state: dict[str, Any]) -> None:
    """Atomically replace the checkpoint at ``path``."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
