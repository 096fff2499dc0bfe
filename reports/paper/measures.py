"""The figures that qualifying records measure. Where there are none a cell is empty: nothing is ever guessed."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from evaluation.cli.comparison import speed_ups
from reports.load import Run
from reports.paper.qualifying import Counted
from reports.rows import saving_column
from reports.tables import Cell
from reports.tables.table import Form, average, measured, written

EMPTY = Cell("")  # where other tables have a dash: not measured, and the paper's table has a place for it
PERCENT, MILLIONS, HOURS, DAYS = Form(2), Form(2), Form(2, 1 / 3600), Form(3, 1 / 86400)


def spread(runs: Iterable[Run], figure: Callable[[Run], float | None], form: Form) -> Cell:
    """The mean of what was measured, its sample standard deviation from two runs on, and of how many runs it is."""
    known = [(run, value) for run in runs if (value := figure(run)) is not None]
    cell = average(known, form)
    return replace(cell, text=f"{cell.text} ({runs_of(len(known))})") if known else EMPTY


def error(run: Run) -> float | None:
    """Test error in % of the best finalist on validation, trained and tested in fp32, as the papers report it."""
    accuracy = measured(run.best, "test_accuracy_fp32")
    return None if accuracy is None else 100 * (1 - accuracy)


def params(run: Run) -> float | None:
    """Millions of parameters of that finalist."""
    count = measured(run.best, "params")
    return None if count is None else count / 1e6


def search_seconds(run: Run) -> float | None:
    """Device-seconds of one search."""
    return measured(run.best, "search_device_seconds")


def search_work(run: Run) -> float | None:
    """Trained work of one search, in MACs; None in records that do not hold it."""
    return run.record.ledger["search"].work


def change(base: str) -> Callable[[Run], float | None]:
    """The change of energy in % under the accounting ``approxdarts``, negative where the best finalist saves."""

    def changed(run: Run) -> float | None:
        saving = measured(run.best, saving_column("approxdarts", base))
        return None if saving is None else -100 * saving

    return changed


def drop(base: str) -> Callable[[Run], float | None]:
    """The test accuracy in points that approximate arithmetic loses against the same network in another one."""

    def lost(run: Run) -> float | None:
        before, after = (measured(run.best, f"test_accuracy_{name}") for name in (base, "approximate"))
        return None if before is None or after is None else 100 * (before - after)

    return lost


def claim(measure: str, rerun: str, counted: Counted) -> Cell:
    """What was measured of a claim."""
    if measure == "search_hours":
        return spread(counted.timed(rerun), search_seconds, HOURS)
    if measure == "search_work":
        return spread(counted.by_rerun.get(rerun, ()), search_work, Form(prefixed=True))
    if measure == "speed_up":
        return speed_up(counted.timed(rerun))
    kind, _, base = measure.partition("_vs_")
    figure = {"saving": change, "drop": drop}[kind](base)
    return spread(counted.by_rerun.get(rerun, ()), figure, PERCENT)


def speed_up(runs: Sequence[Run]) -> Cell:
    """How many times sooner ApproxDARTS reaches the final hypervolume of the worse method than EvoApproxNAS does.

    Of runs of both on one kind of device: that with the most of them.
    """
    devices: dict[str, list[Run]] = {}
    for run in runs:
        if not run.moments:
            continue
        devices.setdefault(run.record.device.name, []).append(run)
    both = [members for members in devices.values() if len({run.method for run in members}) == 2]
    if not both:
        return EMPTY
    members = max(both, key=len)
    faster = speed_ups([run.record for run in members])
    if not faster:
        return EMPTY
    ratio = faster["approxdarts"] / faster["evoapproxnas"]
    own = sum(run.method == "approxdarts" for run in members)
    names = tuple(run.name for run in members)
    return Cell(f"{ratio:.1f} ({own} + {runs_of(len(members) - own)})", ratio, names)


def duration(runs: Sequence[Run]) -> str:
    """What one run of a command took in all, by device; empty where nobody ran it."""
    devices: dict[str, list[float]] = {}
    for run in runs:
        devices.setdefault(run.record.device.name, []).append(run.best["total_device_seconds"] / 3600)
    return "; ".join(
        f"{written(statistics.mean(hours), 2)} device-hours a run on {name} ({runs_of(len(hours))})"
        for name, hours in devices.items()
    )


def runs_of(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"
