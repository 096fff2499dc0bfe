"""Accuracy against cost: what was tested, and the fronts that the searches proposed, with their spread over seeds."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from evaluation.runs import units
from reports.figures import style
from reports.figures.picture import Picture
from reports.load import Run, Section
from reports.statistics import attainment, final_front, judged, reference

PANEL = 2.35  # inches, height of the axes
DECADES = 1.5  # costs that are further apart get a logarithmic axis
TITLES = {"tested": "finalists, trained in full", "judged": "proposals, judged by the harness"}
GREY = "#555555"
MARKS = {
    "tested": [
        style.Key("best of its run on validation", {"color": GREY, "marker": "o", "linestyle": ""}),
        style.Key("other finalist", {"color": GREY, "marker": "o", "markerfacecolor": "white", "linestyle": ""}),
    ],
    "judged": [
        style.Key("median over runs", {"color": GREY}),
        style.Key("from best to worst", {"facecolor": GREY, "alpha": 0.25, "linewidth": 0}),
    ],
}


@dataclass(frozen=True)
class Surfaces:
    """What the fronts of one variant attain: steps over costs, errors in 0..1, infinite where nothing is."""

    costs: np.ndarray
    best: np.ndarray
    median: np.ndarray
    worst: np.ndarray


@style.styled
def front(section: Section) -> Picture | None:
    """The finalists' test error, and beside it the judged validation fronts; None where there is neither."""
    looks = style.looks(section.variants)
    tested = section.finalists.dropna(subset=["test_accuracy_approximate"])
    surfaces = {
        variant: surface for variant, runs in section.variants.items() if (surface := surfaces_of(section, runs))
    }
    panels = [part for part, there in (("tested", len(tested)), ("judged", surfaces)) if there]
    if not panels:
        return None
    width = style.PAGE if len(panels) == 2 else style.COLUMN
    names = style.labels(section.variants)
    variants = style.Legend([style.line_key(names[v], look) for v, look in looks.items()], width - style.LEFT)
    each = width / len(panels)
    marks = [style.Legend(MARKS[panel], each - style.LEFT) for panel in panels]
    below = max(legend.height for legend in marks)
    frame = style.BOTTOM + PANEL + style.TOP
    figure = Figure((width, frame + below + variants.height), facecolor="white")
    variants.draw(figure, style.LEFT, frame + below + variants.height)
    for at, panel in enumerate(panels):
        left = style.LEFT + at * each
        marks[at].draw(figure, left, frame + below)
        axes = style.panel(figure, left, style.BOTTOM, each - style.LEFT - style.RIGHT, PANEL, TITLES[panel])
        if panel == "tested":
            _draw_finalists(axes, section, looks)
        else:
            _draw_surfaces(axes, surfaces, looks, section.unit)
    title = f"Error against {units.noun(section.unit)}"
    return Picture(f"{section.name}-front", title, _caption(section, panels, len(tested)), figure)


def surfaces_of(section: Section, runs: Sequence[Run]) -> Surfaces | None:
    """Best, median and worst attainment of these runs' last judged fronts; None where no front is worth anything."""
    scale = reference(section)
    found = attainment([final_front(run) for run in judged(runs)], scale) if scale else {}
    costs = np.unique(np.concatenate([points[:, 1] for points in found.values()] or [np.empty(0)]))
    if not len(costs):
        return None
    return Surfaces(costs, *(_lowest_error(found[level], costs) for level in ("best", "median", "worst")))


