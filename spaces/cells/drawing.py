"""Draws an architecture's cells as graphs.

Every source has a row of its own, from which its output runs to the right as a rail; every node has a column, and its
edges come down from the rails and enter it side by side. Rows never share a label and columns never share a
vertical line, so that nothing overlaps whatever the wiring, and no layout has to be searched for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.patheffects import Normal, Stroke

from spaces.cells.architecture import Cell, CellArchitecture, Edge
from spaces.drawing import (
    ARROW,
    BLACK,
    BLUE,
    GREEN,
    HEADER,
    LINE,
    MARGIN,
    MULTIPLIER_SIZE,
    OPERATION_SIZE,
    PURPLE,
    TITLE_SIZE,
    VERMILION,
    add_box,
    multiplier_label,
    text_width,
)

COLOURS = {"max_pool": GREEN, "avg_pool": PURPLE, "skip": BLACK, "sep_conv": BLUE, "dil_conv": VERMILION}
OUTPUT = "#A0A0A0"

# Inches
BOX, BOX_HEIGHT, INPUT = 0.26, 0.54, 0.5  # BOX_HEIGHT of a node with one or two edges
INPUT_PITCH, NODE_GAP = 0.34, 0.18
FIRST_LANE = 0.14  # from the column's left side to the lowest edge's vertical
LANE_PITCH = 0.12  # from one vertical to the next
PORT_PITCH = 0.33  # between the heights at which edges enter a node
CORNER = 0.08


@dataclass(frozen=True)
class Layout:
    """Where things are in a panel whose nodes have up to so many ``edges``; the widest label and title in inches."""

    edges: tuple[int, ...]
    label: float
    title: float

    @property
    def lanes(self) -> float:
        """From a column's left side to its rightmost vertical."""
        return self.lane(0, max(2, *self.edges))

    @property
    def pitch(self) -> float:
        return self.lanes + self.label + 0.2 + ARROW + BOX

    @property
    def width(self) -> float:
        return 2 * MARGIN + max(self.title, INPUT + len(self.edges) * self.pitch + 0.4 + BOX)

    @property
    def height(self) -> float:
        return HEADER + 2 * INPUT_PITCH + sum(self.band(node) for node in range(len(self.edges))) + MARGIN

    def column(self, node: int) -> float:
        """The left side of a node's column, of which the node itself is the right end."""
        return MARGIN + INPUT + node * self.pitch

    def right(self, source: int) -> float:
        """Where the rail of a source begins."""
        return self.column(max(source - 1, 0))

    def row(self, source: int) -> float:
        if source < 2:
            return self.height - HEADER - (source + 0.5) * INPUT_PITCH
        node = source - 2
        above = sum(self.band(earlier) for earlier in range(node))
        return self.height - HEADER - 2 * INPUT_PITCH - above - self.band(node) / 2

    def band(self, node: int) -> float:
        """The height that a node has for itself in all panels."""
        return box_height(self.edges[node]) + NODE_GAP

    def lane(self, place: int, edges: int) -> float:
        """From the column's left side to the vertical of one of a node's ``edges``: the first one's is the rightmost."""
        return FIRST_LANE + (edges - 1 - place) * LANE_PITCH


def box_height(edges: int) -> float:
    """Of a node that so many edges enter."""
    return BOX_HEIGHT + max(0, edges - 2) * PORT_PITCH


