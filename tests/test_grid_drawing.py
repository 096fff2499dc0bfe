"""Drawings of grid architectures: every label is there, nothing covers anything else, and files are reproducible."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve
from matplotlib.text import Text

from spaces.box_drawing.boxes import COLOURS
from spaces.box_drawing.layout import PAGE
from spaces.box_drawing.plan import Plan
from spaces.drawing import ARROW
from spaces.errors import InputError
from spaces.grid.architecture import GridArchitecture
from spaces.grid.drawing import draw
from spaces.grid.space import GridConfig, GridSpace
from spaces.multipliers import catalogue
from spaces.registry import save_drawing

LIBRARY = catalogue.library([name for name in catalogue.names() if name.startswith("mul8s_")])
LONG = "a_multiplier_of_$my$_own_with_quite_a_long_name"


def sample(seed: int, rows: int = 5, columns: int = 30, levels_back: int = 10, merges: float = 0) -> GridArchitecture:
    """A uniform draw, in which that share of all nodes is made a sum: then the graph is more entangled."""
    rng = np.random.default_rng(seed)
    drawn = GridSpace(LIBRARY, GridConfig(rows, columns, levels_back)).sample(rng)
    nodes = [replace(node, function="sum") if rng.random() < merges else node for node in drawn.nodes]
    return replace(drawn, nodes=tuple(nodes))


def of_size(least: int) -> GridArchitecture:
    """The first draw with so many active nodes; short arrows make for many."""
    return next(drawn for drawn in (sample(seed, levels_back=3) for seed in range(100)) if len(drawn.active) >= least)


@cache
def examples() -> dict[str, GridArchitecture]:
    found = {f"draw {seed}": sample(seed) for seed in range(8)}
    found |= {f"1×1 {seed}": sample(seed, 1, 1, 1) for seed in range(3)}
    found |= {f"2×3 {seed}": sample(seed, 2, 3, 2) for seed in range(6)}
    found |= {f"chain of {columns}": sample(0, 1, columns, 1) for columns in (2, 12, 40)}
    found |= {f"entangled {seed}": sample(seed, 3, 12, 5, merges=0.5) for seed in range(8)}
    found |= {f"entangled and deep {seed}": sample(seed, 2, 30, 6, merges=0.5) for seed in (3, 16)}
    found["55 nodes"] = sample(0, 4, 30, 2, merges=0.3)
    found["60 nodes"] = sample(9, 5, 30, 2, merges=0.4)
    found |= {f"at least {least}": of_size(least) for least in (30, 45)}
    return found


NAMES = sorted(examples())


@cache
def drawing(name: str) -> Figure:
    return draw(examples()[name])


def reads(architecture: GridArchitecture) -> list[tuple[int, ...]]:
    """The sources of all boxes, from the image to the classifier."""
    return [(), *(node.sources for node in architecture.active), (len(architecture.active),)]


def own(text: Text) -> int | None:
    """The box that a text labels."""
    return int(text.get_gid().split("-")[0].removeprefix("box")) if text.get_gid() else None


def texts(figure: Figure, kind: str) -> dict[int, str]:
    """Boxes → their labels of a kind."""
    labels = (text for text in figure.findobj(Text) if str(text.get_gid()).endswith(kind))
    return {own(text): text.get_text() for text in labels}


def boxes(figure: Figure) -> np.ndarray:
    """Left, top, right and bottom in the axes' unit, the inch, with y downwards; from the image to the classifier."""
    return np.array([patch.get_bbox().extents for patch in figure.axes[0].findobj(FancyBboxPatch)])


def arrows(figure: Figure) -> dict[int, list[np.ndarray]]:
    """Boxes → the corners of the lines that leave them, up to the middle of the arrow's head."""
    found = {}
    for patch in figure.axes[0].findobj(PathPatch):
        path = patch.get_path()
        starts = [*np.flatnonzero(path.codes == Curve.MOVETO), len(path.codes)]
        source = int(patch.get_gid().removeprefix("box").removesuffix("-arrows"))
        found[source] = [path.vertices[start:end] for start, end in pairwise(starts)]
    return found


