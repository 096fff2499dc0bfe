"""The circuits that the runs searched: what is published of them beside what their truth tables say."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from evaluation.runs.record import Record
from reports.load import Loaded, Run
from reports.tables.shape import for_papers
from reports.tables.table import Cell, Column, Form, Table, nothing, number, words
from spaces.multipliers import catalogue
from spaces.multipliers.byte_factors import MOST_CHANNELS
from spaces.multipliers.multiplier import Multiplier, error_metrics
from spaces.multipliers.presentation import rank

HARDWARE = {"power_mw": "power, mW", "area_um2": "area, µm²", "delay_ns": "delay, ns"}
ERRORS = {
    "mae_pct": "MAE, %", "wce_pct": "WCE, %", "wcre_pct": "WCRE, %", "ep_pct": "EP, %", "mre_pct": "MRE, %", "mse": "MSE",
}  # fmt: skip

NOTES = (
    "Errors over all 65,536 pairs of operands, published beside recomputed from the truth table; MAE and WCE in % of 2^16. "
    "Power, area and delay as published, or estimated where a formula makes the circuit.",
    f"Rank: of the circuit's exact integer factors. Up to {MOST_CHANNELS} a convolution through it is one ordinary convolution "
    "with that many times the channels (int8 or float32), beyond or without factors (–) products are looked up (gather). "
    "Which of them ran was chosen by measured costs on the machine of the run; --engine is what the runs asked for.",
    "Layers: of all finalists whose records list them. A circuit that is not built in, or has another truth table than "
    "the built-in one of its name, is listed by name and key only; older records hold no keys.",
)


def multipliers(loaded: Loaded) -> Table:
    """A row per circuit that a run had to choose from, in the order of the library."""
    columns = [Column(name, False) for name in ("circuit", "key", "built in")]
    columns += [Column(name) for name in HARDWARE.values()]
    columns += [Column(f"{name}: {origin}") for name in ERRORS.values() for origin in ("published", "recomputed")]
    columns += [
        Column("rank"),
        Column("computed as", False),
        Column("--engine", False),
        Column("runs"),
        Column("layers"),
    ]
    users: dict[tuple[str, str | None], list[Run]] = {}
    for run in loaded.runs:
        for multiplier in _library(run.record):
            users.setdefault(multiplier, []).append(run)
    order = {name: at for at, name in enumerate(catalogue.names())}
    found = sorted(
        users, key=lambda multiplier: (order.get(multiplier[0], len(order)), multiplier[0], multiplier[1] or "")
    )
    computed = {run.name: _multipliers_of_layers(run) for run in loaded.runs}
    rows = [_row(*multiplier, users[multiplier], computed) for multiplier in found]
    table = Table("multipliers", "Multipliers", tuple(columns), tuple(rows), NOTES)
    errors = tuple(f"{ERRORS[name]}: recomputed" for name in ("mae_pct", "wce_pct", "ep_pct", "mre_pct"))
    return for_papers(table, (HARDWARE["power_mw"], HARDWARE["area_um2"], *errors, "rank", "layers"))


def _library(record: Record) -> Iterable[tuple[str, str | None]]:
    """(Name, key of the truth table) of each circuit that a run could choose.

    Where a record holds no key, that of the built-in circuit of the name; None where there is none.
    """
    tables = record.tables or {}
    for name in dict.fromkeys(tables if record.multipliers is None else record.multipliers):
        key, multiplier = tables.get(name), catalogue.find(name)
        yield name, key or (multiplier.key if multiplier else None)


def _row(name: str, key: str | None, runs: list[Run], computed: dict[str, Counter]) -> tuple[Cell, ...]:
    users = tuple(run.name for run in runs)
    multiplier = catalogue.find(name)
    if multiplier is not None and key != multiplier.key:
        multiplier = None  # another truth table under the same name
    engines = sorted({run.record.engine or "not recorded" for run in runs})
    return (
        words(name, users),
        Cell(key[:8], key, users) if key else nothing(users),
        words("yes" if multiplier else "no", users),
        *_figures(multiplier, users),
        words(", ".join(engines), users),
        Cell(str(len(runs)), len(runs), users),
        _layers(name, {run.name: computed[run.name] for run in runs}),
    )


def _figures(multiplier: Multiplier | None, users: tuple[str, ...]) -> list[Cell]:
    """Hardware, errors by origin, rank and what it implies; all empty for a circuit that is not built in."""
    if multiplier is None:
        return [nothing(users) for _ in range(len(HARDWARE) + 2 * len(ERRORS) + 2)]
    published = catalogue.published_figures(multiplier.name) if multiplier.name in catalogue.names() else {}
    recomputed = error_metrics(multiplier)
    cells = [_figure(getattr(multiplier, name), users) for name in HARDWARE]
    for name in ERRORS:
        cells += [_figure(published.get(name), users), _figure(getattr(recomputed, name), users)]
    factors = rank(multiplier)
    few = factors is not None and factors <= MOST_CHANNELS
    return [*cells, number(factors, Form(0), users), words("convolution" if few else "look-up", users)]


def _figure(value: Any, users: tuple[str, ...]) -> Cell:
    """Three significant digits of a figure; the CSV file has them all."""
    return number(value, Form(), users)


def _multipliers_of_layers(run: Run) -> Counter:
    """Circuit (None: products in fp32) → how many layers of the run's finalists it computes; empty: not recorded."""
    return Counter(layer.multiplier for finalist in run.record.finalists for layer in finalist.layers)


def _layers(name: str, computed: dict[str, Counter]) -> Cell:
    """How many layers of these runs' finalists the circuit computes."""
    known = {run: multipliers for run, multipliers in computed.items() if multipliers}
    if not known:
        return nothing()
    count = sum(multipliers[name] for multipliers in known.values())
    return Cell(f"{count:,}", count, tuple(known))
