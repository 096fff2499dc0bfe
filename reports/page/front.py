"""The data of the interactive front: a point per finalist, and how its variant is drawn."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from evaluation.runs import units
from reports.figures import style
from reports.load import Section
from reports.page.networks import Network, multipliers
from reports.page.sources import Sources, main_first
from reports.rows import saving_column
from reports.tables.table import measured

SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x",
    "h": "hexagon", "<": "triangle-left", ">": "triangle-right", "p": "pentagon", "*": "star", "d": "diamond-tall",
}  # fmt: skip
DASHES = ("", "7 3", "2 3", "7 3 2 3", "12 4", "12 4 2 4")
INK = "var(--ink)"  # of the page, whatever its ground
WORDS = {"approximate": "in approximate arithmetic", "int8": "in exact int8", "fp32": "in fp32"}
LONGEST = 300  # characters of a text in a hover label


def on_fronts(section: Section) -> set[tuple[str, int]]:
    """(Run, finalist) of what no other finalist of its variant beats in test accuracy and cost, both approximate."""
    found = set()
    frame = section.finalists.dropna(subset=["test_accuracy_approximate"])
    cost = section.cost_column()
    for _, members in frame.groupby("variant", sort=False):
        ordered = members.sort_values([cost, "test_accuracy_approximate"], ascending=[True, False])
        best = -math.inf
        for row in ordered.itertuples():
            if row.test_accuracy_approximate > best:
                best = row.test_accuracy_approximate
                found.add((row.run, int(row.finalist)))
    return found


def chart(
    section: Section, sources: Sources, networks: Mapping[tuple[str, int], Network], shown: Collection[tuple[str, int]]
) -> dict[str, Any]:
    """What the page's script draws of the finalists that are ``shown``; errors in %, costs in ``unit``.

    None where it was not measured.
    """
    looks = style.looks(section.variants)
    labels = style.labels(section.variants)
    unit, size = section.cost_unit
    return {
        "name": section.name,
        "cost": units.noun(unit),
        "unit": unit,
        "validation": True,
        "arithmetics": [{"name": name, "words": WORDS.get(name, name)} for name in main_first(section.arithmetics)],
        "variants": [
            {
                "name": labels[variant],
                "colour": page_colour(looks[variant]),
                "symbol": SYMBOLS.get(looks[variant].marker, "circle"),
                "dash": DASHES[at % len(DASHES)],
                "points": _points(section, variant, size, sources, {at: networks[at] for at in shown}),
            }
            for at, variant in enumerate(section.variants)
        ],
    }


def _points(
    section: Section, variant: str, size: float, sources: Sources, networks: Mapping[tuple[str, int], Network]
) -> list[dict[str, Any]]:
    points = []
    for run in section.variants[variant]:
        for row in run.finalists.to_dict("records"):
            number = int(row["finalist"])
            if (run.name, number) not in networks:
                continue
            finalist = run.record.finalists[number - 1]
            points.append(
                {
                    "network": networks[run.name, number].number,
                    "run": sources.anchor([run.name]),
                    "label": f"{_short(run.name)}, seed {run.seed}, finalist {number}",
                    "summary": _short(finalist.summary or finalist.key[:8]),
                    "circuits": _short(", ".join(multipliers(finalist.architecture)) or "not recorded"),
                    "validation": _error(row["validation_accuracy"]),
                    "tested": {n: _error(measured(row, f"test_accuracy_{n}")) for n in section.arithmetics},
                    "cost": {n: _scaled(measured(row, section.cost_column(n)), size) for n in section.arithmetics},
                    "saved": [_scaled(row[saving_column(section.cost, name)], 0.01) for name in ("fp32", "int8")],
                    "best": bool(row["best"]),
                }
            )
    return points


def page_colour(look: style.Look) -> str:
    """The colour of a variant; black ones are as light as the page's text in the dark."""
    return INK if look.colour == style.BLACK else look.colour


def _error(accuracy: float | None) -> float | None:
    return _scaled(None if accuracy is None else 1 - accuracy, 0.01)


def _scaled(value: float | None, size: float) -> float | None:
    return None if value is None or value != value else round(value / size, 6)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
