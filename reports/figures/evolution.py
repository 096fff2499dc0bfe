"""How a search by gradient makes up its mind: probabilities of operations and circuits, entropies and skips by epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures import style
from reports.figures.best import only_first
from reports.figures.picture import Picture
from reports.load import Run, Section
from spaces.registry import SPACES

PANEL = 1.5  # inches, height of the axes
MOST_CURVES = 13  # in one panel: as many as there are markers
MOST_BANDS = 8  # more would hide one another


@dataclass(frozen=True)
class Curve:
    """One diagnostic over epochs: median, lowest and highest of the runs that recorded it."""

    epochs: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curves_of(runs: Sequence[Run]) -> dict[str, Curve]:
    """Every numeric diagnostic of the runs' search, by name; what is no finite number was not recorded."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for name, epoch, value in _values(run):
            found.setdefault(name, {}).setdefault(epoch, []).append(value)
    return {name: _curve(by_epoch) for name, by_epoch in found.items()}


def _values(run: Run) -> Iterator[tuple[str, int, float]]:
    for line in run.history:
        diagnostics = line.get("diagnostics")
        step = line.get("step")
        if line.get("stage") == "search" and type(step) is int and isinstance(diagnostics, dict):
            for name, value in diagnostics.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100:
                    yield name, step, float(value)


def _curve(by_epoch: dict[int, list[float]]) -> Curve:
    epochs = sorted(by_epoch)
    columns = ([reduce(by_epoch[epoch]) for epoch in epochs] for reduce in (np.median, min, max))
    return Curve(np.array(epochs), *map(np.array, columns))


def evolution(section: Section, most: int) -> Iterator[Picture]:
    """A figure for each of the first ``most`` variants whose histories hold probabilities of operations."""
    names = style.labels(section.variants)
    drawn = 0
    for variant, runs in section.variants.items():
        curves = curves_of(runs)
        if drawn == most or not any(name.startswith("alpha/") for name in curves):
            continue
        drawn += 1
        recorded = [run for run in runs if any(name.startswith("alpha/") for name, _, _ in _values(run))]
        caption = (
            f"{names[variant]} on {section.title}: mean probability of every operation over the edges of a cell and of every "
            "circuit over its sites, by epoch of the search; entropies as a share of the largest possible; skip connections "
            f"in the network that would be derived. Median and range over {style.count(len(recorded), 'run')}"
            f" of {len(runs)}."
        )
        if len(recorded) > 1 and any(len(part) > MOST_BANDS for part in _panels(curves).values()):
            caption += f" Panels of more than {MOST_BANDS} curves show medians only."
        if len(recorded) == 1:
            caption += " One run shows no spread over seeds."
        hidden = sum(max(0, len(part) - MOST_CURVES) for part in _panels(curves).values())
        if hidden:
            caption += f" In each panel the {MOST_CURVES} that rise highest are drawn, {hidden} are not."
        title = f"Search of {names[variant]} by epoch"
        caption += only_first(section, most)
        yield Picture(f"{section.name}-evolution-{drawn}", title, caption, _draw(curves, _operations(runs)))


def _operations(runs: Sequence[Run]) -> tuple[str, ...]:
    """All operations of the space that was searched, in the order of its legends; none of a space not known here."""
    space = runs[0].record.space
    return SPACES[space].operation_names if space in SPACES else ()


