"""What the columns of a CSV of figures mean: people name them in many ways, with capitals and units.

A column is read where it is unmistakable, refused by name where it looks like a figure and could mean several things,
and otherwise left alone: such files hold notes, too.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from spaces.errors import InputError
from spaces.multipliers.multiplier import ErrorMetrics

# Field of Multiplier: the columns that may hold it. EvoApproxLib names its technology in the column.
HARDWARE = {figure: (f"pdk45_{figure}", figure) for figure in ("power_mw", "area_um2", "delay_ns")}
METRICS = tuple(field.name for field in fields(ErrorMetrics))
# What an import adds to the figures, so that its folder says by itself what the tables are.
RECORDED = ("signed", "technology", "source", "key")
NUMBERS = frozenset({*METRICS, *(column for columns in HARDWARE.values() for column in columns)})
_NAMES = ("name", "circuit_name", "circuit", "multiplier")
# Units: what one of them is in that of the field.
_UNITS = {
    "power": ("power_mw", {"nw": 1e-6, "uw": 1e-3, "mw": 1.0, "w": 1e3}),
    # Nobody gives the area of such a circuit in anything else, so that it is read without a unit, too.
    "area": ("area_um2", {"nm2": 1e-6, "um2": 1.0, "mm2": 1e6, "": 1.0}),
    "delay": ("delay_ns", {"ps": 1e-3, "ns": 1.0, "us": 1e3}),
}
_NEAR = 0.87  # of difflib: "powr_mw" is near power_mw, "age" near nothing


class Column(NamedTuple):
    """What a column holds, and what to multiply its numbers by."""

    field: str
    factor: float = 1.0


@dataclass(frozen=True)
class Columns:
    """The columns of a file by their text, as far as they are read; and those that are refused, with the reason."""

    meaning: dict[str, Column]
    unclear: dict[str, str]

    @property
    def has_name(self) -> bool:
        """Whether one of them names the circuit."""
        return "name" in self._fields

    @property
    def has_figures(self) -> bool:
        """Whether one of them holds, or may hold, a figure."""
        return bool(self.unclear) or not self._fields <= {"name"}

    @property
    def name(self) -> str:
        """The column that names the circuit."""
        return next(text for text, column in self.meaning.items() if column.field == "name")

    @property
    def _fields(self) -> set[str]:
        return {column.field for column in self.meaning.values()}

    def require_clear(self, path: Path) -> None:
        """Raises InputError for the first column that could mean several things, and for two that mean the same."""
        for text, reason in self.unclear.items():
            raise InputError(f"{path}: column '{text}' {reason}")
        seen: dict[str, str] = {}
        for text, column in self.meaning.items():
            if column.field in seen:
                raise InputError(f"{path}: columns '{seen[column.field]}' and '{text}' both hold {column.field}")
            seen[column.field] = text


def understand(columns: Sequence[str]) -> Columns:
    """The meaning of a header's columns."""
    meaning, unclear = {}, {}
    spelled = {text: _spelled(text) for text in columns}
    named = next((name for name in _NAMES if name in spelled.values()), "name")
    for text, word in spelled.items():
        if word == named:
            meaning[text] = Column("name")
        elif word in NUMBERS or word in RECORDED:
            meaning[text] = Column(word)
        elif found := _figure(word):
            meaning[text] = found
        elif reason := _unclear(word):
            unclear[text] = reason
    return Columns(meaning, unclear)


def _spelled(text: str) -> str:
    """In small letters, units after an underscore: "Power [µW]" is power_uw, "MAE (%)" mae_pct, "Area/um^2" area_um2."""
    word = text.strip().lower()[:100].replace("µ", "u").replace("μ", "u").replace("²", "2").replace("^", "")
    word = word.replace("%", " pct ").replace("percent", "pct")
    return "_".join("power" if part == "pwr" else part for part in re.findall(r"[a-z0-9]+", word))


def _figure(word: str) -> Column | None:
    """A hardware figure with its unit, as power_uw or pdk45_power_uw; EvoApproxLib's own columns, pdk45_pwr, have none."""
    technology = "pdk45_" if word.startswith("pdk45_") else ""
    quantity, _, unit = word.removeprefix(technology).partition("_")
    if quantity not in _UNITS:
        return None
    field, units = _UNITS[quantity]
    factor = 1.0 if technology and not unit else units.get(unit)
    return None if factor is None else Column(f"{technology}{field}", factor)


def _unclear(word: str) -> str:
    """Why a column cannot be read although it looks like a figure; empty if it does not."""
    parts = word.split("_")
    for quantity, (field, units) in _UNITS.items():
        if quantity in parts:
            known = ", ".join(f"{quantity}_{unit}" for unit in units if unit)
            return f"could be several things: call it {field}, or as its unit is ({known}), or leave it out"
    if f"{word}_pct" in METRICS:
        return f"has no unit: call it {word}_pct, in percent"
    near = difflib.get_close_matches(word, [*NUMBERS, *RECORDED], n=1, cutoff=_NEAR)
    return f"is unknown; did you mean {near[0]}?" if near else ""
