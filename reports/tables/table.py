"""What a table is, and how numbers become its cells."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from evaluation.runs import units
from reports.load import Run, Section
from reports.statistics import interval

UNMEASURED = "–"
SIGNIFICANT, MOST_DECIMALS = 3, 6


@dataclass(frozen=True)
class Column:
    """``better``: "less" or "more", where one number is better than another; ``main``: one of the few for a paper."""

    header: str
    numeric: bool = True
    better: str | None = None
    main: bool = False


@dataclass(frozen=True)
class Cell:
    """``text`` is plain text, for people; ``value`` what it stands for in full precision, to sort by.

    ``runs``: names of the runs that it is made from. ``parts``: further numbers in the text, by name (std, n, low, high).
    ``best``: no other of its column is better.
    """

    text: str
    value: float | str | None = None
    runs: tuple[str, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    best: bool = False


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
    """How people read a number: times ``factor``, with so many decimals (None: three significant digits, and never more
    than ``most`` decimals); ``prefixed``: with k, M and so on behind it.
    """

    decimals: int | None = None
    factor: float = 1
    most: int = MOST_DECIMALS
    prefixed: bool = False

    def scaled(self, value: float) -> float:
        """An integer stays one where nothing is to be scaled."""
        return value if self.factor == 1 else value * self.factor

    def decimals_of(self, scaled: float) -> int:
        if self.decimals is not None:
            return self.decimals
        rounded = float(f"{scaled:.{SIGNIFICANT - 1}e}")  # 9.999 is written as 10.0
        size = math.floor(math.log10(abs(rounded))) if rounded else SIGNIFICANT - 1
        return min(self.most, max(0, SIGNIFICANT - 1 - size))

    def text(self, scaled: float, *others: float) -> tuple[str, ...]:
        """A number, and others with as many decimals as it has; the prefix stands behind the last."""
        prefix, size = units.suited("", abs(scaled)) if self.prefixed else ("", 1.0)
        whole = self.prefixed and size == 1 and isinstance(scaled, int)
        decimals = 0 if whole else self.decimals_of(scaled / size)
        *first, last = (written(value / size, decimals) for value in (scaled, *others))
        return *first, f"{last} {prefix}".rstrip()


COUNT, PERCENT = Form(prefixed=True), Form(factor=100, most=2)


def cost_form(section: Section) -> tuple[str, Form]:
    """The unit in which all of a section's costs are written, and their form."""
    shown, size = section.cost_unit
    return shown, Form(None, 1 / size)


def time_form(section: Section) -> tuple[str, Form]:
    """The same of device times, which are kept in seconds."""
    shown, hours = section.time_unit
    return shown, Form(None, 1 / (3600 * hours))


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
    return Cell(form.text(scaled)[0], scaled, tuple(runs))


def average(values: Sequence[tuple[Run, float | None]], form: Form, with_interval: bool = False) -> Cell:
    """The mean over runs of what was measured, ± its sample standard deviation from two values on.

    "(k of n)": measured in k of n runs. ``with_interval``: the 95 % interval of the mean in brackets, too.
    """
    measured = [form.scaled(value) for _, value in values if value is not None]
    runs = tuple(run.name for run, value in values if value is not None)
    if not measured:
        return nothing()
    middle = mean(measured)
    middle = middle if len(measured) > 1 else measured[0]  # which stays whole
    parts: dict[str, float] = {"n": len(measured)}
    if len(measured) > 1:
        parts["std"] = stdev(measured)
    text = " ± ".join(form.text(middle, *(parts[name] for name in ("std",) if name in parts)))
    if with_interval and (ends := interval(measured)):
        parts |= dict(zip(("low", "high"), ends))
        text += f" [{', '.join(form.text(middle, *ends)[1:])}]"
    if len(measured) < len(values):
        text += f" ({len(measured)} of {len(values)})"
    return Cell(text, middle, runs, parts)


def measured(row: Mapping[str, Any], name: str) -> float | None:
    """A number of a finalist's row of the frame, in which what is missing may be NaN, or no column at all."""
    value = row.get(name)
    return None if value is None or math.isnan(value) else getattr(value, "item", lambda: value)()
