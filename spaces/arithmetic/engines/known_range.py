"""The range of a tensor's values, remembered with it for as long as it does not change."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def remember_range(x: Tensor, low: Any, high: Any) -> None:
    """The smallest and the largest value of ``x``, as numbers or, on a GPU, as tensors: of all of it, or of its parts (n,)."""
    if not x.is_inference():  # nobody counts the changes of such a tensor
        x._known_range = (x._version, id(x), low, high)


def range_of(x: Tensor, ask: Callable[[Tensor], tuple[Any, Any]]) -> tuple[Any, Any]:
    """What is remembered of ``x``, or else the answer of ``ask``."""
    known = None if x.is_inference() else getattr(x, "_known_range", None)
    if known is not None and known[:2] == (x._version, id(x)):  # a copy has what it is a copy of
        return known[2], known[3]
    low, high = ask(x.detach())
    remember_range(x, low, high)
    return low, high
