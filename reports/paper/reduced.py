"""What records say of the published claims at reduced scale: other data, shorter protocols, smaller networks.

Everything comes from the records that fill no measured cell; those whose candidates were looked up in a table are none of
them. Each figure says on which data, space and protocol it was measured, over how many runs, and with which 95 % interval.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.cli.comparison import seconds_to, speed_ups, target_hypervolume
from reports.load import Run
from reports.paper import measures
from reports.paper.measures import EMPTY, PERCENT
from reports.paper.published import Claim, published
from reports.paper.qualifying import Counted
from reports.statistics import interval
from reports.tables import Cell, Column, Table
from reports.tables.table import Form, average, words

TABLE = "table"  # the evaluator that trains nothing
SECONDS, WORK, TIMES = Form(), Form(prefixed=True), Form(1)
OURS, THEIRS = "approxdarts", "evoapproxnas"


@dataclass(frozen=True)
class Scale:
    """Runs that may be compared, and where they are from."""

    data: str
    space: str
    protocol: str
    runs: tuple[Run, ...]

    @property
    def where(self) -> str:
        return f"{self.data}, {self.space}, {self.protocol}"

    def of(self, method: str) -> list[Run]:
        """The runs of a method in its usual settings."""
        return [run for run in self.runs if run.method == method and run.variant == method]


def scales(counted: Counted) -> list[Scale]:
    """By what makes runs comparable, the largest first."""
    groups: dict[tuple, list[Run]] = {}
    for run, _ in counted.others:
        record = run.record
        if record.evaluator != TABLE:
            key = (f"{record.dataset}{record.limit_note}", record.space, record.protocol.name, record.protocol.hash)
            groups.setdefault((*key, record.scope, record.cost), []).append(run)
    found = [Scale(data, space, name, tuple(runs)) for (data, space, name, *_), runs in groups.items()]
    return sorted(found, key=lambda scale: -len(scale.runs))


# -- claims ------------------------------------------------------------------------------------------------------------


def claim(measure: str, scale: Scale) -> Cell:
    """What these runs say of a claim, without where they are from; empty where they say nothing."""
    if measure == "speed_up":
        return _speed_up(scale)
    forms = {"search_hours": SECONDS, "search_work": WORK}
    return _spread(scale.of(OURS), FIGURES.get(measure) or _change_or_drop(measure), forms.get(measure, PERCENT))


def _hours(run: Run) -> float | None:
    seconds = measures.search_seconds(run)
    return None if seconds is None else seconds / 3600


FIGURES: dict[str, Callable[[Run], float | None]] = {"search_hours": _hours, "search_work": measures.search_work}


def _change_or_drop(measure: str) -> Callable[[Run], float | None]:
    kind, _, base = measure.partition("_vs_")
    return {"saving": measures.change, "drop": measures.drop}[kind](base)


def _spread(runs: Iterable[Run], figure: Callable[[Run], float | None], form: Form) -> Cell:
    known = [(run, value) for run in runs if (value := figure(run)) is not None]
    return average(known, form, with_interval=True) if known else EMPTY


def _speed_up(scale: Scale) -> Cell:
    """Times to the final hypervolume of the worse method, judging of proposals included where the records hold it."""
    ours, theirs = (_with_fronts(scale.of(method)) for method in (OURS, THEIRS))
    faster = speed_ups([run.record for run in (*ours, *theirs)]) if ours and theirs else {}
    if not faster:
        return EMPTY
    target = target_hypervolume([run.record for run in (*ours, *theirs)])
    seconds = {run.seed: seconds_to(run.record, target) for run in theirs}
    ratios = [
        seconds[run.seed] / own for run in ours if run.seed in seconds and (own := seconds_to(run.record, target))
    ]
    ends = interval([ratio for ratio in ratios if np.isfinite(ratio)], np.median)
    text, value = measures.written(faster[OURS] / faster[THEIRS], 1), faster[OURS] / faster[THEIRS]
    text += f" [{', '.join(TIMES.text(end)[0] for end in ends)}]" if ends else ""
    names = tuple(run.name for run in (*ours, *theirs))
    if any(moment.judging_seconds is None for run in (*ours, *theirs) for moment in run.moments):
        text += ", search alone"
    return Cell(text, value, names, dict(zip(("low", "high"), ends or ())))


def _with_fronts(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.moments]


def best(measure: str, found: Sequence[Scale]) -> Cell:
    """What the scale with most runs says of a claim, and where that is."""
    told = [(cell, scale) for scale in found if (cell := claim(measure, scale)).text]
    if not told:
        return EMPTY
    cell, scale = max(told, key=lambda pair: len(pair[0].runs))
    unit = " device-h" if measure == "search_hours" else ""
    return replace(cell, text=f"{cell.text}{unit} ({scale.where}, {measures.runs_of(len(cell.runs))})")


def claims(counted: Counted) -> Table:
    """Every claim at every scale, with where it was measured."""
    rows = []
    for one, scale in ((one, scale) for one in published().claims for scale in scales(counted)):
        cell = claim(one.measure, scale)
        if cell.text:
            rows.append(_claim_row(one, scale, cell))
    return Table(
        name="reduced",
        title="The same claims at reduced scale",
        columns=(
            *(Column(name, False) for name in ("claim", "reported")),
            Column("at reduced scale"),
            *(Column(name, False) for name in ("data", "space", "protocol", "seeds", "device")),
        ),
        rows=tuple(rows),
        notes=(
            "of each run the finalist with the highest validation accuracy; mean ± sample standard deviation over runs [95 % "
            "interval of the mean]; savings under the accounting approxdarts, negative: saved",
            "faster: medians of the device time to the final hypervolume of the worse method, the judging of proposals on the "
            "account ('search alone': records do not hold what it took); [95 % interval of the median ratio, runs paired by "
            "seed]",
            *(() if rows else ("none: no record here is of a search that was trained for real",)),
        ),
    )


def _claim_row(one: Claim, scale: Scale, cell: Cell) -> tuple[Cell, ...]:
    used = [run for run in scale.runs if run.name in cell.runs]
    seeds = " ".join(map(str, sorted({run.seed for run in used})))
    devices = ", ".join(sorted({run.record.device.name for run in used}))
    return (
        words(one.what),
        words(one.reported),
        cell,
        *map(words, (scale.data, scale.space, scale.protocol, seeds, devices)),
    )


# -- the DARTS family --------------------------------------------------------------------------------------------------


def published_cells(counted: Counted) -> dict[str, tuple[Cell, Cell]]:
    """Genotype → test error in fp32 and rank of the published cells that were trained alike: at the scale that has most."""
    names = [member.genotype for member in published().family if member.genotype]

    def trained(scale: Scale) -> dict[str, Cell]:
        found = {name: _spread(scale.of(f"given-{name}"), measures.error, PERCENT) for name in names}
        return {name: cell for name, cell in found.items() if cell.text}

    errors, scale = max(
        ((trained(scale), scale) for scale in scales(counted)),
        key=lambda pair: (len(pair[0]), sum(len(cell.runs) for cell in pair[0].values())),
        default=({}, None),
    )
    if not errors or scale is None:
        return {}
    order = sorted(errors, key=lambda name: float(errors[name].value or 0.0))
    return {
        name: (
            replace(cell, text=f"{cell.text} ({scale.where}, {measures.runs_of(len(cell.runs))})"),
            Cell(f"{order.index(name) + 1} of {len(order)}", order.index(name) + 1, cell.runs)
            if len(order) > 1
            else EMPTY,
        )
        for name, cell in errors.items()
    }


def searched(method: str, counted: Counted) -> Cell:
    """Test error in fp32 of a method's searches, at the scale that has most of them; empty for no method."""
    told = [
        (cell, scale) for scale in scales(counted) if (cell := _spread(scale.of(method), measures.error, PERCENT)).text
    ]
    if not method or not told:
        return EMPTY
    cell, scale = max(told, key=lambda pair: len(pair[0].runs))
    return replace(cell, text=f"{cell.text} ({scale.where}, {measures.runs_of(len(cell.runs))})")
