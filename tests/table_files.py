"""A truth table, and a file with any content."""

from pathlib import Path

import numpy as np

from spaces.multipliers.multiplier import Multiplier

NUMERIC = list(range(-128, 128))
UNSIGNED = list(range(256))


def product(a: int, b: int) -> int:
    """An operand-asymmetric circuit that works for both signednesses: it drops the two lowest bits of a."""
    return (a & ~3) * b


def rows(a_values: list[int], b_values: list[int], word: int = 0) -> list[list[int]]:
    """The table with the given operands beside it; modulo 2^``word`` if that is given."""
    return [[product(a, b) % (1 << word) if word else product(a, b) for b in b_values] for a in a_values]


def multiplier(signed: bool, name: str = "mine") -> Multiplier:
    values = NUMERIC if signed else UNSIGNED
    return Multiplier(name=name, signed=signed, table=np.array(rows(values, values)))


def saved(path: Path, content: bytes | str | np.ndarray) -> Path:
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_bytes(content)
    return path
