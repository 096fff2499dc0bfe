"""Whole numbers in text, as people and programs write them, and the operands that some write beside a table."""

import re
from collections.abc import Sequence

from spaces.errors import InputError
from spaces.files.untrusted_text import shortened
from spaces.multipliers.files.index_order import AXES, NUMERIC, TWOS_COMPLEMENT, Order
from spaces.multipliers.multiplier import SIZE

_DECIMAL = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_WHOLE_FLOAT = re.compile(r"([+-]?\d{1,40})\.0{0,40}", re.ASCII)  # as pandas writes a column of floats
_EXPONENT = re.compile(r"[+-]?\d\.\d{1,30}e[+-]?\d{1,2}", re.ASCII | re.IGNORECASE)  # as np.savetxt writes
_HEXADECIMAL = re.compile(r"([+-]?)0x([0-9a-f]{1,8})", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"[0-9a-f]{4}", re.ASCII | re.IGNORECASE)  # of Verilog's $readmemh, without a mark


def whole_numbers(where: str, cells: Sequence[str]) -> list[int]:
    """Decimal numbers, with ".0" behind them or not, or hexadecimal ones.

    Hexadecimal are numbers after 0x, and all cells where each has four digits and one of them a letter, as in memory
    files of Verilog. Eight digits after 0x are two's complement. Raises InputError for anything else.
    """
    try:
        return [int(cell) for cell in cells]  # most files, in a hundredth of the time
    except ValueError:
        pass
    if all(_WORD.fullmatch(cell) for cell in cells):
        return [int(cell, 16) for cell in cells]
    return [_whole(where, cell) for cell in cells]


def _whole(where: str, cell: str) -> int:
    if _DECIMAL.fullmatch(cell):
        return int(cell)
    if found := _WHOLE_FLOAT.fullmatch(cell):
        return int(found[1])
    if found := _HEXADECIMAL.fullmatch(cell):
        value = int(found[2], 16)
        if len(found[2]) == 8 and value >= 1 << 31:
            value -= 1 << 32
        return -value if found[1] == "-" else value
    if _EXPONENT.fullmatch(cell) and float(cell).is_integer():
        return int(float(cell))
    raise InputError(f"{where}: {shortened(repr(cell), 60)} is not an integer")


def without_labels(where: str, rows: Sequence[list[str]]) -> tuple[list[list[str]], Order | None]:
    """The rows without the operands, or the numbers from 0 on, above and left of them; and the order that those tell.

    pandas writes such labels with an empty corner, without an index it writes those above alone. Raises InputError
    where there is a row and a column too many, and they are no labels.
    """
    sizes = {len(row) for row in rows}
    if len(rows) != SIZE + 1 or sizes not in ({SIZE + 1}, {SIZE}):
        return list(rows), None
    beside = sizes == {SIZE + 1}
    above = rows[0][1:] if beside else rows[0]
    axis = _axis(above)
    order: Order | None = NUMERIC if axis == NUMERIC else (TWOS_COMPLEMENT if axis == TWOS_COMPLEMENT else None)
    if axis is None or (beside and _axis([row[0] for row in rows[1:]]) != axis):
        raise InputError(
            f"{where}: {SIZE + 1} rows of {sizes.pop()}; leave out what stands above and beside the {SIZE} × {SIZE} products"
        )
    return [row[1:] for row in rows[1:]] if beside else list(rows[1:]), order


def _axis(labels: Sequence[str]) -> str | None:
    """The convention of an axis that counts so; those from 0 to 255 may be unsigned operands or just numbers."""
    try:
        numbers = whole_numbers("", labels)
    except InputError:
        return None
    return next((axis for axis, values in AXES.items() if values.tolist() == numbers), None)
