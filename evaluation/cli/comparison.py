"""Several finished runs side by side on the terminal: who found the better front, and how fast.

All figures are of proposals that the harness judged itself: trained from scratch under the selection protocol, with
random numbers that the search never saw. Time is that of the search stage.
"""

import json
import math
import textwrap
from collections.abc import Callable, Iterable
from statistics import median_low
from typing import Any

from evaluation import significance
from evaluation.runs import accounts, units
from evaluation.runs.record import Record
from evaluation.settings.config import Budget
from spaces.cli.numbers import three
from spaces.cli.tables import Column, Fitted
from spaces.cli.terminal import Terminal

SHARED = (
    "dataset", "dataset_fingerprint", "test_fingerprint", "train_limit", "task", "evaluator", "space", "space_config",
    "scope", "cost", "multiplier_choice", "multipliers", "tables", "budget", "snapshots",
)  # fmt: skip


LIMIT = 0.25  # of the cost of the reference network in exact int8


def show(console: Terminal, records: list[Record]) -> None:
    """A table per group of runs that may be compared: same data, protocol, space, circuits, budget and device."""
    groups: dict[str, list[Record]] = {}
    for record in (record for record in records if record.anytime):  # without a search there is nothing to compare
        shared: list[Any] = [record.protocol.hash, record.device.type, record.device.name]
        shared += [getattr(record, name) or None for name in SHARED]  # older records lack some
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(record)
    for group in groups.values():
        if len(group) > 1:
            console.print()
            console.print(_table(group))
            for line in _remarks(group):
                shown = textwrap.wrap(line, console.width, initial_indent="  ", subsequent_indent="    ")
                console.print("\n".join(shown), highlight=False)


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Runs by method; where a method ran with several settings, by those that differ, too."""
    records = list(records)
    settings: dict[str, list[dict]] = {}
    for record in records:
        settings.setdefault(record.method, []).append(record.method_config or {})
    rows: dict[str, list[Record]] = {}
    for record in records:
        own, others = record.method_config or {}, settings[record.method]
        differing = [f"{name}={own[name]}" for name in own if any(other.get(name) != own[name] for other in others)]
        rows.setdefault("\n".join([record.method, *differing]), []).append(record)
    return rows


# -- figures -----------------------------------------------------------------------------------------------------------


def cost_limit(record: Record) -> float:
    """A level of cost at which errors are set side by side, fixed before any run: a share of the reference network's."""
    return LIMIT * record.reference_cost


def error_within(record: Record, most: float) -> float:
    """The lowest validation error, 0..1, of a run's final front up to this cost; infinite where it has nothing there."""
    return min((error for error, cost in record.anytime[-1].front if cost <= most), default=math.inf)


def final_hypervolume(record: Record) -> float:
    """At the end of the search, of a record that has fronts."""
    assert record.hypervolume is not None, "a record with fronts has a hypervolume"
    return record.hypervolume


def target_hypervolume(records: Iterable[Record]) -> float:
    """What the worst method reaches in the end, in at least half of its runs: the lowest of the methods' medians."""
    return min(median_low(final_hypervolume(r) for r in runs) for runs in by_method(records).values())


def seconds_to(record: Record, hypervolume: float) -> float:
    """Device-seconds until the run's proposals have this hypervolume, judging them included; infinite where they never do."""
    reached = (s.spent_seconds for s in record.anytime if s.hypervolume >= hypervolume)
    return next(reached, math.inf)


def speed_ups(records: list[Record]) -> dict[str, float]:
    """Of each method: how many times faster than the worst method it reaches that one's final hypervolume.

    Times are medians over runs, at least half of which get there. Empty where one gets there in no time at all.
    """
    target = target_hypervolume(records)
    methods = by_method(records)
    worst = min(methods, key=lambda name: median_low(final_hypervolume(r) for r in methods[name]))
    times = {name: median_low(seconds_to(r, target) for r in runs) for name, runs in methods.items()}
    return {name: times[worst] / seconds for name, seconds in times.items()} if all(times.values()) else {}


