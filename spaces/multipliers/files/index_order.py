"""Which operands the rows and columns of a foreign truth table stand for.

Three conventions are read for an axis of 256 entries: 0 to 255 (unsigned), −128 to 127 (signed, numeric order), and
0 to 127 followed by −128 to −1 (signed, in the order of the two's-complement bytes). A fourth is known, and refused: 0 to
127 followed by −0 to −127 (sign and magnitude), which has no product for −128. A table itself tells which one it follows:
only when it is read rightly does it correlate best with the exact product.

What this can tell apart: signed from unsigned, the three signed orders, and all kinds of mixed axes. What it cannot:
swapped operands (the exact product is symmetric), and circuits that keep little more than the sign bits, whose table in
two's-complement order looks like an unsigned one; such a table is refused, so write it in numeric order.
"""

import itertools
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from spaces.errors import InputError
from spaces.multipliers.multiplier import SIZE, operand_range

Order = Literal["numeric", "twos-complement"]

# Operand value by index, for each convention.
UNSIGNED = "unsigned"
NUMERIC: Final = "numeric"
TWOS_COMPLEMENT: Final = "twos-complement"
AXES = {
    UNSIGNED: operand_range(signed=False),
    NUMERIC: operand_range(signed=True),
    TWOS_COMPLEMENT: np.roll(operand_range(signed=True), SIZE // 2),
}
SIGN_MAGNITUDE: Final = "sign-magnitude"
_RECOGNISED = AXES | {SIGN_MAGNITUDE: np.concatenate([np.arange(SIZE // 2), -np.arange(SIZE // 2)])}
_ORDERS = {NUMERIC: "numeric", TWOS_COMPLEMENT: "two's-complement"}
_WORDS = {UNSIGNED: "unsigned", SIGN_MAGNITUDE: "signed in sign-magnitude order"} | {
    axis: f"signed in {words} order" for axis, words in _ORDERS.items()
}
# Read rightly, all published circuits but the constant one reach 0.88, and a lone product of signs 0.44; tables with
# swapped bytes stay below 0.05.
LEAST_CORRELATION = 0.3
MARGIN = 0.01  # correlations that are closer than this say nothing


@dataclass(frozen=True, eq=False)
class RawTable:
    """What a file holds, before anything is known about its index order.

    ``entries`` (int64, 256×256) are in the file's order. ``words`` says that they are 16-bit words, whose sign depends on
    the signedness of the circuit. ``signed`` and ``order`` are what the format itself declares.
    """

    where: str  # the file's name, for messages
    entries: np.ndarray
    words: bool = False
    signed: bool | None = None
    order: Order | None = None

    def products(self, signed: bool) -> np.ndarray:
        """The entries as products of a signed or an unsigned circuit (int64, 256×256, in the file's order)."""
        entries, half = self.entries, 1 << 15
        if signed and entries.min() >= 0 and half <= entries.max() < 2 * half:
            return np.where(entries >= half, entries - 2 * half, entries)
        if not signed and self.words:
            return entries % (2 * half)
        return entries

    @property
    def signs_and_magnitudes(self) -> np.ndarray:
        """The entries as 16-bit words of a sign and a magnitude (int64, 256×256, in the file's order), if they can be."""
        half = 1 << 15
        if self.entries.min() < 0 or not half <= self.entries.max() < 2 * half:
            return self.entries
        return np.where(self.entries >= half, half - self.entries, self.entries)

    def table(self, axis: str) -> np.ndarray:
        """The truth table (int64, 256×256, in numeric order) when both axes follow the convention ``axis``."""
        products = self.products(axis != UNSIGNED)
        return np.roll(products, SIZE // 2, axis=(0, 1)) if axis == TWOS_COMPLEMENT else products


def correlation(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """Pearson's correlation of ``table`` (256×256) with the exact products rows·columns; 0 for a constant table."""
    deviation = table - table.mean()
    spread = np.sqrt((deviation**2).mean())
    if spread == 0:
        return 0.0
    covariance = rows @ deviation @ columns / table.size
    exact = (rows**2).mean() * (columns**2).mean() - (rows.mean() * columns.mean()) ** 2
    return float(covariance / spread / np.sqrt(exact))


def settle(raw: RawTable, signed: bool | None, declared_by: str, order: Order | None) -> tuple[np.ndarray, bool]:
    """The truth table in numeric order (int64, 256×256) and its signedness.

    ``signed`` and ``order`` are what was declared (None: not at all), ``declared_by`` says by what. Raises InputError for
    a table that correlates better with the exact product in another reading than in every declared one, for one that
    correlates in no reading, and where nothing declares the signedness of a table that could be both.
    """
    found = _correlations(raw)
    open_to = {
        axis: found[axis, axis]
        for axis in AXES
        if signed in (None, axis != UNSIGNED) and (order in (None, axis) or axis == UNSIGNED)
    }
    chosen = max(open_to, key=open_to.__getitem__)
    highest = open_to[chosen]
    best = max(found, key=found.__getitem__)
    if found[best] > highest + MARGIN:
        declared = [{True: "signed", False: "unsigned", None: ""}[signed]]
        if order and signed is not False:
            declared.append(f"in {_ORDERS[order]} order")
        said = " ".join(filter(None, [*declared, declared_by]))
        raise InputError(_other_reading(raw.where, said, found[best], best, highest))
    constant = raw.entries.min() == raw.entries.max()
    if highest < LEAST_CORRELATION and not constant:
        raise InputError(
            f"{raw.where}: the table correlates with the exact product in no index order (at most {found[best]:.2f}); "
            "either it is not that of an 8×8-bit multiplier, or its bytes are in another order"
        )
    likely = {axis == UNSIGNED for axis, value in open_to.items() if value >= highest - MARGIN}
    if len(likely) > 1:
        raise InputError(f"{raw.where}: the table could be signed or unsigned; declare which")
    return raw.table(chosen), chosen != UNSIGNED


def _correlations(raw: RawTable) -> dict[tuple[str, str], float]:
    """With the exact product, for each convention of rows and of columns."""
    found = {
        pair: correlation(raw.products(pair != (UNSIGNED, UNSIGNED)), _RECOGNISED[pair[0]], _RECOGNISED[pair[1]])
        for pair in itertools.product(_RECOGNISED, _RECOGNISED)
    }
    operands = _RECOGNISED[SIGN_MAGNITUDE]
    pair = SIGN_MAGNITUDE, SIGN_MAGNITUDE
    found[pair] = max(found[pair], correlation(raw.signs_and_magnitudes, operands, operands))
    return found


def _other_reading(where: str, declared: str, correlated: float, best: tuple[str, str], highest: float) -> str:
    """Why a table is refused that correlates best in the reading ``best``."""
    rows, columns = best
    numbers = f"correlation with the exact product {correlated:.2f}, otherwise at most {highest:.2f}"
    if best == (SIGN_MAGNITUDE, SIGN_MAGNITUDE):
        return (
            f"{where}: it looks {_WORDS[rows]} ({numbers}), which has no products for −128; write it for two's complement, "
            "rows and columns from −128 to 127"
        )
    if rows != columns:
        return (
            f"{where}: its rows look {_WORDS[rows]} and its columns {_WORDS[columns]} ({numbers}); "
            "both axes must follow the same order"
        )
    return f"{where}: declared {declared}, but it looks {_WORDS[rows]} ({numbers}); declare that, or mend the file"
