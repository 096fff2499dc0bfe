"""What the searches cost, and how fast they got anywhere."""

import math
from collections.abc import Callable, Sequence
from statistics import median_low

from evaluation.runs.record import MEASURING, STAGES, LedgerRow
from evaluation.settings.config import Budget
from reports import statistics
from reports.load import Run, Section
from reports.tables.results import AVERAGES, device, spent
from reports.tables.shape import for_papers
from reports.tables.table import (
    COUNT,
    Cell,
    Column,
    Form,
    Table,
    average,
    nothing,
    number,
    time_form,
    words,
)
from spaces.errors import InputError

NEVER = "never"


def _watching(run: Run) -> float | None:
    row = run.record.ledger.get(MEASURING)
    return row.device_seconds if row else None


def _memory(run: Run) -> float | None:
    known = [run.record.ledger[stage].peak_memory_bytes for stage in STAGES]
    most = max((value for value in known if value is not None), default=None)
    return None if most is None else most / 2**20


def _over_stages(run: Run, value: Callable[[LedgerRow], float | None]) -> float | None:
    """The sum over all four stages; None where one of them is not known."""
    known = [took for stage in STAGES if (took := value(run.record.ledger[stage])) is not None]
    return sum(known) if len(known) == len(STAGES) else None


Cost = tuple[str, Form, Callable[[Run], float | None]]  # header, form, value of a run
COSTS: tuple[Cost, ...] = (
    ("steps", Form(1), lambda run: run.record.steps),
    ("candidates trained", Form(1), lambda run: run.record.evaluations),
    ("cache hits", Form(1), lambda run: run.record.cache_hits),
    ("energy of the device, J", Form(), lambda run: _over_stages(run, lambda row: row.joules)),
    ("peak memory, MiB", COUNT, _memory),
)


def _times(section: Section) -> list[Cost]:
    """The stages, and watching."""
    unit, form = time_form(section)
    stages = [(m.header, m.form, lambda run, m=m: m.value(run.best)) for m in spent(section)]
    warm_up = (f"warm-up, {unit}", form, lambda run: _over_stages(run, lambda row: row.warm_up_seconds))
    return [*stages, (f"watching, {unit}", form, _watching), warm_up]


NOTES = (
    "Device time: wall time × devices. Watching: judging a search on its way, booked apart and in no total. Warm-up "
    "(compilation and the like) is part of the stages' time. The device's energy is known through NVML only; peak memory on "
    "a CPU is that of the whole process.",
)
FASTER = (
    "× faster: search time of the worst method to its own final hypervolume ÷ time of this one to the same; times are "
    "medians of device time and no finer than the moments at which fronts were judged; methods in their usual settings"
    " alone; never: not in most runs."
)
DEVICES = "Devices differ, so that times to a hypervolume are not compared."
UNEQUAL = "Budgets differ or are not of device time: methods may have had unequal shares of it."


def search_cost(section: Section) -> Table:
    """A row per variant: time by stage, warm-up, candidates, joules, memory, and how fast the common hypervolume came."""
    judged = statistics.judged(section.runs)
    one_device = len({device(run) for run in judged}) == 1
    found, speeds = statistics.reference(section), statistics.speeds(section) if one_device else None
    (unit, time), costs = time_form(section), [*_times(section), *COSTS]
    target = f"to hypervolume {speeds[0]:.3f}, {unit}" if speeds else f"to the common hypervolume, {unit}"
    columns = (
        Column("method", False),
        Column("runs"),
        Column("device", False),
        *(Column(header) for header, *_ in costs),
        Column(target),
        Column("× faster"),
    )
    rows = []
    for variant, runs in section.variants.items():
        names = tuple(run.name for run in runs)
        amounts = (average([(run, value(run)) for run in runs], form) for _, form, value in costs)
        labels = (words(variant, names), Cell(str(len(runs)), len(runs), names), words(device(runs[0]), names))
        rows.append((*labels, *amounts, *_speed_cells(variant, runs, speeds, time)))
    notes = [AVERAGES, *NOTES]
    if found:
        notes += [FASTER if one_device else DEVICES, found.sentence]
    if len({_budget(run) for run in judged} - {None}) != 1 or None in {_budget(run) for run in judged}:
        notes += [UNEQUAL] if found else []
    table = Table(f"{section.name}-cost", f"Cost of searching: {section.title}", columns, tuple(rows), tuple(notes))
    times = tuple(f"{stage}, {unit}" for stage in (*STAGES, "total"))
    return for_papers(table, ("runs", *times, "candidates trained", "× faster"))


def _budget(run: Run) -> float | None:
    """Device-seconds of search that the run was given; None where its budget is not one of time."""
    try:
        return Budget.parse(run.record.budget).seconds
    except InputError:
        return None


_Speeds = tuple[float, dict[str, float], dict[str, list[float]]]


def _speed_cells(variant: str, runs: Sequence[Run], speeds: _Speeds | None, form: Form) -> tuple[Cell, Cell]:
    """The median time to the common hypervolume, and × faster; empty where there is nothing to compare."""
    judged = tuple(run.name for run in statistics.judged(runs))
    if speeds is None or variant not in speeds[2]:
        return nothing(), nothing()
    _, faster, seconds = speeds
    middle = median_low(seconds[variant])
    time = number(middle, form, judged) if math.isfinite(middle) else Cell(NEVER, None, judged)
    return time, number(faster.get(variant), Form(1), judged)