def _lowest_error(points: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """For each cost the lowest error among ``points`` (error, cost) that cost no more."""
    allowed = points[None, :, 1] <= costs[:, None]
    return np.where(allowed, points[None, :, 0], np.inf).min(axis=1, initial=np.inf)


def _draw_finalists(axes: Axes, section: Section, looks: dict[str, style.Look]) -> None:
    """A mark per finalist, filled where it is its run's best on validation."""
    frame, column = section.finalists, section.cost_column()
    unit, size = _set_costs(axes, frame[column], section.unit)
    for variant, look in looks.items():
        rows = frame[(frame["variant"] == variant) & frame["test_accuracy_approximate"].notna()]
        for best in (False, True):
            part = rows[rows["best"] == best]
            axes.plot(
                part[column] / size,
                100 * (1 - part["test_accuracy_approximate"].astype(float)),
                look.marker,
                color=look.colour,
                markerfacecolor=look.colour if best else "white",
                markeredgewidth=0.9,
                markersize=5.5 if best else 4.5,
                gid="best" if best else "other",
                zorder=4 if best else 3,
            )
    style.label(axes, f"{units.noun(unit)}, {unit} per inference", "test error, %, approximate arithmetic")
    axes.margins(0.06)
    style.grid(axes)


def _draw_surfaces(axes: Axes, surfaces: dict[str, Surfaces], looks: dict[str, style.Look], cost_unit: str) -> None:
    """Median attainment as steps, the band from the best to the worst behind it; what it runs off above is not shown."""
    costs = np.concatenate([surface.costs for surface in surfaces.values()])
    errors = np.concatenate([part for surface in surfaces.values() for part in (surface.best, surface.median)])
    lowest, highest = 100 * errors.min(), 100 * errors[np.isfinite(errors)].max()
    top = highest + 0.1 * (highest - lowest or 1.0)
    unit, size = _set_costs(axes, costs, cost_unit)
    left, right = _padded(axes, costs)
    for variant, surface in surfaces.items():
        look = looks[variant]
        at = np.append(surface.costs, right) / size
        # An error that is infinite, for nothing is attained at that cost, lies far above the axes.
        parts = (surface.best, surface.median, surface.worst)
        best, median, worst = (np.minimum(100 * np.append(part, part[-1]), top + 1e3) for part in parts)
        axes.fill_between(at, best, worst, step="post", color=look.colour, alpha=0.14, linewidth=0, gid="band")
        if not np.array_equal(best, worst):
            for edge in (best, worst):
                edges = look.line | {"marker": None, "linewidth": 0.5, "alpha": 0.7, "gid": "edge"}
                axes.plot([at[0], *at], [top + 1e3, *edge], drawstyle="steps-post", **edges)
        marked = [1 + corner for corner in _corners(surface.median)]
        axes.plot(
            [at[0], *at],
            [top + 1e3, *median],
            **look.line,
            drawstyle="steps-post",
            markersize=4,
            markevery=marked,
            gid="median",
        )
    style.label(axes, f"{units.noun(unit)}, {unit} per inference", "validation error, %, after brief training")
    axes.set(ylim=(max(0.0, lowest - 0.1 * (top - lowest)), top), xlim=(left / size, right / size))
    style.grid(axes)


def _corners(median: np.ndarray) -> list[int]:
    """Where a front has a lower error than at all smaller costs; a few of these, where there are many."""
    corners = np.flatnonzero(median < np.append(np.inf, median[:-1]))
    return [int(corners[at]) for at in style.every(len(corners))]


def _set_costs(axes: Axes, costs: Collection[float], unit: str) -> tuple[str, float]:
    """The unit of the axis, and how many of ``unit`` it has; logarithmic where the costs lie far apart."""
    lowest, highest = min(costs), max(costs)
    if lowest > 0 and math.log10(highest) - math.log10(lowest) > DECADES:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    return units.suited(unit, highest)


def _padded(axes: Axes, costs: Collection[float]) -> tuple[float, float]:
    """The ends of the axis, a little beyond the costs."""
    lowest, highest = min(costs), max(costs)
    if axes.get_xscale() == "log":
        return lowest / 1.15, highest * 1.15
    pad = 0.08 * (highest - lowest) or 0.05 * abs(highest) or 1.0
    return lowest - pad, highest + pad


def _caption(section: Section, panels: Sequence[str], tested: int) -> str:
    parts = [f"{section.title}."]
    if "tested" in panels:
        missing = len(section.finalists) - tested
        untested = f" ({missing} without a test are not shown)" if missing else ""
        parts.append(
            f"{'Left: t' if len(panels) == 2 else 'T'}est error in approximate arithmetic of "
            f"{style.count(tested, 'finalist')} of {style.count(len(section.runs), 'run')}, one mark each{untested}."
        )
    if "judged" in panels and (scale := reference(section)):  # without a reference no front is worth anything
        parts.append(
            f"{'Right: v' if len(panels) == 2 else 'V'}alidation fronts at the end of the search: above and right of "
            "the median curve lies what at least half of a variant's runs attain; the band reaches from what one run attains "
            f"to what all attain (empirical attainment function). {scale.sentence}"
        )
    single = [variant for variant, runs in section.variants.items() if len(runs) == 1]
    if single:
        names = ", ".join(style.labels(single).values())
        parts.append(f"One run only of {names}: its spread over seeds is unknown, and no difference is shown by it.")
    return " ".join(parts)
