"""Where the cost of a network goes, and where the saving comes from."""

import math
from collections.abc import Mapping

from evaluation.runs import units
from evaluation.runs.record import CostFigures
from reports.load import Run, Section
from reports.tables.results import best_search
from reports.tables.table import PERCENT, Cell, Column, Form, Table, cost_form, nothing, number, words

CLOSE = 1e-6  # relative: layers that do not add up to their network are not believed
BASE = "fp32"  # what shares are of

CHOSEN = (
    "Of each method the finalist of the highest validation accuracy over all its searches (the first run's where there is "
    "none). {unit} per inference{apart}. Shares are of the fp32 total."
)
APART = "; {parts} stands apart and is in no total"
SAVED = (
    "Saved fp32 → int8: what exact 8-bit integers save; int8 → approximate: what the circuits save on top, split by the "
    "circuit that computes a layer where the record lists its layers."
)

_Parts = Mapping[str, float | None]  # by part, the total among them


def energy_split(section: Section) -> Table:
    """For each variant's best network: its cost by part and arithmetic, the steps of saving, and circuits' shares."""
    (unit, form), (split, apart) = cost_form(section), section.runs[0].record.parts
    parts = (*split, "total", *apart)
    columns = (
        *(Column(name, False) for name in ("method", "what")),
        *(Column(f"{part}, {unit}") for part in parts),
        Column("share of fp32, %"),
    )
    rows, notes = [], [CHOSEN.format(unit=unit, apart=APART.format(parts=section.apart) if apart else ""), SAVED]
    for variant, runs in section.variants.items():
        run = best_search(runs) or runs[0]
        row = _Row(variant, run, parts, form)
        rows += row.of_arithmetics(section.arithmetics)
        multipliers = _by_multiplier(run)
        rows += [row.of_multiplier(*multiplier) for multiplier in multipliers or ()]
        if multipliers is None:
            notes.append(f"Layers of {run.name} ({variant}): not recorded.")
    title = f"{units.noun(section.unit).capitalize()} split: {section.title}"
    return Table(f"{section.name}-energy", title, columns, tuple(rows), tuple(notes), 2)


class _Row:
    """Makes the rows of one network."""

    def __init__(self, variant: str, run: Run, parts: tuple[str, ...], form: Form) -> None:
        self.variant, self.run, self.parts, self.form = variant, run, parts, form
        self.costs = run.best_finalist.costs[run.record.cost]

    def of_arithmetics(self, names: tuple[str, ...]) -> list[tuple[Cell, ...]]:
        """A row per arithmetic, and one per step from each to the next."""
        by_name = {name: _parts(self.costs, name) for name in names if name in self.costs.values}
        rows = [self.cells(name, parts) for name, parts in by_name.items()]
        for before, after in zip(by_name, [*by_name][1:]):
            saved = {part: _difference(by_name[before].get(part), by_name[after].get(part)) for part in self.parts}
            rows.append(self.cells(f"saved {before} → {after}", saved))
        return rows

    def of_multiplier(self, multiplier: str, layers: int, saved: float) -> tuple[Cell, ...]:
        """The row of what one circuit saves."""
        return self.cells(f"saved by {multiplier} ({layers} layer{'s' * (layers > 1)})", {"total": saved})

    def cells(self, what: str, parts: _Parts) -> tuple[Cell, ...]:
        names, whole, total = (self.run.name,), self.costs.values.get(BASE), parts.get("total")
        numbers = (number(parts.get(part), self.form, names) for part in self.parts)
        share = nothing(names) if total is None or not whole else number(total / whole, PERCENT, names)
        return (words(self.variant, names), words(what, names), *numbers, share)


def _parts(costs: CostFigures, arithmetic: str) -> _Parts:
    apart = costs.apart.get(arithmetic, {})
    return {**costs.split.get(arithmetic, {}), "total": costs.values[arithmetic], **apart}


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def _by_multiplier(run: Run) -> list[tuple[str, int, float]] | None:
    """(Circuit, layers, what they save against exact int8), the most first; None where the layers were not recorded, or do
    not add up to the network.
    """
    finalist = run.best_finalist
    values = finalist.costs[run.record.cost].values
    totals = dict.fromkeys(("int8", "approximate"), 0.0)
    if not finalist.layers or not all(totals.keys() <= layer.costs.keys() for layer in finalist.layers):
        return None
    found: dict[str, tuple[int, float]] = {}
    for layer in finalist.layers:
        totals = {name: total + layer.costs[name] for name, total in totals.items()}
        if layer.multiplier:
            count, saved = found.get(layer.multiplier, (0, 0.0))
            found[layer.multiplier] = count + 1, saved + layer.costs["int8"] - layer.costs["approximate"]
    if not all(math.isclose(total, values.get(name, math.nan), rel_tol=CLOSE) for name, total in totals.items()):
        return None
    return sorted(((name, *values) for name, values in found.items()), key=lambda row: -row[2])