def pieces(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Left, top, right and bottom of every straight piece of an arrow, and the box that the arrow leaves."""
    found = [
        (source, *np.minimum(a, b), *np.maximum(a, b))
        for source, lines in arrows(figure).items()
        for line in lines
        for a, b in pairwise(line)
    ]
    return np.array(found)[:, 1:], np.array(found)[:, 0]


def inside(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    return (inner[..., :2] >= outer[..., :2] - 1e-6).all(-1) & (inner[..., 2:] <= outer[..., 2:] + 1e-6).all(-1)


def meet(some: np.ndarray, others: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Which of some rectangles come nearer than ``margin`` to which others."""
    some, others = some[:, None], others[None]
    overlap = np.minimum(some[..., 2:], others[..., 2:]) - np.maximum(some[..., :2], others[..., :2])
    return (overlap > -margin).all(-1)


def extents(figure: Figure) -> tuple[list[Text], np.ndarray]:
    """Texts, and what they cover in the axes' unit."""
    figure.set_dpi(200)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    to_inches = figure.axes[0].transData.inverted()
    corners = np.array([to_inches.transform(text.get_window_extent(renderer)) for text in texts])
    return texts, np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def assert_labelled(architecture: GridArchitecture, figure: Figure) -> None:
    nodes = [("image", None), *((node.function, node.multiplier) for node in architecture.active)]
    expected = dict(enumerate([*nodes, ("classifier", architecture.multiplier)]))
    assert texts(figure, "function") == {box: function for box, (function, _) in expected.items()}
    multipliers = {box: name.removeprefix("mul8s_") for box, (_, name) in expected.items() if name}
    assert texts(figure, "multiplier") == multipliers


def assert_apart(figure: Figure) -> None:
    """Texts are inside their own box and touch nothing else; nothing leaves the figure."""
    labels, covered = extents(figure)
    places, lines = boxes(figure), pieces(figure)[0]
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert inside(np.concatenate([covered, places, lines]), np.array([left, top, right, bottom])).all()
    assert (meet(covered, covered) == np.eye(len(covered))).all(), "a label covers another"
    assert (meet(places, places, 0.1) == np.eye(len(places))).all(), "two boxes are nearer than a tenth of an inch"
    assert not meet(covered, lines, 0.01).any(), "an arrow runs through a label"
    touched = meet(covered, places)
    for text, extent, touches in zip(labels, covered, touched):
        assert np.flatnonzero(touches).tolist() == ([] if own(text) is None else [own(text)])
        assert own(text) is None or inside(extent, places[own(text)]), f"{text.get_text()} sticks out of its box"


@pytest.mark.parametrize("name", NAMES)
def test_every_function_and_multiplier_is_named_in_a_box_of_its_own(name):
    assert len(boxes(drawing(name))) == len(examples()[name].active) + 2
    assert_labelled(examples()[name], drawing(name))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_or_leaves_the_figure(name):
    assert_apart(drawing(name))


@pytest.mark.parametrize("name", NAMES)
def test_arrows_join_what_is_read_with_its_reader(name):
    figure, expected, heads = drawing(name), reads(examples()[name]), []
    places = boxes(figure)
    for source, lines in arrows(figure).items():
        ends = []
        for line in lines:
            start, tip = np.tile(line[0], 2), np.tile(line[-1] + [0, ARROW / 2], 2)
            assert inside(start, places[source]) and start[1] == pytest.approx(places[source, 3])
            ends += np.flatnonzero(inside(tip, places)).tolist()
            assert tip[1] == pytest.approx(places[ends[-1], 1])
            heads.append(tuple(np.round(line[-1], 6)))
        assert Counter(ends) == Counter(box for box, read in enumerate(expected) for s in read if s == source)
    assert len(set(heads)) == len(heads) == sum(map(len, expected)), "two arrows end at the same point"
    markers = (line for line in figure.axes[0].findobj(Line2D) if line.get_marker() == "v")
    assert sorted(tuple(np.round(marker.get_xydata()[0], 6)) for marker in markers) == sorted(heads)


@pytest.mark.parametrize("name", NAMES)
def test_arrows_run_through_no_box_and_not_along_each_other(name):
    places, (lines, sources) = boxes(drawing(name)), pieces(drawing(name))
    width, height = lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1]
    assert (np.minimum(width, height) < 1e-9).all(), "a line is neither horizontal nor vertical"
    assert not meet(lines, places, -1e-6).any(), "an arrow runs through a box"
    assert not meet(lines[width > 0], places, 0.1).any(), "an arrow runs along a box"
    for along in (width > 0, height > 0):
        foreign = sources[along][:, None] != sources[along][None]
        assert not (meet(lines[along], lines[along], 0.05) & foreign).any(), (
            "arrows of two sources run along each other"
        )


