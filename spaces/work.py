"""Trained work: the MACs that layers compute, whoever asks for it and however long it takes.

A pass of images with gradients counts three times the MACs of its layers: one forward, one for the gradients of the
activations and one for those of the weights. A pass without gradients counts once. A layer that mixes multipliers
computes one blended table, and so counts once. Layers are ``nn.Conv2d`` and ``nn.Linear`` and what descends from them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

PASSES = 3  # of a pass with gradients


class Counted:
    """MACs that were counted so far."""

    def __init__(self) -> None:
        self.macs = 0.0


_open: list[Counted] = []  # what is counted into: the last; nothing where that is paused
_PAUSED = Counted()
_hooks: list[RemovableHandle] = []  # one, as long as something is counted


@contextmanager
def counting() -> Iterator[Counted]:
    """Count what the block computes in this process, but for what is ``paused``."""
    with _counted_into(Counted()) as counted:
        yield counted


@contextmanager
def paused() -> Iterator[None]:
    """What the block computes is counted elsewhere, or is no work at all."""
    if not _open:
        yield
        return
    with _counted_into(_PAUSED):
        yield


def add(macs: float) -> None:
    """Count what no layer's call tells of, such as the replay of a graph."""
    if _open:
        _open[-1].macs += macs


@contextmanager
def _counted_into(counted: Counted) -> Iterator[Counted]:
    _open.append(counted)
    _hooked()
    try:
        yield counted
    finally:
        _open.pop()
        _hooked()


def _hooked() -> None:
    """The hook makes every call of a module a little slower, and is there only as long as something is counted."""
    wanted = bool(_open) and _open[-1] is not _PAUSED
    if wanted and not _hooks:
        _hooks.append(register_module_forward_hook(_count))
    elif not wanted and _hooks:
        _hooks.pop().remove()


def _count(module: nn.Module, _: Any, output: Tensor) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        macs = output.numel() * (module.weight.numel() // module.weight.shape[0])
        _open[-1].macs += macs * (PASSES if torch.is_grad_enabled() else 1)
