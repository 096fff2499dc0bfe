"""Tables of what depthwise loops look up in registers."""

import functools
from typing import Self

import numpy as np
from torch import Tensor

from spaces.arithmetic.engines.cpu import depthwise_loops as loops
from spaces.arithmetic.engines.cpu.depthwise_simd import PLANES
from spaces.arithmetic.engines.memory import has_permutes
from spaces.multipliers.multiplier import SIZE

PERMUTES = has_permutes()
_HALF = 16  # values of four bits
_ROUNDING = 4 * np.finfo(np.float32).eps  # of the largest number: what blends of such tables are off by


class Tables:
    """Values u (R, 256) float32 by code, and how they are looked up in registers: by their bytes, or by halves of the code.

    The latter takes half as long, where all numbers are one of the code's upper four bits plus one of its lower four: so
    they are of circuits that add partial products up, whichever these leave out.
    """

    def __init__(self, u: Tensor) -> None:
        self.values = values = np.ascontiguousarray(u.float().numpy())
        self.halves, self.planes, self.how = values[:0], np.empty(0, dtype=np.uint8), loops.ONE_BY_ONE
        if PERMUTES and not self._set_halves():
            self._set_planes()

    @classmethod
    def of_words(cls, words: np.ndarray) -> Self:
        """Those of integers (R, 256) of 32 bits."""
        tables = cls.__new__(cls)
        tables.values = np.ascontiguousarray(words).view(np.float32)
        tables.halves, tables.planes, tables.how = tables.values[:0], np.empty(0, dtype=np.uint8), loops.ONE_BY_ONE
        if PERMUTES:
            tables._set_planes()
        return tables

    def _set_planes(self) -> None:
        self.how = loops.BY_BYTES
        self.planes = np.ascontiguousarray(self.values.view(np.uint8).reshape(-1, SIZE, PLANES).transpose(0, 2, 1))

    def _set_halves(self) -> bool:
        """Whether that is possible."""
        values = self.values
        upper, lower = values[:, ::_HALF], values[:, :_HALF] - values[:, :1]
        off = np.abs((upper[:, :, None] + lower[:, None]).reshape(values.shape) - values).max(axis=1)
        if not (off <= _ROUNDING * np.abs(values).max(axis=1)).all():
            return False
        self.halves, self.how = np.stack([upper, lower], axis=1), loops.BY_HALVES
        return True

    @classmethod
    def of(cls, u: Tensor) -> Self:
        """Those of ``u``, remembered with it: several layers may share one."""
        known = getattr(u, "_known_tables", None)
        if known is None or known[0] != u._version:
            known = (u._version, cls(u.detach()))
            u._known_tables = known
        return known[1]

    @functools.cached_property
    def _adding(self) -> list[bool]:
        return [bool(each) for each in np.any(self.values.view(np.int32), axis=0)]

    def adds(self, code: int) -> bool:
        """Whether any of a code's values is not zero."""
        return self._adding[code]

    @functools.cached_property
    def addresses(self) -> tuple[int, int, int, int]:
        """Where all of it lies, as long as this lives; and which way."""
        values, planes, halves = (array.ctypes.data for array in (self.values, self.planes, self.halves))
        return values, planes, halves, self.how