@pytest.mark.parametrize("name", NAMES)
def test_readers_stand_below_what_they_read_or_in_a_band_to_the_right(name):
    places = boxes(drawing(name))
    for box, read in enumerate(reads(examples()[name])):
        for source in read:
            assert places[source, 3] < places[box, 1] or places[source, 2] < places[box, 0]


def test_a_chain_is_joined_by_straight_arrows():
    lines = arrows(drawing("chain of 12"))
    single = [source for source in lines if len(lines[source]) == 1]
    assert len(single) > 10 and all(len(lines[source][0]) == 2 for source in single)


def test_most_drawings_fit_on_a_page():
    for seed in range(8):
        width, height = drawing(f"draw {seed}").get_size_inches()
        assert width < PAGE[0] + 0.5 and height < PAGE[1] + 0.5
    assert drawing("chain of 40").get_size_inches()[1] < PAGE[1] + 0.5


def test_the_examples_cover_sources_read_twice_rails_and_folds():
    plans = {name: Plan(reads(architecture)) for name, architecture in examples().items()}
    assert sum(len(set(read)) < len(read) for plan in plans.values() for read in plan.sources) > 5
    assert sum(beside != 0 for plan in plans.values() for _, beside in plan.rail.values()) > 5
    folded = boxes(drawing("chain of 40"))
    assert folded[0, 2] < folded[-1, 0] and len(examples()["at least 30"].active) >= 30


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of sRGB, as in the Web Content Accessibility Guidelines."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_colour_tells_the_kind_of_function_and_leaves_text_readable():
    architecture = examples()["at least 45"]
    patches = drawing("at least 45").axes[0].findobj(FancyBboxPatch)
    seen = set()
    for patch, node in zip(patches[1:-1], architecture.active, strict=True):
        kind = node.function if node.function in COLOURS else node.function.split("_")[0]
        assert to_hex(patch.get_edgecolor()).upper() == COLOURS[kind]
        seen.add(kind)
        assert (luminance(to_rgb(patch.get_facecolor()[:3])) + 0.05) / 0.05 > 7, "too dark for black text"
    assert seen == set(COLOURS)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_the_heading_tells_key_and_size():
    for name, size in (("1×1 0", "1 active node of 1×1"), ("chain of 40", "40 active nodes of 1×40")):
        headings = [text.get_text() for text in drawing(name).findobj(Text) if own(text) is None]
        assert f"{examples()[name].key[:8]} · {size}" in headings


@pytest.mark.parametrize("name", ["1×1 0", "draw 0", "at least 30"])
def test_long_names_of_multipliers_get_the_room_they_need(name):
    nodes = tuple(replace(node, multiplier=LONG) for node in examples()[name].nodes)
    architecture = replace(examples()[name], nodes=nodes, multiplier=LONG)
    figure = draw(architecture)
    assert_labelled(architecture, figure)
    assert_apart(figure)


def test_the_drawing_shows_the_active_graph_only(tmp_path):
    architecture = sample(1)
    drifted = GridSpace(LIBRARY).drift(architecture, np.random.default_rng(0))
    assert drifted != architecture
    for file, its in (("first.svg", architecture), ("second.svg", drifted)):
        save_drawing(its, tmp_path / file)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


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
        save_drawing(sample(4), tmp_path / "grid.gif")
