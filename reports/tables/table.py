"""What a table is, and how numbers become its cells."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from evaluation.runs import units
from reports.load import Run
from reports.statistics import interval

UNMEASURED = "–"
SIGNIFICANT, MOST_DECIMALS = 4, 6  # of numbers whose size varies widely


@dataclass(frozen=True)
class Column:
    header: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """``text`` is plain text, for people; ``value`` what it stands for in full precision, to sort by.

    ``runs``: names of the runs that it is made from. ``parts``: further numbers in the text, by name (std, n, low, high).
    """

    text: str
    value: float | str | None = None
    runs: tuple[str, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """``name`` is for files; the first ``labels`` columns say what a row is."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1


@dataclass(frozen=True)
class Form:
    """How a number is written: times ``factor``, with so many decimals (None: four significant digits)."""

    decimals: int | None = None
    factor: float = 1

    def scaled(self, value: float) -> float:
        """An integer stays one where nothing is to be scaled."""
        return value if self.factor == 1 else value * self.factor

    def decimals_of(self, scaled: float) -> int:
        if self.decimals is not None:
            return self.decimals
        size = math.floor(math.log10(abs(scaled))) if scaled else SIGNIFICANT - 1
        return min(MOST_DECIMALS, max(0, SIGNIFICANT - 1 - size))


COUNT, PERCENT, HOURS = Form(0), Form(2, 100), Form(4, 1 / 3600)


def cost_form(unit: str) -> tuple[str, Form]:
    """The unit in which tables write costs in ``unit``, and their form."""
    shown, size = units.of_tables(unit)
    return shown, Form(None, 1 / size)


def written(value: float, decimals: int) -> str:
    """With thousands apart and a true minus, but never a negative zero."""
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−") if float(value) < 0 and text.strip("-0.,") else text.lstrip("-")


def words(text: str, runs: Iterable[str] = ()) -> Cell:
    return Cell(text, text, tuple(runs))


def nothing(runs: Iterable[str] = ()) -> Cell:
    """A number that was not measured."""
    return Cell(UNMEASURED, None, tuple(runs))


def number(value: float | None, form: Form, runs: Iterable[str] = ()) -> Cell:
    """One number as it is."""
    if value is None:
        return nothing(runs)
    scaled = form.scaled(value)
    return Cell(written(scaled, form.decimals_of(scaled)), scaled, tuple(runs))


def average(values: Sequence[tuple[Run, float | None]], form: Form, with_interval: bool = False) -> Cell:
    """The mean over runs of what was measured, ± its sample standard deviation from two values on.

    "(k of n)": measured in k of n runs. ``with_interval``: the 95 % interval of the mean in brackets, too.
    """
    measured = [form.scaled(value) for _, value in values if value is not None]
    runs = tuple(run.name for run, value in values if value is not None)
    if not measured:
        return nothing()
    middle = mean(measured)
    whole = len(measured) == 1 and isinstance(measured[0], int)
    decimals = 0 if whole else form.decimals_of(middle)
    text = written(middle, decimals)
    parts: dict[str, float] = {"n": len(measured)}
    if len(measured) > 1:
        parts["std"] = stdev(measured)
        text += f" ± {written(parts['std'], decimals)}"
    if with_interval and (ends := interval(measured)):
        parts |= dict(zip(("low", "high"), ends))
        text += f" [{', '.join(written(end, decimals) for end in ends)}]"
    if len(measured) < len(values):
        text += f" ({len(measured)} of {len(values)})"
    return Cell(text, middle, runs, parts)


def measured(row: Mapping[str, Any], name: str) -> float | None:
    """A number of a finalist's row of the frame, in which what is missing may be NaN, or no column at all."""
    value = row.get(name)
    return None if value is None or math.isnan(value) else getattr(value, "item", lambda: value)()
