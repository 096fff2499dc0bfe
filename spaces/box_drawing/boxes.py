"""Draws a graph of operations: a box for each, from what comes in above to what goes out below."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.patheffects import Normal, Stroke

from spaces.box_drawing.layout import Layout, Point, arrange
from spaces.drawing import (
    ARROW,
    BLUE,
    FILL,
    GREEN,
    HEADER,
    MARGIN,
    MULTIPLIER_SIZE,
    OPERATION_SIZE,
    ORANGE,
    OUTLINE,
    PURPLE,
    SKY,
    TITLE_SIZE,
    VERMILION,
    add_box,
    multiplier_label,
    text_width,
)

COLOURS = {"conv": BLUE, "res": VERMILION, "max_pool": GREEN, "avg_pool": PURPLE, "sum": ORANGE, "concat": SKY}
TINT = 0.3  # share of the colour in a box's filling: black text on it stays readable

# Inches
ONE_LINE, TWO_LINES, PADDING = 0.23, 0.36, 0.08
LINES = 0.075  # from a box's middle to the middle of its upper and lower line of text
CORNER = 0.06


def draw_boxes(heading: str, labels: Sequence[tuple[str, str]], sources: Sequence[tuple[int, ...]]) -> Figure:
    """A box per operation, coloured by its kind, with up to two arrows each from the boxes that it reads.

    ``labels``: of every box, operation and multiplier, or "" where none governs it; ``sources``: which boxes it reads, all
    of them before it; a box that reads a source twice has two arrows from there. Deep networks are folded into bands side
    by side, so that up to about 40 boxes fit on a page. Type is between 6.5 and 9 points.
    """
    labels = [(operation, multiplier_label(multiplier)) for operation, multiplier in labels]
    texts = [(function, OPERATION_SIZE) for function, _ in labels] + [(name, MULTIPLIER_SIZE) for _, name in labels]
    box = max(text_width(*text) for text in texts) + 2 * PADDING
    layout = arrange(sources, box, [TWO_LINES if multiplier else ONE_LINE for _, multiplier in labels])
    width = max(layout.width, text_width(heading, TITLE_SIZE, "bold")) + 2 * MARGIN
    height = HEADER + layout.height + MARGIN
    figure = Figure((width, height), facecolor="white")
    left, top = -(width - layout.width) / 2, -HEADER
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, left + width), ylim=(top + height, top))
    axes.axis("off")
    axes.text(left + MARGIN, -HEADER / 2, heading, size=TITLE_SIZE, weight="bold", va="center", parse_math=False)
    for index, (function, multiplier) in enumerate(labels):
        _draw_box(axes, layout, index, function, multiplier)
        _draw_arrows(axes, layout.arrows(index), f"box{index}")
    return figure


def _draw_box(axes: Axes, layout: Layout, index: int, function: str, multiplier: str) -> None:
    x, y = layout.centre(index)
    colour = next((colour for kind, colour in COLOURS.items() if function.startswith(kind)), None)
    fill = tuple(1 - TINT * (1 - part) for part in to_rgb(colour)) if colour else FILL
    add_box(axes, x - layout.box / 2, y, layout.box, layout.heights[index], fill, colour or OUTLINE)
    style = {"ha": "center", "va": "center_baseline", "zorder": 6, "parse_math": False}
    upper = y - LINES if multiplier else y
    axes.text(x, upper, function, size=OPERATION_SIZE, gid=f"box{index}-function", **style)
    if multiplier:
        axes.text(x, y + LINES, multiplier, size=MULTIPLIER_SIZE, gid=f"box{index}-multiplier", **style)


def _draw_arrows(axes: Axes, arrows: list[list[Point]], name: str) -> None:
    """All arrows of one source as a single path, whose white halo lifts it off the lines that it crosses."""
    if not arrows:
        return
    curves = [_rounded([*arrow[:-1], (arrow[-1][0], arrow[-1][1] - ARROW / 2)]) for arrow in arrows]
    halo = [Stroke(linewidth=4, foreground="white"), Normal()]
    path = Curve.make_compound_path(*curves)
    axes.add_patch(PathPatch(path, fill=False, ec=OUTLINE, lw=1, path_effects=halo, gid=f"{name}-arrows", zorder=3))
    for x, y in (arrow[-1] for arrow in arrows):
        axes.plot(x, y - ARROW / 2, "v", color=OUTLINE, markersize=72 * ARROW, markeredgewidth=0, zorder=4)


def _rounded(points: list[Point]) -> Curve:
    """A line with rounded corners."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:]):
        vertices += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    return Curve([*vertices, points[-1]], [*codes, Curve.LINETO])


def _towards(corner: Point, end: Point) -> Point:
    """The point ``CORNER`` inches from a corner on a vertical or horizontal line, but at most halfway to its end."""
    length = abs(end[0] - corner[0]) + abs(end[1] - corner[1])
    share = min(CORNER / length, 0.5)
    return corner[0] + share * (end[0] - corner[0]), corner[1] + share * (end[1] - corner[1])
