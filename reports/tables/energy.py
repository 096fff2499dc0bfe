"""Where the energy of a network goes, and where the saving comes from."""

import math
from collections.abc import Mapping
from typing import Any

from reports.load import Run, Section
from reports.rows import ARITHMETICS
from reports.tables.results import best_search
from reports.tables.table import (
    NANOJOULES,
    PERCENT,
    Cell,
    Column,
    Table,
    measured,
    nothing,
    number,
    recorded,
    words,
)

PARTS = ("multiplications", "additions", "total", "memory")
CLOSE = 1e-6  # relative: layers that do not add up to their network are not believed
STEPS = (("fp32", "int8"), ("int8", "approximate"))

NOTES = (
    "Of each method the finalist of the highest validation accuracy over all its searches (the first run's where there is "
    "none). nJ per inference; memory traffic stands apart and is in no total. Shares are of the fp32 total.",
    "Saved fp32 → int8: what exact 8-bit integers save; int8 → approximate: what the circuits save on top, split by the "
    "circuit that computes a layer where the record lists its layers.",
)


def energy_split(section: Section) -> Table:
    """For each variant's best network: its energy by part and arithmetic, both steps of saving, and circuits' shares."""
    columns = (
        *(Column(name, False) for name in ("method", "what")),
        *(Column(f"{part}, nJ") for part in PARTS),
        Column("share of fp32, %"),
    )
    rows, notes = [], list(NOTES)
    for variant, runs in section.variants.items():
        run = best_search(runs) or runs[0]
        split = _split(run.best)
        rows += _rows(variant, run, split)
        multipliers = _by_multiplier(run, split)
        rows += [_multiplier_row(variant, run, split, *multiplier) for multiplier in multipliers or ()]
        if multipliers is None:
            notes.append(f"Layers of {run.name} ({variant}): not recorded.")
    return Table(f"{section.name}-energy", f"Energy split: {section.title}", columns, tuple(rows), tuple(notes), 2)


def _split(row: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Arithmetic → part → pJ, as the section's accounting has it."""
    names = {part: f"{{arithmetic}}_{part}_pj" for part in PARTS}
    names["total"] = f"{row['energy_model']}_{{arithmetic}}_pj"
    return {a: {part: measured(row, name.format(arithmetic=a)) for part, name in names.items()} for a in ARITHMETICS}


def _rows(variant: str, run: Run, split: dict) -> list[tuple[Cell, ...]]:
    whole = split["fp32"]["total"]
    rows = [_row(variant, run, arithmetic, split[arithmetic], whole) for arithmetic in ARITHMETICS]
    for before, after in STEPS:
        saved = {part: split[before][part] - split[after][part] for part in PARTS}
        rows.append(_row(variant, run, f"saved {before} → {after}", saved, whole))
    return rows


def _row(variant: str, run: Run, what: str, parts: Mapping[str, float], whole: float) -> tuple[Cell, ...]:
    names = (run.name,)
    cells = (number(parts.get(part), NANOJOULES, names) for part in PARTS)
    share = number(parts["total"] / whole, PERCENT, names) if whole else nothing(names)
    return (words(variant, names), words(what, names), *cells, share)


def _multiplier_row(
    variant: str, run: Run, split: dict, multiplier: str, layers: int, saved: float
) -> tuple[Cell, ...]:
    what = f"saved by {multiplier} ({layers} layer{'s' * (layers > 1)})"
    return _row(variant, run, what, {"total": saved}, split["fp32"]["total"])


def _by_multiplier(run: Run, split: dict) -> list[tuple[str, int, float]] | None:
    """(Circuit, layers, pJ saved against exact int8), the most first; None where the layers were not recorded, or do not
    add up to the network.
    """
    found: dict[str, tuple[int, float]] = {}
    totals = [0.0, 0.0]
    for layer in layers(run.record, int(run.best["finalist"])) or ():
        energies = [layer["int8_pj"], layer["approximate_pj"]]
        totals = [total + energy for total, energy in zip(totals, energies)]
        if layer["multiplier"] is not None:
            count, saved = found.get(layer["multiplier"], (0, 0.0))
            found[layer["multiplier"]] = count + 1, saved + energies[0] - energies[1]
    whole = [split[arithmetic]["total"] for arithmetic in ("int8", "approximate")]
    if not all(math.isclose(total, energy, rel_tol=CLOSE) for total, energy in zip(totals, whole)):
        return None
    return sorted(((name, *values) for name, values in found.items()), key=lambda row: -row[2])


def layers(record: dict, finalist: int) -> list[dict] | None:
    """The layers of finalist ``finalist``, from 1; None where a record has none, or not as they should be."""
    try:
        rows = record["finalists"][finalist - 1]["layers"]
    except (KeyError, IndexError, TypeError):
        return None
    return rows if isinstance(rows, list) and rows and all(map(_is_layer, rows)) else None


def _is_layer(row: Any) -> bool:
    energies = [recorded(row, f"{arithmetic}_pj") for arithmetic in ARITHMETICS]
    return isinstance(row, dict) and None not in energies and isinstance(row.get("multiplier", 0), str | None)
