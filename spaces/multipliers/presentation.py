"""Circuits as tables and lines of text."""

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table

from spaces.cli.numbers import three
from spaces.cli.tables import Column, Fitted
from spaces.multipliers.factors import factorise
from spaces.multipliers.files.columns import HARDWARE
from spaces.multipliers.files.datasheet import deviations
from spaces.multipliers.files.tables import Datasheet
from spaces.multipliers.multiplier import Multiplier, error_metrics
from spaces.multipliers.products import operand_table

_UNITS = {"power_mw": "mW", "area_um2": "µm²", "delay_ns": "ns"}


def rank(multiplier: Multiplier) -> int | None:
    """The number of exact integer factors of the truth table, None if there are none."""
    factors = factorise(operand_table(multiplier))
    return None if factors is None else factors.rank


def row(multiplier: Multiplier) -> dict[str, Any]:
    """Everything that is known about a circuit, by name: hardware figures, recomputed errors, rank and origin."""
    return (
        {name: getattr(multiplier, name) for name in ("name", "signed", *HARDWARE)}
        | asdict(error_metrics(multiplier))
        | {"rank": rank(multiplier)}
        | {name: getattr(multiplier, name) for name in ("technology", "source", "key")}
    )


def overview(rows: list[dict[str, Any]]) -> Group:
    """One line for each circuit, from its ``row``; the sources are listed below."""
    ranks = {"signed": 3, "µm²": 5, "ns": 6, "WCE %": 4, "MRE %": 1, "EP %": 7, "bias": 8, "rank": 2, "source": 9}
    headers = ("signed", *_UNITS.values(), "MAE %", "WCE %", "MRE %", "EP %", "bias", "rank", "source")
    columns = [Column("multiplier", left=True), *(Column(header, ranks.get(header, 0)) for header in headers)]
    table = Fitted("", columns)
    errors = ("mae_pct", "wce_pct", "mre_pct", "ep_pct", "bias")
    sources = list(dict.fromkeys(multiplier["source"] for multiplier in rows))
    for multiplier in rows:
        table.add(
            multiplier["name"],
            "yes" if multiplier["signed"] else "no",
            *(_number(multiplier[name]) for name in (*HARDWARE, *errors)),
            "–" if multiplier["rank"] is None else str(multiplier["rank"]),
            str(sources.index(multiplier["source"]) + 1),
        )
    notes = [f"source {number}: {source or 'unknown'}" for number, source in enumerate(sources, 1)]
    notes.append("MAE and WCE in % of 2^16, bias in units of the product; –: unknown; --csv has all digits")
    return Group(table, *notes)


def properties(multiplier: Multiplier) -> Table:
    """What is known about a circuit, its errors aside."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("circuit", f"{multiplier.name}, {'signed' if multiplier.signed else 'unsigned'}")
    for figure, unit in _UNITS.items():
        value = getattr(multiplier, figure)
        grid.add_row(figure.partition("_")[0], "–" if value is None else f"{value:g} {unit}")
    grid.add_row("technology", multiplier.technology or "–")
    grid.add_row("source", multiplier.source or "–")
    factors = rank(multiplier)
    grid.add_row("rank", "– (no exact integer factors)" if factors is None else str(factors))
    grid.add_row("key", multiplier.key)
    return grid


def comparison(sheets: list[Datasheet]) -> Fitted:
    """Every error figure of every circuit, recomputed and published."""
    columns = [Column("", left=True), Column("figure", left=True), Column("recomputed"), Column("published")]
    table = Fitted("", [*columns, Column("deviation", 1), Column("", left=True)])
    for sheet in sheets:
        found = deviations(sheet.multiplier, sheet.figures.row)
        for number, deviation in enumerate(found):
            table.add(
                sheet.multiplier.name if number == 0 else "",
                deviation.figure,
                f"{deviation.recomputed:.8g}",
                deviation.published or "–",
                "–" if deviation.amount is None else f"{deviation.amount:+.2g}",
                "" if deviation.within else "deviates",
                end=number == len(found) - 1,
            )
    return table


def in_a_line(sheet: Datasheet) -> str:
    """The recomputed error figures, the published ones in parentheses, and the power."""
    parts = [f"{sheet.multiplier.name} ({'signed' if sheet.multiplier.signed else 'unsigned'})"]
    labels = {"mae": "MAE", "wce": "WCE", "mre_pct": "MRE %", "ep_pct": "EP %", "bias": "bias"}
    for deviation in deviations(sheet.multiplier, sheet.figures.row):
        if deviation.figure in labels:
            published = "" if deviation.published is None else f" (published {deviation.published})"
            parts.append(f"{labels[deviation.figure]} {deviation.recomputed:.5g}{published}")
    power = sheet.multiplier.power_mw
    parts.append("power unknown" if power is None else f"power {power:g} mW")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "–" if value is None else three(value)