def _panels(curves: dict[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Curves by panel and by what they are of."""
    prefixes = {"normal": "alpha/normal/", "reduction": "alpha/reduction/", "circuits": "beta/"}
    panels = {
        panel: {name.removeprefix(prefix): curve for name, curve in curves.items() if name.startswith(prefix)}
        for panel, prefix in prefixes.items()
    }
    panels["entropy"] = {
        f"of {w}": curves[f"{n}_entropy"] for w, n in (("α", "alpha"), ("β", "beta")) if f"{n}_entropy" in curves
    }
    panels["skips"] = {cell: curves[f"skips_{cell}"] for cell in ("normal", "reduction") if f"skips_{cell}" in curves}
    return panels


def _highest(part: dict[str, Curve]) -> dict[str, Curve]:
    kept = sorted(part, key=lambda name: -part[name].median.max())[:MOST_CURVES]
    return {name: curve for name, curve in part.items() if name in kept}


@dataclass(frozen=True)
class Place:
    """Where a panel goes: inches from the figure's left side, inches of width; in the upper or the lower row."""

    left: float
    width: float
    upper: bool
    title: str
    ylabel: str


HALF = style.PAGE / 2
PLACES = {
    "normal": Place(0, HALF, True, "operations, normal cell", "mean probability"),
    "reduction": Place(HALF, HALF, True, "operations, reduction cell", ""),
    "circuits": Place(0, HALF, False, "circuits", "mean probability"),
    "entropy": Place(HALF, HALF / 2, False, "relative entropy", ""),
    "skips": Place(1.5 * HALF, HALF / 2, False, "skip connections", ""),
}


@style.styled
def _draw(curves: dict[str, Curve], operations: Sequence[str]) -> Figure:
    """Operations above, circuits, entropies and skips below, each row under its legends."""
    panels = {name: _highest(part) for name, part in _panels(curves).items()}
    looks = _looks(panels, operations)
    keys = {"operations": _keys({**looks["normal"], **looks["reduction"]}, style.labels)}
    keys |= {"circuits": _keys(looks["circuits"], style.multiplier_labels)}
    keys |= {name: _keys(looks[name], style.labels) for name in ("entropy", "skips")}
    above = style.Legend(keys.pop("operations"), style.PAGE - style.LEFT)
    between = {name: style.Legend(part, PLACES[name].width - style.LEFT) for name, part in keys.items()}
    row = style.TOP + PANEL + style.BOTTOM
    lower = row + max(legend.height for legend in between.values())
    figure = Figure((style.PAGE, lower + row + above.height), facecolor="white")
    above.draw(figure, style.LEFT, lower + row + above.height)
    for name, legend in between.items():
        legend.draw(figure, PLACES[name].left + style.LEFT, row + legend.height)
    for name, part in panels.items():
        if part:
            place = PLACES[name]
            bottom, width = style.BOTTOM + lower * place.upper, place.width - style.LEFT - style.RIGHT
            axes = style.panel(figure, place.left + style.LEFT, bottom, width, PANEL, place.title)
            axes.set_gid(name)
            _draw_panel(axes, part, looks[name], place)
    return figure


def _keys(looks: dict[str, style.Look], label: Callable[..., dict[str, str]]) -> list[style.Key]:
    return [style.line_key(text, looks[name], markersize=3.5) for name, text in label(looks).items()]


def _looks(panels: dict[str, dict[str, Curve]], known: Sequence[str]) -> dict[str, dict[str, style.Look]]:
    """The looks of every panel's curves in the order of its legend; an operation has one look in both cells."""
    found = {*panels["normal"], *panels["reduction"]}
    operations = style.looks([*known, *sorted(found.difference(known))])
    pair = ("of α", "of β", "normal", "reduction")
    return {
        "normal": {name: look for name, look in operations.items() if name in panels["normal"]},
        "reduction": {name: look for name, look in operations.items() if name in panels["reduction"]},
        "circuits": style.multiplier_looks(panels["circuits"]),
        "entropy": {name: look for name, look in style.looks(pair[:2]).items() if name in panels["entropy"]},
        "skips": {name: look for name, look in style.looks(pair[2:]).items() if name in panels["skips"]},
    }


def _draw_panel(axes: Axes, part: dict[str, Curve], looks: dict[str, style.Look], place: Place) -> None:
    for name, look in looks.items():
        curve = part[name]
        if len(looks) <= MOST_BANDS:
            axes.fill_between(
                curve.epochs, curve.low, curve.high, color=look.colour, alpha=0.12, linewidth=0, gid="range"
            )
        axes.plot(
            curve.epochs,
            curve.median,
            **look.line,
            linewidth=1.1,
            markersize=3.2,
            markevery=max(1, len(curve.epochs) // 8),
            gid=style.plain(name),
        )
    last = max(int(curve.epochs[-1]) for curve in part.values())
    first = min(int(curve.epochs[0]) for curve in part.values())
    pad = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - pad, last + pad)
    style.label(axes, "epoch", place.ylabel)
    tops = {"relative entropy": 1.05, "skip connections": max(1.0, axes.get_ylim()[1])}
    top = tops.get(place.title, axes.get_ylim()[1])
    axes.set_ylim(-0.03 * top, top)  # a curve at 0 keeps the whole of its markers
    axes.xaxis.set_major_locator(MaxNLocator(6 if place.width == HALF else 4, integer=True, min_n_ticks=1))
    if place.title == "skip connections":
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.grid(axes)