def paired(records: Iterable[Record]) -> list[significance.Comparison]:
    """Every pair of methods by their hypervolumes at the end of the search, runs paired by seed."""
    samples: dict[str, dict[int, list[float]]] = {}
    for name, runs in by_method(records).items():
        by_seed = samples.setdefault(name.replace("\n", " "), {})
        for run in runs:
            by_seed.setdefault(run.seed, []).append(final_hypervolume(run))
    return significance.compare(samples)


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(records: list[Record]) -> Fitted:
    first, cost, target = records[0], cost_limit(records[0]), target_hypervolume(records)
    faster = speed_ups(records)
    unit, seconds = _time_unit(records)
    table = Fitted(
        f"comparison on {first.dataset}{first.limit_note}, space {first.space}, "
        f"protocol {first.protocol.name}, budget {first.budget or 'none'}: medians and ranges",
        [
            Column("method", left=True),
            Column("hypervolume"),
            Column(f"error, %\n≤ {_amount(first, cost)}", 1),
            Column(f"search\n{unit}", 3),
            Column(f"{unit} to\n{target:.3f}", 4),
            Column("× faster", 2),
        ],
    )
    for name, runs in by_method(records).items():
        table.add(
            name + f"\n{len(runs)} run{'s' if len(runs) > 1 else ''}",
            _spread([final_hypervolume(r) for r in runs], "{:.3f}".format),
            _spread([100 * error_within(r, cost) for r in runs], three, "none"),
            _spread([r.ledger["search"].device_seconds / seconds for r in runs], three),
            _spread([seconds_to(r, target) / seconds for r in runs], three),
            three(faster[name]) if faster else "none",
        )
    return table


def _amount(record: Record, cost: float) -> str:
    return units.with_prefix(cost, record.unit)


def _time_unit(records: Iterable[Record]) -> tuple[str, float]:
    """Name and seconds of the unit of device time that suits these runs: hours, or seconds for very short ones."""
    records = list(records)
    device = "GPU" if records[0].device.type == "cuda" else "CPU"
    longest = max(r.ledger["search"].device_seconds for r in records)
    return (f"{device}-h", 3600.0) if longest >= 3600 else (f"{device}-s", 1.0)


def _spread(values: list[float], form: Callable[[float], str], infinite: str = "never") -> str:
    """The median, and the range below it."""

    def text(value: float) -> str:
        return form(value) if math.isfinite(value) else infinite

    middle = text(median_low(values))
    return middle if len(values) == 1 else f"{middle}\n{text(min(values))}–{text(max(values))}"


def _remarks(records: list[Record]) -> list[str]:
    """How to read the table, and which methods it cannot tell apart."""
    lines = [
        "hypervolume: share of the box up to 100 % error and "
        f"{_amount(records[0], records[0].reference_cost)} that a run's final proposals dominate, judged on validation",
        "× faster: time of the worst method to its own final hypervolume ÷ time of this one to the same; judging the "
        "proposals is part of it",
    ]
    limit = f"{_amount(records[0], cost_limit(records[0]))}, {LIMIT:.0%} of the reference network's in exact int8"
    lines.append(f"error, %: the lowest of a run's final proposals up to {limit}, fixed before any run")
    moments = records[0].snapshots + 1
    lines.append(
        f"hypervolumes are known at {moments} moment{'s' * (moments > 1)} of a search, and times no finer than that"
    )
    if Budget.parse(records[0].budget).seconds is None:
        lines.append("this budget is not one of device time: methods may have had unequal shares of it")
    if (spent := accounts.compared(by_method(records))) is not None:
        equal, figures = spent
        mark = "" if equal else f" ✗ unequal, by more than {accounts.TOLERANCE:.0%}"
        lines.append(f"{figures}{mark}".replace("\n", " "))
    comparisons = paired(records)
    lines += [comparison.sentence for comparison in comparisons]
    return [*lines, significance.EXPLANATION] if comparisons else lines