def draw(architecture: CellArchitecture) -> Figure:
    """A panel per cell: its inputs, its nodes and its output from left to right.

    Edges are coloured by the kind of operation and labelled with the operation above the line and, where one governs
    it, the multiplier below. The figure is about 7 inches wide for 4 nodes, type between 6.5 and 9 points.
    """
    cells, heading, titles = architecture.cells, _heading(architecture), _titles(architecture.cells)
    widest = max(text_width(heading, TITLE_SIZE, "bold"), *(text_width(title, TITLE_SIZE) for title in titles))
    edges = tuple(max(map(len, nodes)) for nodes in zip(*(cell.nodes for cell in cells)))
    layout = Layout(edges, _label_width(cells), widest)
    columns = 1 if len(cells) < 4 else 2
    rows = -(-len(cells) // columns)
    width, height = columns * layout.width, rows * layout.height + HEADER
    figure = Figure((width, height), facecolor="white")
    for position, (cell, title) in enumerate(zip(cells, titles)):
        row, column = divmod(position, columns)
        bottom = height - HEADER - (row + 1) * layout.height
        axes = figure.add_axes(
            (column * layout.width / width, bottom / height, layout.width / width, layout.height / height),
            xlim=(0, layout.width),
            ylim=(0, layout.height),
        )
        axes.axis("off")
        axes.text(MARGIN, layout.height - HEADER / 2, title, size=TITLE_SIZE, va="center", parse_math=False)
        _draw_cell(axes, cell, layout, f"cell{position}")
    at = (MARGIN / width, 1 - HEADER / 2 / height)
    figure.text(*at, heading, size=TITLE_SIZE, weight="bold", va="center", parse_math=False)
    return figure


def _heading(architecture: CellArchitecture) -> str:
    heading = f"{architecture.key[:8]} · scope {architecture.scope}"
    if architecture.multiplier:
        heading += f" · stem and classifier: {multiplier_label(architecture.multiplier)}"
    return heading


def _titles(cells: Sequence[Cell]) -> list[str]:
    repeated = [cell.reduction for cell in cells] == [False, True]
    titles = []
    for position, cell in enumerate(cells):
        title = f"{'reduction' if cell.reduction else 'normal'} cell"
        title = title if repeated else f"{position}: {title}"
        titles.append(f"{title} · projections {multiplier_label(cell.multiplier)}" if cell.multiplier else title)
    return titles


def _label_width(cells: Sequence[Cell]) -> float:
    """Inches that the longest label needs; multipliers of the user's own may have any name."""
    edges = [edge for cell in cells for node in cell.nodes for edge in node]
    texts = {(edge.operation, OPERATION_SIZE) for edge in edges}
    texts |= {(multiplier_label(edge.multiplier), MULTIPLIER_SIZE) for edge in edges if edge.multiplier}
    return max(text_width(text, size) for text, size in texts)


def _draw_cell(axes: Axes, cell: Cell, layout: Layout, name: str) -> None:
    for source in range(2):
        _box(axes, layout.right(source) - INPUT, layout.row(source), INPUT, 0.22, f"$c_{{k-{2 - source}}}$")
    for index, node in enumerate(cell.nodes):
        _box(axes, layout.right(index + 2) - BOX, layout.row(index + 2), BOX, box_height(len(node)), str(index))
        for place in range(len(node)):
            _draw_edge(axes, layout, index, node, place, f"{name}-node{index}-edge{place}")
    _draw_rails(axes, cell, layout)


def _draw_edge(axes: Axes, layout: Layout, node: int, edges: tuple[Edge, ...], place: int, name: str) -> None:
    """One of the node's ``edges``, from the source's rail down and into the node.

    The edge from an earlier source takes a lane further right and a higher port: then neither the verticals nor the rails
    that lead to them cross.
    """
    edge = edges[place]
    colour = next(colour for family, colour in COLOURS.items() if edge.operation.startswith(family))
    x, top = layout.column(node) + layout.lane(place, len(edges)), layout.row(edge.source)
    y = layout.row(node + 2) + ((len(edges) - 1) / 2 - place) * PORT_PITCH
    end = layout.right(node + 2) - BOX
    curve = Curve(
        [(x, top), (x, y + CORNER), (x, y), (x + CORNER, y), (end - ARROW / 2, y)],
        [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO],
    )
    halo = [Stroke(linewidth=4.5, foreground="white"), Normal()]  # lifts the vertical off the rails that it crosses
    axes.add_patch(PathPatch(curve, fill=False, edgecolor=colour, linewidth=1.5, path_effects=halo, zorder=3))
    axes.plot(end - ARROW / 2, y, ">", color=colour, markersize=72 * ARROW, markeredgewidth=0, zorder=4)
    axes.plot(x, top, "o", color=colour, markersize=4.5, markeredgewidth=0, zorder=4)
    middle = (layout.column(node) + layout.lanes + end - ARROW) / 2
    axes.text(middle, y + 0.025, edge.operation, size=OPERATION_SIZE, ha="center", va="bottom", gid=f"{name}-operation")
    if edge.multiplier:
        text = multiplier_label(edge.multiplier)
        axes.text(
            middle,
            y - 0.03,
            text,
            size=MULTIPLIER_SIZE,
            ha="center",
            va="top",
            gid=f"{name}-multiplier",
            parse_math=False,
        )


def _draw_rails(axes: Axes, cell: Cell, layout: Layout) -> None:
    """Each source's rail up to its last reader, and from every node on to the output."""
    output = layout.width - MARGIN - BOX
    top = layout.row(2) + box_height(layout.edges[0]) / 2
    bottom = layout.row(len(cell.nodes) + 1) - box_height(layout.edges[-1]) / 2
    _box(axes, output, (top + bottom) / 2, BOX, top - bottom, "$c_k$")
    for source in range(len(cell.nodes) + 2):
        start, y = layout.right(source), layout.row(source)
        readers = [
            layout.column(index) + layout.lane(place, len(node))
            for index, node in enumerate(cell.nodes)
            for place, edge in enumerate(node)
            if edge.source == source
        ]
        end = max(readers, default=start)
        axes.plot([start, end], [y, y], color=LINE, linewidth=1.2, zorder=2)
        if source >= 2:
            axes.plot([end, output - ARROW], [y, y], "--", color=OUTPUT, linewidth=1, zorder=1)
            axes.plot(output - ARROW / 2, y, ">", color=OUTPUT, markersize=72 * ARROW, markeredgewidth=0)


def _box(axes: Axes, left: float, middle: float, width: float, height: float, text: str) -> None:
    add_box(axes, left, middle, width, height)
    axes.text(left + width / 2, middle, text, size=TITLE_SIZE, ha="center", va="center", zorder=6)
