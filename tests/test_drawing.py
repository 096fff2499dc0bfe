"""Drawings of cell architectures: every label is there, none covers another, and files are reproducible."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from spaces.cells.architecture import CellArchitecture, Edge
from spaces.cells.building import expand_cells
from spaces.cells.drawing import COLOURS, draw
from spaces.cells.sites import CellConfig
from spaces.cells.space import CellSpace
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.registry import save_drawing
from tests.cells import uneven

LIBRARY = catalogue.library([name for name in catalogue.names() if name.startswith("mul8s_")])


def sample(seed: int, nodes: int = 4, scope: str = "all") -> CellArchitecture:
    return CellSpace(LIBRARY, CellConfig(nodes), scope).sample(np.random.default_rng(seed))


def per_position(seed: int, depth: int) -> CellArchitecture:
    """One cell per position, all different."""
    cells = [expand_cells(sample(seed + position).cells, depth)[position] for position in range(depth)]
    return replace(sample(seed), cells=tuple(cells))


def wide(seed: int) -> CellArchitecture:
    """Nodes of one and three edges, and in the normal cell one of five, all that it can have."""
    normal, reduction = uneven(sample(seed)).cells
    every = tuple(Edge(source, "sep_conv_5x5", "mul8s_1KV8") for source in range(5))
    return replace(sample(seed), cells=(replace(normal, nodes=(*normal.nodes[:3], every)), reduction))


def labels(figure: Figure, kind: str) -> list[Text]:
    return [text for text in figure.findobj(Text) if str(text.get_gid()).endswith(kind)]


def edges(architecture: CellArchitecture) -> list:
    return [edge for cell in architecture.cells for node in cell.nodes for edge in node]


def assert_labelled(architecture: CellArchitecture, figure: Figure) -> None:
    drawn = {kind: Counter(text.get_text() for text in labels(figure, kind)) for kind in ("operation", "multiplier")}
    assert drawn["operation"] == Counter(edge.operation for edge in edges(architecture))
    multipliers = [edge.multiplier.replace("mul8s_", "") for edge in edges(architecture) if edge.multiplier]
    assert drawn["multiplier"] == Counter(multipliers)


def area(box: Bbox, other: Bbox) -> float:
    """Square pixels that both boxes cover."""
    common = Bbox.intersection(box, other)
    return 0.0 if common is None else common.width * common.height


def assert_apart(figure: Figure) -> None:
    """No text covers another or a box that it is not inside of, no text leaves the figure."""
    figure.set_dpi(200)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    extents = [text.get_window_extent(renderer) for text in texts]
    for (text, box), (other, beside) in combinations(zip(texts, extents), 2):
        assert area(box, beside) == 0, f"{text.get_text()} covers {other.get_text()}"
    boxes = [patch.get_window_extent(renderer) for patch in figure.findobj(FancyBboxPatch)]
    for text, extent in zip(texts, extents):
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1, f"{text.get_text()} is cut off"
        assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1, f"{text.get_text()} is cut off"
        covered = sum(area(extent, box) for box in boxes)
        if text.get_gid():
            assert covered == 0, f"{text.get_text()} covers a node"
        elif text.get_text()[0] == "$" or text.get_text().isdigit():
            assert covered == pytest.approx(extent.width * extent.height), f"{text.get_text()} sticks out of its box"


@pytest.mark.parametrize("seed", range(15))
def test_every_edge_is_labelled_and_no_labels_touch(seed):
    architecture = sample(seed)
    figure = draw(architecture)
    assert_labelled(architecture, figure)
    assert_apart(figure)


@pytest.mark.parametrize("nodes", [1, 2, 6])
def test_other_numbers_of_nodes(nodes):
    architecture = sample(3, nodes)
    figure = draw(architecture)
    assert_labelled(architecture, figure)
    assert_apart(figure)


def test_nodes_of_other_numbers_of_edges():
    architecture = wide(0)
    assert {len(node) for cell in architecture.cells for node in cell.nodes} == {1, 2, 3, 5}
    figure = draw(architecture)
    assert_labelled(architecture, figure)
    assert_apart(figure)
    assert_enter_their_nodes(architecture, figure)
    places = [(panel, place[0]) for panel, place in verticals(figure)]
    assert len(set(places)) == len(places) == len(edges(architecture))


def verticals(figure: Figure) -> list[tuple[int, np.ndarray]]:
    """Panel, x, top and bottom of the vertical part of each edge."""
    found = []
    for panel, axes in enumerate(figure.axes):
        curves = [patch.get_path().vertices for patch in axes.findobj(PathPatch)]
        found += [(panel, np.array([curve[0, 0], curve[0, 1], curve[2, 1]])) for curve in curves]
    return found


def test_edges_do_not_cross_labels_or_run_along_each_other():
    for seed in range(15):
        figure = draw(sample(seed))
        places = [(panel, place[0]) for panel, place in verticals(figure)]
        assert len(set(places)) == len(places) == 16
        renderer = FigureCanvasAgg(figure).get_renderer()
        for text in labels(figure, "operation") + labels(figure, "multiplier"):
            extent = text.get_window_extent(renderer).transformed(text.axes.transData.inverted())
            for panel, (x, top, bottom) in verticals(figure):
                inside = extent.x0 <= x <= extent.x1 and extent.y0 <= top and bottom <= extent.y1
                assert not (figure.axes[panel] is text.axes and inside), f"an edge runs through {text.get_text()}"


def test_an_edge_starts_on_the_row_of_its_source_and_ends_in_its_node():
    assert_enter_their_nodes(sample(0), draw(sample(0)))


def assert_enter_their_nodes(architecture: CellArchitecture, figure: Figure) -> None:
    """In the first panel."""
    axes = figure.axes[0]
    boxes = [patch.get_bbox() for patch in axes.findobj(FancyBboxPatch)]
    middles = [(box.y0 + box.y1) / 2 for box in boxes]  # c_{k-2}, c_{k-1}, nodes, c_k
    curves = [patch.get_path().vertices for patch in axes.findobj(PathPatch)]
    expected = [(edge, node + 2) for node, pair in enumerate(architecture.cells[0].nodes) for edge in pair]
    assert len(curves) == len(expected)
    for curve, (edge, node) in zip(curves, expected):
        assert curve[0, 1] == pytest.approx(middles[edge.source])
        assert boxes[node].y0 < curve[-1, 1] < boxes[node].y1
        assert boxes[node].x0 - 0.1 < curve[-1, 0] < boxes[node].x0


def test_colour_tells_the_kind_of_operation():
    architecture = sample(1)
    patches = [patch for axes in draw(architecture).axes for patch in axes.findobj(PathPatch)]
    for patch, edge in zip(patches, edges(architecture), strict=True):
        family = "skip" if edge.operation == "skip_connect" else edge.operation.rsplit("_", 1)[0]
        assert to_hex(patch.get_edgecolor()).upper() == COLOURS[family]


def test_titles_name_the_multipliers_outside_the_edges():
    architecture = sample(2)
    texts = [text.get_text() for text in draw(architecture).findobj(Text)]
    multipliers = [
        name.replace("mul8s_", "") for name in (architecture.multiplier, *(c.multiplier for c in architecture.cells))
    ]
    assert f"{architecture.key[:8]} · scope all · stem and classifier: {multipliers[0]}" in texts
    assert f"normal cell · projections {multipliers[1]}" in texts
    assert f"reduction cell · projections {multipliers[2]}" in texts


def test_scope_separable_names_no_multiplier_outside_the_edges():
    architecture = sample(5, scope="separable")
    figure = draw(architecture)
    assert_labelled(architecture, figure)
    assert_apart(figure)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {f"{architecture.key[:8]} · scope separable", "normal cell", "reduction cell"} <= set(texts)


@pytest.mark.parametrize("depth", [3, 5])
def test_one_cell_per_position(depth):
    architecture = per_position(7, depth)
    figure = draw(architecture)
    assert len(figure.axes) == depth
    assert_labelled(architecture, figure)
    assert_apart(figure)
    texts = [text.get_text().split(" · ")[0] for text in figure.findobj(Text)]
    kinds = ["reduction" if cell.reduction else "normal" for cell in architecture.cells]
    assert {f"{position}: {kind} cell" for position, kind in enumerate(kinds)} <= set(texts)


def test_long_names_of_multipliers_get_the_room_they_need():
    data = sample(0).to_json()
    name = "a_multiplier_of_$my$_own_with_quite_a_long_name"
    for cell in data["cells"]:
        cell["nodes"] = [[[source, op, name] for source, op, _ in node] for node in cell["nodes"]]
    architecture = CellArchitecture.from_json({**data, "multiplier": name})
    figure = draw(architecture)
    assert_labelled(architecture, figure)
    assert_apart(figure)


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_saving_twice_gives_the_same_bytes(tmp_path, suffix, start):
    files = [tmp_path / f"{name}.{suffix}" for name in ("first", "second")]
    for file in files:
        save_drawing(sample(4), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(start)
    assert b"Date" not in files[0].read_bytes()


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown picture format '.gif'"):
        save_drawing(sample(4), tmp_path / "cells.gif")
