"""The figures of the report: what is plotted is what was recorded, everything can be read, and files are reproducible."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from evaluation.runs.record import Layer, Record
from reports import figures
from reports.figures import anytime, energy, evolution, fronts, library, multipliers, style
from reports.load import Loaded, Section, load
from spaces.cells.sites import CellConfig
from spaces.cells.space import CellSpace
from spaces.grid.space import GridSpace
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import operand_range
from tests.made_records import NAN, ROOT, architecture, finalist, history, layer, moment, other_kind, record, save

LIBRARY = catalogue.library(catalogue.names())
ODD = ["$x_2$ \\alpha {", "_hidden <b>&", "q" * 60, "日本\ud800\n\x00é", "--></svg>"]


def loaded(folder: Path, *contents: dict, lines: list[dict] | None = None) -> Loaded:
    for number, content in enumerate(contents):
        save(folder / f"run{number:02}", content, lines)
    return load([folder])


def section(folder: Path, *contents: dict, lines: list[dict] | None = None) -> Section:
    (only,) = loaded(folder, *contents, lines=lines).sections
    return only


def axes_of(figure: Figure, title_or_gid: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_gid() == title_or_gid)


def lines(axes: Axes, gid: str) -> list[np.ndarray]:
    """The points of all lines called ``gid``, of which there are some."""
    return [line.get_xydata() for line in axes.lines if line.get_gid() == gid and len(line.get_xdata())]


def step(points: np.ndarray, x: float) -> float:
    """The value of a step curve."""
    return points[points[:, 0] <= x][-1, 1]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def assert_readable(figure: Figure) -> None:
    """Type of 6.5 to 9 points inside the figure; no text of a legend or a title on axes or on another such text."""
    figure.set_dpi(100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for text in figure.findobj(Text):
        assert not text.get_text() or 6.5 <= text.get_size() <= 9, text
    frames = [axes.get_window_extent(renderer).padded(-1) for axes in figure.axes if axes.axison]
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    for text, box in zip(figure.texts, boxes):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
        assert not any(frame.overlaps(box) for frame in frames), text
    for one, other in itertools.combinations(boxes, 2):
        common = Bbox.intersection(one, other)
        assert common is None or common.width < 1 or common.height < 1


# -- fronts ------------------------------------------------------------------------------------------------------------


def test_finalists_are_where_their_records_say(tmp_path):
    first = record(finalist(0.9, approximate=0.94, pj=150.0), finalist(0.8, approximate=0.75, pj=120.0))
    untested = record(finalist(0.7, approximate=None, pj=90.0), seed=1)
    other = record(finalist(0.6, approximate=0.5, pj=300.0), method="approxdarts")
    picture = fronts.front(section(tmp_path, first, untested, other))
    left = picture.figure.axes[0]
    best = sorted(tuple(point) for points in lines(left, "best") for point in points.round(9))
    assert best == [(150.0, 6.0), (300.0, 50.0)]
    assert [points.round(9).tolist() for points in lines(left, "other")] == [[[120.0, 25.0]]]
    assert left.get_xlabel() == "energy, pJ per inference"
    fills = {line.get_gid(): set() for line in left.lines}
    for line in left.lines:
        fills[line.get_gid()].add(line.get_markerfacecolor() == line.get_color())
    assert fills == {"best": {True}, "other": {False}}
    assert "3 finalists of 3 runs" in picture.caption and "(1 without a test are not shown)" in picture.caption


def test_surfaces_are_those_of_counting_runs(tmp_path):
    rng = np.random.default_rng(3)
    found = [[(float(e), float(pj)) for e, pj in zip(rng.random(6), 900 * rng.random(6))] for _ in range(4)]
    found.append([(0.9, 5000.0)])  # a run whose front is beyond the reference attains nothing here, and counts
    runs = [record(seed=at, anytime=[moment(1, 9.0, *front)]) for at, front in enumerate(found)]
    picture = fronts.front(section(tmp_path, *runs))
    right = picture.figure.axes[1]
    (median,) = lines(right, "median")
    best, worst = lines(right, "edge")
    for pj in (5.0, *(900 * rng.random(40))):
        errors = sorted(min((100 * e for e, cost in front if cost <= pj), default=math.inf) for front in found)
        for points, place in ((best, 0), (median, 2), (worst, 4)):  # of five runs: one, three, all
            if pj < points[0, 0]:
                assert errors[place] == math.inf
            else:
                shown = step(points, pj)
                assert shown == pytest.approx(errors[place]) or (errors[place] == math.inf and shown > 1000)
    band = right.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(best[:, 1].min())
    assert "above and right of the median curve lies what at least half" in picture.caption
    assert "reference point (100 %, 1 nJ)" in picture.caption
    assert "One run only" not in picture.caption


def test_one_run_says_what_it_cannot_show_and_has_no_band(tmp_path):
    picture = fronts.front(section(tmp_path, record()))
    assert lines(picture.figure.axes[1], "median")[0].tolist()[1:3] == [[150.0, 40.0], [300.0, 10.0]]
    assert lines(picture.figure.axes[1], "edge") == []
    assert "One run only of random" in picture.caption


def test_energies_far_apart_get_a_logarithmic_axis_without_markup(tmp_path):
    front = [moment(1, 5.0, (0.5, 2.0), (0.1, 800.0))]
    figure = fronts.front(section(tmp_path, record(anytime=front))).figure
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    FigureCanvasAgg(figure).draw()
    ticks = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert {"10", "100"} <= set(ticks) and not any("$" in text for text in ticks)


def test_nothing_is_drawn_from_nothing(tmp_path):
    untested = finalist(approximate=None, layers=[], architecture={})
    found = loaded(tmp_path, record(untested, anytime=[], hypervolume=None))
    assert [picture.name for picture in figures.pictures(found)] == ["circuits-power-error"]


# -- over time ---------------------------------------------------------------------------------------------------------


def test_hypervolume_over_time_is_that_of_hand_computation(tmp_path):
    """Boxes of 1 × 1,000 pJ: (0.4, 300) leaves 0.6·0.7; (0.1, 300) and (0.4, 150) together 0.9·0.7 + 0.6·0.15."""
    later = [moment(1, 24.0, (0.2, 500.0)), moment(2, 30.0, (0.2, 500.0))]  # 0.8·0.5 from 24 s on
    picture = anytime.anytime(section(tmp_path, record(), record(seed=1, anytime=later)))
    (axes,) = picture.figure.axes
    (median,) = lines(axes, "median")
    assert axes.get_xlabel() == "time of the search, device-min"
    assert median[:, 0] == pytest.approx([0.4, 0.5, 0.6, 0.63])  # from where both are known, a little beyond the end
    assert median[:, 1] == pytest.approx([(0.42 + 0.4) / 2, (0.42 + 0.4) / 2, (0.72 + 0.4) / 2, (0.72 + 0.4) / 2])
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.4, 0.72))
    assert "random: 2 runs" in picture.caption and "reference point (100 %, 1 nJ)" in picture.caption


@pytest.mark.parametrize(("seconds", "last"), [(30.0, 0.5), (600.0, 10.0)])
def test_the_unit_of_time_is_that_of_the_tables(tmp_path, seconds, last):
    found = section(tmp_path, record(anytime=[moment(1, seconds, (0.4, 300.0))]))
    (axes,) = anytime.anytime(found).figure.axes
    assert found.time_unit[0] == "device-min"  # its run took 7.86 of them in all
    assert axes.get_xlabel().endswith("device-min")
    assert lines(axes, "median")[0][0, 0] == pytest.approx(last)


def test_no_curve_without_moments(tmp_path):
    assert anytime.anytime(section(tmp_path, record(anytime=[]))) is None


# -- layers ------------------------------------------------------------------------------------------------------------


def bars(axes: Axes, gid: str) -> list[tuple[float, float, float]]:
    """Place, bottom and height of all bars called ``gid``."""
    found = [bar for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_gid() == gid]
    return [(round(bar.get_x() + bar.get_width() / 2, 9), bar.get_y(), bar.get_height()) for bar in found]


def test_a_bar_per_layer_in_order_by_multiplier(tmp_path):
    made = finalist(
        layers=[
            layer("stem.0", "mul8s_1KR3", 9000.0, 4000.0, 1000.0),
            layer("cells.0.sum", None, 500.0, 200.0, 200.0),
            layer("cells.1.conv", "mul8s_1KV8", 9000.0, 3000.0, 3000.0),
        ]
    )
    (picture,) = energy.layers(section(tmp_path, record(made)), 4)
    (axes,) = picture.figure.axes
    assert axes.get_ylabel() == "energy, nJ"
    assert bars(axes, "int8") == [(0, 0, 4.0), (1, 0, 0.2), (2, 0, 3.0)]
    assert bars(axes, "mul8s_1KR3") == [(0, 0, 1.0)]
    assert bars(axes, "mul8s_1KV8") == [(2, 0, 3.0)]
    assert bars(axes, "no multiplier") == [(1, 0, 0.2)]
    # P(1KR3) / P(1KV8) = 0.052 mW / 0.425 mW
    assert {"stem.0", "cells.0.sum", "cells.1.conv", "1KR3 (12 %)", "1KV8 (100 %)"} <= set(texts(picture.figure))
    assert (
        "4.2 nJ per inference in approximate arithmetic" in picture.caption
        and "7.2 nJ in exact int8" in picture.caption
    )


def test_parts_of_one_bar_stand_on_one_another(monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "BARS", 1)
    parts = [("mul8s_1KR3", 1.0), ("mul8s_1KV8", 2.0), (None, 4.0), ("mul8s_1KR3", 8.0)]
    made = finalist(layers=[layer(f"a.{at}", name, 50.0, 10.0, pj) for at, (name, pj) in enumerate(parts)])
    (picture,) = energy.layers(section(tmp_path, record(made)), 4)
    (axes,) = picture.figure.axes
    assert bars(axes, "int8") == [(0, 0, 40.0)]
    assert bars(axes, "mul8s_1KV8") == [(0, 0, 2.0)]  # the most expensive circuit at the bottom
    assert bars(axes, "mul8s_1KR3") == [(0, 2.0, 9.0)]
    assert bars(axes, "no multiplier") == [(0, 11.0, 4.0)]
    assert "4 layers are shown as 1 groups" in picture.caption


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"layer{n}" for n in range(20)], [f"layer{n}" for n in range(20)]),
        (
            [
                f"cells.{c}.body.{n}.conv" for c in range(3) for n in range(40)
            ],  # 120 layers: a bar per cell is the finest
            [f"cells.{c}.body" for c in range(3)],
        ),
        (
            ["stem", *(f"cells.{c}.{part}.x" for c in range(6) for _ in range(4) for part in ("a", "b"))],
            ["stem", *(f"cells.{c}.{part}" for c in range(6) for part in ("a", "b"))],
        ),
        ([f"n{n}" for n in range(81)], [f"n{n} – n{n + 2}" for n in range(0, 81, 3)]),
        (["same"] * 3, ["same"] * 3),
    ],
)
def test_layers_are_grouped_until_they_can_be_read(names, expected):
    found = [
        Layer(name, "mul8s_1KR3" if at % 2 else None, {"int8": 2.0**-at, "approximate": 3.0**-at})
        for at, name in enumerate(names)
    ]
    grouped = energy.group(found)
    assert [bar.label for bar in grouped] == expected
    assert sum(bar.int8 for bar in grouped) == pytest.approx(sum(one.costs["int8"] for one in found))
    odd = sum(3.0**-at for at in range(1, len(names), 2))
    assert sum(bar.parts.get("mul8s_1KR3", 0.0) for bar in grouped) == pytest.approx(odd)


@pytest.mark.parametrize(
    "found", [[], [layer("good", None, 1.0, 1.0, 1.0), layer("a", None, 1.0, 1.0, 1.0) | {"costs": {"int8": 1.0}}]]
)
def test_layers_without_the_costs_that_are_drawn_are_not_recorded_layers(tmp_path, found):
    (only,) = loaded(tmp_path, record(finalist(layers=found))).sections
    assert list(energy.layers(only, 4)) == []
    (drawing,) = figures.architectures.architectures(only, 4)
    assert "The energy of its layers is not recorded." in drawing.caption


def test_a_table_of_the_users_own_is_not_taken_for_the_built_in_multiplier():
    key = catalogue.get("mul8s_1KR3").key
    older, same, other = (
        Record.from_json(record(tables=tables)) for tables in (None, {"mul8s_1KR3": key}, {"mul8s_1KR3": "0" * 64})
    )
    assert multipliers.builtin(older, "mul8s_1KR3") == catalogue.get("mul8s_1KR3")
    assert multipliers.builtin(same, "mul8s_1KR3") == catalogue.get("mul8s_1KR3")
    assert multipliers.builtin(other, "mul8s_1KR3") is None
    assert multipliers.builtin(older, "mine") is None


# -- the course of a search --------------------------------------------------------------------------------------------


def epochs(*values: float, name: str = "alpha/normal/skip_connect") -> list[dict]:
    return [{"step": at, "stage": "search", "diagnostics": {name: value}} for at, value in enumerate(values, 1)]


def test_curves_are_medians_and_ranges_over_runs(tmp_path):
    for seed, values in enumerate([(0.1, 0.2, 0.9), (0.3, 0.8), (0.2, 0.6)]):
        other = [{"step": 9, "stage": "final", "diagnostics": {"alpha/normal/skip_connect": 5.0}}]
        save(tmp_path / f"run{seed}", record(seed=seed), epochs(*values) + other)
    (only,) = load([tmp_path]).sections
    (picture,) = evolution.evolution(only, 4)
    axes = axes_of(picture.figure, "normal")
    (points,) = lines(axes, "skip_connect")
    assert points.tolist() == [[1, 0.2], [2, 0.6], [3, 0.9]]
    band = axes.collections[0].get_paths()[0].vertices
    assert {(x, y) for x, y in band.tolist()} >= {(1, 0.1), (1, 0.3), (2, 0.2), (2, 0.8), (3, 0.9)}
    assert "Median and range over 3 runs of 3." in picture.caption


def test_every_panel_shows_its_own_diagnostics(tmp_path):
    (picture,) = evolution.evolution(section(tmp_path, record(), lines=history(3)), 4)
    ends = {
        ("normal", "skip_connect"): 0.7, ("normal", "sep_conv_3x3"): 0.3, ("reduction", "skip_connect"): 0.5,
        ("circuits", "mul8s_1KV8"): 1.0, ("entropy", "of α"): 0.8, ("entropy", "of β"): 0.0,
        ("skips", "normal"): 2.0, ("skips", "reduction"): 0.0,
    }  # fmt: skip
    for (panel, name), value in ends.items():
        (points,) = lines(axes_of(picture.figure, panel), name)
        assert points[-1].tolist() == [3, pytest.approx(value)]
    assert "One run shows no spread" in picture.caption


def test_what_is_no_number_is_not_recorded(tmp_path):
    odd = history(3)
    odd[1]["diagnostics"] |= {"alpha/normal/skip_connect": "nan", "alpha_entropy": "high", "skips_normal": None}
    odd[2]["diagnostics"] = ["no", "dict"]
    odd += [{"stage": "search", "diagnostics": {"beta/x": 1}}, {"step": "4", "stage": "search", "diagnostics": {}}]
    (picture,) = evolution.evolution(section(tmp_path, record(), lines=odd), 4)
    assert lines(axes_of(picture.figure, "normal"), "skip_connect")[0].tolist() == [[1, 0.5]]
    assert lines(axes_of(picture.figure, "entropy"), "of α")[0].tolist() == [[1, 1.0]]
    assert lines(axes_of(picture.figure, "normal"), "sep_conv_3x3")[0].tolist() == [[1, 0.5], [2, 0.4]]


def test_a_history_without_probabilities_gives_no_picture(tmp_path):
    assert list(evolution.evolution(section(tmp_path, record(), lines=epochs(0.5, name="front")), 4)) == []


def test_many_multipliers_are_cut_to_those_that_rise_highest(tmp_path):
    lines_ = epochs(0.5)
    lines_[0]["diagnostics"] |= {f"beta/own{n}": 0.01 * n for n in range(20)}
    (picture,) = evolution.evolution(section(tmp_path, record(), lines=lines_), 4)
    drawn = {line.get_gid() for line in axes_of(picture.figure, "circuits").lines}
    assert drawn == {f"own{n}" for n in range(7, 20)}
    assert "13 that rise highest are drawn, 7 are not" in picture.caption


# -- circuits ----------------------------------------------------------------------------------------------------------


def test_error_maps_are_means_over_blocks_of_operands(tmp_path):
    used = architecture("sep_conv_3x3", "mul8s_1KR3")
    found, others = multipliers.in_use(loaded(tmp_path, record(finalist(architecture=used.to_json()))))
    assert ([multiplier.name for multiplier in found], others) == (["mul8s_1KR3"], [])
    picture = multipliers.error_maps(found, others)
    axes = picture.figure.axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    multiplier, values = catalogue.get("mul8s_1KR3"), operand_range(True)
    for row, column in ((0, 0), (5, 60), (63, 2), (32, 31)):
        pairs = [(4 * row + i, 4 * column + j) for i in range(4) for j in range(4)]
        mean = sum(abs(int(multiplier.table[a, b]) - int(values[a]) * int(values[b])) for a, b in pairs) / 16
        assert shown[row, column] == pytest.approx(mean) if mean >= 1 else np.isnan(shown[row, column])
    assert axes.images[0].get_extent() == [-128.5, 127.5, -128.5, 127.5] and axes.images[0].origin == "lower"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight", "activation")
    assert "1KR3, 3.1 %" in texts(picture.figure)  # published: 3.08 %


def test_multipliers_whose_tables_are_unknown_are_named(tmp_path):
    used = [architecture("sep_conv_3x3", name) for name in ("mul8s_1KVA", "mine_$")]
    made = record(*(finalist(architecture=one.to_json()) for one in used), tables={"mul8s_1KVA": "0" * 64})
    found, others = multipliers.in_use(loaded(tmp_path, made))
    assert (found, others) == ([], ["mine_$", "mul8s_1KVA"])
    assert multipliers.error_maps(found, others) is None
    picture = multipliers.error_maps([catalogue.get("mul8s_1KX2")], others)
    assert "do not hold the tables of mine_$, mul8s_1KVA" in picture.caption


def test_the_library_is_plotted_at_its_published_figures():
    picture = library.power_error([catalogue.get("mul8s_1KR3"), catalogue.get("bam8s_2_2_6")])
    (axes,) = picture.figure.axes
    marks = {line.get_gid(): line for line in axes.lines}
    assert set(marks) == {*catalogue.names(), "bam8s_2_2_6"}
    for name in catalogue.names():
        published = catalogue.published_figures(name)
        ((x, y),) = marks[name].get_xydata()
        assert x == pytest.approx(100 * published["pdk45_power_mw"] / 0.425)
        assert y == pytest.approx(published["mae_pct"], rel=0.06)  # of a MAE that is published with two digits
        assert (marks[name].get_markerfacecolor() != "white") == (name == "mul8s_1KR3")


def test_labels_of_the_library_cover_nothing():
    used = [catalogue.get(name) for name in ("bam8s_2_2_6", "bam8s_1_1_5", "bam8s_0_0_6", "bam8s_1_0_4")]
    figure = library.power_error(used).figure
    figure.set_dpi(200)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    (axes,) = figure.axes
    marks = axes.transData.transform([line.get_xydata()[0] for line in axes.lines])
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert len(boxes) == len(marks) == len({*LIBRARY, *used}) >= 15
    assert not any(one.padded(-2).overlaps(other.padded(-2)) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.padded(-2).contains(*mark) for box in boxes for mark in marks)
    for box, mark in zip(boxes, marks):  # and each is near its own
        away = np.maximum(0, np.maximum([box.x0, box.y0] - mark, mark - [box.x1, box.y1]))
        assert np.hypot(*away) < 0.4 * 200


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [CellSpace(LIBRARY, CellConfig(4), "all"), GridSpace(LIBRARY)])
def test_a_drawing_for_pages_is_small_and_names_every_part(space):
    made = space.sample(np.random.default_rng(1))
    drawn = figures.drawing_svg(made.to_json())
    root = ElementTree.fromstring(drawn)
    shown = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    if hasattr(made, "cells"):
        expected = {edge.operation for cell in made.cells for node in cell.nodes for edge in node}
    else:
        expected = {node.function for node in made.active}
    names = [name.removeprefix("mul8s_") for name in made.multipliers]
    assert all(any(name in text for text in shown) for name in names)
    assert expected <= shown
    assert any(text.startswith(made.key[:8]) for text in shown)
    assert len(drawn) < 60_000 and drawn == figures.drawing_svg(made.to_json())


@pytest.mark.parametrize(
    "data",
    [
        None, 3, "cells", [], {}, {"space": "cells"}, {"space": []}, {"space": "other"}, {"space": "cells", "cells": [1, 2]},
        {"space": "grid", "rows": 1e9, "columns": 1, "levels_back": 1, "nodes": [], "output": 1, "multiplier": "x"},
        architecture().to_json() | {"cells": architecture().to_json()["cells"] * 4000}, {"space": "cells", "x": NAN},
    ],
)  # fmt: skip
def test_what_is_no_architecture_has_no_drawing(data):
    assert figures.drawing_svg(data) is None


def test_the_best_finalist_on_validation_is_drawn_whatever_its_test_says(tmp_path):
    chosen = architecture("dil_conv_5x5", "mul8s_1KV8")
    worse = record(finalist(0.7, approximate=0.99))
    better = record(
        finalist(0.5, approximate=1.0),
        finalist(0.8, approximate=0.6, pj=120.0, architecture=chosen.to_json(), key=chosen.key),
        seed=1,
    )
    (picture,) = figures.architectures.architectures(section(tmp_path, worse, better), 4)
    assert "dil_conv_5x5" in texts(picture.figure) and "sep_conv_3x3" not in texts(picture.figure)
    assert "finalist 2 of run run01, the best on validation of 2 runs" in picture.caption
    assert "40.00 % test error, 120 pJ per inference" in picture.caption


# -- all together ------------------------------------------------------------------------------------------------------


def odd_run(names: list[str]) -> dict:
    """A run of a method of such a name, with a finalist for every circuit of such a name."""
    made = [
        finalist(
            architecture=architecture("sep_conv_3x3", name).to_json(),
            layers=[layer(f"{name}.{n}.x", name, 9.0, 3.0, 2.0) for n in range(3)],
        )
        for name in names
    ]
    return record(*made, method=names[-1], digest="b" * 64)


def odd_history(names: list[str]) -> list[dict]:
    made = history(2)
    for name in names:
        made[0]["diagnostics"] |= {f"beta/{name}": 0.5, f"alpha/normal/{name}": 0.5}
    return made


def odd_report(folder: Path) -> Loaded:
    """Ten variants and 13 circuits in one section, names that no font or markup likes in another."""
    for at in range(10):
        made = record(
            finalist(approximate=0.9 - 0.01 * at, pj=150.0 + at), method=f"method {at}", method_config={"n": [at] * 9}
        )
        save(folder / f"a{at}", made, history(1) if at else None)
    many = [layer(f"cells.{n // 9}.op.{n}", name, 9.0, 3.0, 2.0) for n, name in enumerate(catalogue.names())]
    save(folder / "circuits", record(finalist(layers=many), method="all circuits"), history(2))
    for at, name in enumerate(ODD):
        save(folder / f"odd{at}", odd_run([name]), odd_history([name]))
    return load([folder])


def test_everything_can_be_read_whatever_the_names(tmp_path):
    drawn = {picture.name: picture for picture in figures.pictures(odd_report(tmp_path))}
    assert {"section1-front", "section1-anytime", "section2-architecture-3", "circuits-errors"} <= set(drawn)
    for name, picture in drawn.items():
        if "architecture" not in name:  # test_drawing.py and test_grid_drawing.py hold those to more
            assert_readable(picture.figure)
        picture.caption.encode()
        assert "\n" not in picture.caption + picture.title
    shown = set(texts(drawn["section2-front"].figure))
    assert {"$x_2$ \\alpha {", "_hidden <b>&", "qqqqqqqqqqqqqqqqqqq…qqqqqqqqqqqqqqqqqqqq", "??? ?é"} <= shown


def test_odd_names_leave_files_whole(tmp_path):
    save(tmp_path / "run", odd_run(ODD), odd_history(ODD))
    for picture in figures.pictures(load([tmp_path / "run"])):
        figures.write(picture, tmp_path)
        root = ElementTree.parse(tmp_path / f"{picture.name}.svg").getroot()
        assert not [node for node in root.iter() if node.tag.endswith("script")]
        assert (tmp_path / f"{picture.name}.pdf").read_bytes().startswith(b"%PDF")
        assert (tmp_path / f"{picture.name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = figures.drawing_svg(odd_run(ODD)["finalists"][0]["architecture"])
    assert {"$x_2$ \\alpha {", "--></svg>"} & {node.text for node in ElementTree.fromstring(drawn).iter()}


def test_a_section_of_many_variants_draws_some_and_says_so(tmp_path):
    many = next(one for one in odd_report(tmp_path).sections if len(one.variants) == 11)
    found = list(energy.layers(many, 4))
    assert [picture.name for picture in found] == [f"section1-layers-{n}" for n in range(1, 5)]
    assert all("for at most 4 of the section's 11 variants" in picture.caption for picture in found)


def test_the_same_runs_give_the_same_bytes(tmp_path):
    runs, here, there = (tmp_path / name for name in ("runs", "here", "there"))
    save(runs, record(finalist(approximate=0.9), finalist(validation=0.8)), history(2))
    here.mkdir(), there.mkdir()
    for picture in figures.pictures(load([runs])):
        figures.write(picture, here)
    code = (
        "import sys; from pathlib import Path; from reports import figures; from reports.load import load\n"
        "for picture in figures.pictures(load([Path(sys.argv[1])])): figures.write(picture, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(runs), str(there)]
    other_order = os.environ | {"PYTHONHASHSEED": "7"}  # of sets
    subprocess.run(command, cwd=ROOT, env=other_order, timeout=300, check=True)
    one, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (here, there))
    assert len(one) == 3 * 7 and one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_variants_differ_with_and_without_colour(tmp_path):
    only = next(one for one in odd_report(tmp_path).sections if len(one.variants) == 11)
    colours = style.colours(only)
    assert list(colours) == list(only.variants)
    assert len(set(list(colours.values())[:8])) == 8
    assert all(to_hex(colour).upper() == colour for colour in colours.values())
    looks = style.looks(map(str, range(13)))
    assert len({look.marker for look in looks.values()}) == 13
    assert len({(look.colour, str(look.dashes)) for look in looks.values()}) == 13
    assert len({(look.colour, look.hatch) for look in looks.values()}) == 13


def test_a_multiplier_looks_the_same_in_all_figures():
    some, all_ = style.multiplier_looks(["mul8s_1KR3", "own"]), style.multiplier_looks([*catalogue.names(), "own"])
    assert all(all_[name] == look for name, look in some.items()) and set(some) == {"mul8s_1KR3", "own"}


def test_names_that_read_the_same_when_shortened_get_a_number():
    long = [f"{'a' * 30}{middle}{'b' * 30}" for middle in "xyz"]
    shown = style.labels([*long, "", "plain"], 20)
    assert list(shown.values()) == [
        "aaaaaaaaa…bbbbbbbbbb",
        "aaaaaaaaa…bbbbbbbbbb #2",
        "aaaaaaaaa…bbbbbbbbbb #3",
        "(no name)",
        "plain",
    ]
    assert style.multiplier_labels(["mul8s_1KX2", "1KX2"]) == {"mul8s_1KX2": "1KX2", "1KX2": "1KX2 #2"}


def test_text_that_no_font_shows_is_replaced():
    assert style.plain("a\u202eb\u200bc\td\ud800 日") == "a?b?c d? ?"  # turned, without width, half a character


def test_importing_leaves_torch_alone():
    code = "import sys, reports.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_matplotlib_is_left_as_it_was(tmp_path):
    import matplotlib

    before = json.dumps(dict(matplotlib.rcParams), default=str)
    first, *_ = figures.pictures(loaded(tmp_path / "runs", record(), lines=history(1)))
    figures.write(first, tmp_path)
    assert json.dumps(dict(matplotlib.rcParams), default=str) == before
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()


def test_another_cost_is_named_in_every_figure(tmp_path):
    (only,) = loaded(tmp_path, other_kind()).sections
    front, layers = fronts.front(only), next(iter(energy.layers(only, 4)))
    assert (front.title, layers.title) == ("Error against cost", "Cost by layer: random")
    assert [axes.get_xlabel() for axes in front.figure.axes] == ["cost, kMAC per inference"] * 2
    assert "2 kMAC per inference in approximate arithmetic" in layers.caption and "memory" not in layers.caption
    (drawing,) = figures.architectures.architectures(only, 4)
    assert "2 kMAC per inference" in drawing.caption
