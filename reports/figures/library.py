"""The built-in multipliers: what they save against what they cost in exactness."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox

from reports.figures import style
from reports.figures.multipliers import mae_percent
from reports.figures.picture import Picture
from spaces.drawing import BLUE, multiplier_label, text_width
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier

PANEL = 2.5  # inches, height of the axes
LETTER, MARK = 0.1, 0.09  # inches, height of a label and size of a mark
DISTANCES = (0.05, 0.1, 0.16, 0.24, 0.34)  # inches between a mark and its label, the nearest that is free
LEADER = 0.15  # a label that is further away gets a line to its mark


@style.styled
def power_error(used: Sequence[Multiplier]) -> Picture:
    """The circuits of the library, and those in use: relative power against mean absolute error, filled where used."""
    library = [catalogue.get(name) for name in catalogue.names()]
    multipliers = library + [
        multiplier for multiplier in used if multiplier not in library and multiplier.power_mw is not None
    ]
    fills = {"used by a finalist": BLUE, "not used": "white"}
    mark = {"color": BLUE, "marker": "o", "linestyle": ""}
    legend = style.Legend(
        [style.Key(text, mark | {"markerfacecolor": fill}) for text, fill in fills.items()], style.COLUMN
    )
    frame = style.BOTTOM + PANEL + 0.1
    figure = Figure((style.COLUMN, frame + legend.height), facecolor="white")
    left = style.LEFT + 0.06
    axes = style.panel(figure, left, style.BOTTOM, style.COLUMN - left - 0.2, PANEL)
    errors = [mae_percent(multiplier) for multiplier in multipliers]
    smallest = min(error for error in errors if error)
    axes.set_yscale("symlog", linthresh=smallest, linscale=0.5)
    points = []
    for multiplier, error in zip(multipliers, errors):
        power = 100 * catalogue.power_ratio(multiplier)
        fill = BLUE if multiplier in used else "white"
        axes.plot(power, error, "o", color=BLUE, markerfacecolor=fill, gid=multiplier.name)
        points.append((power, error, multiplier_label(multiplier.name)))
    style.label(axes, "power, % of the exact circuit's", "mean absolute error, % of 2¹⁶")
    axes.set(xlim=(0, 112), ylim=(-0.4 * smallest, 3 * max(errors)))
    axes.yaxis.set_major_locator(FixedLocator([0, *(10.0**e for e in range(-3, 2))]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    style.grid(axes)
    place_labels(axes, points)
    legend.draw(figure, left, frame + legend.height)
    caption = (
        f"The {len(multipliers)} circuits with a power figure that the suite brings or a finalist uses: power relative to the "
        "exact circuit of the same library, published or, for broken arrays by formula, estimated, against the mean "
        "absolute error over all 65,536 operand pairs, recomputed from the truth tables. Names without the prefix mul8s_. "
        "The axis of errors is logarithmic, but linear below the smallest error."
    )
    return Picture("circuits-power-error", "Power and error of the multipliers", caption, figure)


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Label every point (x, y, text) where its text covers neither a mark nor another text, as near as may be."""
    inch = axes.get_figure().dpi
    marks = [tuple(axes.transData.transform((x, y)) / inch) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - MARK / 2, y - MARK / 2, MARK, MARK) for x, y in marks]
    frame = Bbox(axes.get_window_extent().get_points() / inch)
    for (x, y, text), mark in zip(points, marks):
        size = (text_width(text, style.SMALL), LETTER)
        offsets = [_offset(size, distance, eighth) for distance in DISTANCES for eighth in range(8)]
        offset = min(offsets, key=lambda offset: _covered(_box(mark, offset, size), taken, frame))
        taken.append(_box(mark, offset, size))
        far = math.hypot(max(abs(offset[0]) - size[0] / 2, 0), max(abs(offset[1]) - size[1] / 2, 0)) > LEADER
        axes.annotate(
            style.plain(text),
            (x, y),
            (72 * offset[0], 72 * offset[1]),
            textcoords="offset points",
            size=style.SMALL,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#707070"} if far else None,
        )


def _offset(size: tuple[float, float], distance: float, eighth: int) -> tuple[float, float]:
    """From a mark to the middle of its label, in one of eight directions."""
    angle = eighth * math.pi / 4
    across, up = round(math.cos(angle), 6), round(math.sin(angle), 6)
    return across * distance + (across > 0) * size[0] / 2 - (across < 0) * size[0] / 2, up * distance + (up > 0) * size[
        1
    ] / 2 - (up < 0) * size[1] / 2


def _box(mark: tuple[float, float], offset: tuple[float, float], size: tuple[float, float]) -> Bbox:
    return Bbox.from_bounds(mark[0] + offset[0] - size[0] / 2, mark[1] + offset[1] - size[1] / 2, *size)


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Square inches of other things that a label would cover, or of itself that would lie outside of the frame."""
    areas = [common.width * common.height for other in taken if (common := Bbox.intersection(box, other))]
    inside = Bbox.intersection(box, frame)
    return round(math.fsum(areas) + box.width * box.height - (inside.width * inside.height if inside else 0.0), 9)
