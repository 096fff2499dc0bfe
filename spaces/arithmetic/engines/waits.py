"""Whether the host may wait for a GPU: results must be read here, and a step of training must never be held up there."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def waits(mode: str, device: torch.device) -> Iterator[None]:
    """Inside, a wait for a GPU is an ``"error"``, or allowed (``"default"``); afterwards it is what it was before.

    On other devices nothing is ever waited for.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    _set(mode)
    try:
        yield
    finally:
        _set(before)


def _set(mode: str | int) -> None:
    with warnings.catch_warnings():
        # Torch says on every change of the mode that it does not see all waits: true, and nothing for a user to act on.
        warnings.filterwarnings("ignore", message="Synchronization debug mode", category=UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
