"""Seeds that depend on what they are for, so that a training gives the same result whenever, and wherever, it runs."""

import hashlib
from collections.abc import Callable

import torch


def derived_seed(*parts: object) -> int:
    """A seed that depends on all parts: the same training gets the same numbers whenever, and wherever, it runs."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "little")


def build_seeded(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """``build()`` with weights drawn under ``seed``; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
