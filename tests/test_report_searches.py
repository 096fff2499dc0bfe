"""Comparisons on a table of trained networks in a report: regrets by hand, the table, the diagram of ranks, and the page."""

import json
import re
from pathlib import Path

import pytest

from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.table import BenchTable
from reports import build, figures, tables
from reports.figures.searches import joined
from reports.load import load
from spaces.errors import InputError
from tests.made_records import record, save


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    return Landscape.of(BenchTable.load("fashion14"), "horowitz45")


def search(method: str, seed: int, *moments: tuple[int, list[int]]) -> dict:
    """What a search had handed over after so many evaluations."""
    told = [{"work": 0.0, "seconds": 0.0, "evaluations": at, "proposals": networks} for at, networks in moments]
    return {"method": method, "seed": seed, "moments": told}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, landscape) -> Path:
    """Two methods, three seeds: one finds the whole front at half of the budget, the other its first network at the end."""
    place = tmp_path_factory.mktemp("searches")
    header = BenchTable.load("fashion14").header
    common = {
        "dataset": "fashion14",
        "space": "bench",
        "tables": header.tables,
        "cost": "horowitz45",
        "budget": "10evals",
    }
    front = list(landscape.front)
    lines = [common | {"protocol": header.protocol.hash}]
    for seed in range(3):
        lines += [search("ours", seed, (5, front)), search("random", seed, (9, front[:1]))]
    place.joinpath("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def test_regrets_costs_and_ranks_are_those_of_hand_computation(folder, landscape):
    (found,) = load([folder]).searches
    headline, parts = tables.searches(found)
    assert [column.header for column in headline.columns] == [
        "method", "test error, %", "energy, nJ", "saved vs exact int8, %", "regret × 1000", "mean rank",
    ]  # fmt: skip
    ours, random = headline.rows
    assert (ours[0].text, random[0].text) == ("ours (3)", "random * (3)")
    first = landscape.front[0]
    missed = landscape.hypervolume - (1 - landscape.errors[first]) * (
        1 - landscape.costs[first] / landscape.reference_cost
    )
    assert (ours[4].value, random[4].value) == pytest.approx((0.0, 1000 * missed), abs=1e-9)
    # Both hand over the most accurate network of all.
    assert ours[1].value == random[1].value == pytest.approx(100 * landscape.errors.min())
    assert (ours[5].value, random[5].value) == (1.0, 2.0)
    assert ours[4].best and not random[4].best
    curve = found.curves["ours"]
    before = curve.mean[curve.amounts < 5]
    assert before == pytest.approx(landscape.hypervolume) and curve.mean[curve.amounts >= 5] == pytest.approx(0.0)
    assert [row[1].text for row in parts.rows] == [f"{1000 * landscape.hypervolume:.1f}"] * 2


def test_the_figures_are_drawn(folder):
    drawn = list(figures.pictures(load([folder])))
    assert [picture.name for picture in drawn][:2] == ["searches1-regret", "searches1-ranks"]
    (axes,) = drawn[0].figure.axes
    assert axes.get_xlabel() == "evaluations"
    assert axes.get_yscale() == "log" and len([line for line in axes.lines if line.get_gid() == "mean"]) == 2
    texts = [text.get_text().strip() for text in drawn[1].figure.texts]
    assert {"ours 1.00", "2.00 random"} <= set(texts)


@pytest.mark.parametrize(
    ("ranks", "difference", "groups"),
    [
        ([1.0, 1.5, 3.0, 3.4], 0.6, [(0, 1), (2, 3)]),
        ([1.0, 1.5, 2.0, 2.5], 1.1, [(0, 2), (1, 3)]),
        ([1.0, 1.2, 1.4], 5.0, [(0, 2)]),
        ([1.0, 2.0, 3.0], 0.5, []),
    ],
)
def test_bars_join_what_cannot_be_told_apart(ranks, difference, groups):
    assert joined(ranks, difference) == groups


def test_a_report_of_a_comparison_and_of_runs(folder, tmp_path, capsys):
    save(tmp_path / "runs" / "r0", record())
    (tmp_path / "runs" / "cmp.jsonl").write_bytes((folder / "mine.jsonl").read_bytes())
    (tmp_path / "runs" / "other.jsonl").write_text("{}\n")
    assert build.main([str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    told = capsys.readouterr().out
    assert "1 run, 1 finalist, 6 searches on a table; 1 left out" in told
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert page.index('id="searches1"') < page.index('id="section1"')
    (charts,) = re.findall(r'id="charts">(.*?)</script>', page)
    names = [[variant["name"] for variant in chart["variants"]] for chart in json.loads(charts)]
    assert names == [["true front", "ours", "random"], ["random"]]
    assert "other.jsonl is no file of table compare" in page
    assert (tmp_path / "report" / "tables" / "searches1-headline.tex").exists()


def test_a_comparison_alone_is_a_report_and_a_broken_one_is_none(folder, tmp_path):
    assert build.main([str(folder / "mine.jsonl"), "--out", str(tmp_path / "report")]) == 0
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="no file of table compare"):
        load([tmp_path / "other.jsonl"])


def test_predicted_errors_are_called_so(tmp_path):
    """Of the large part of the table, of which 600 networks were trained."""
    kept = Path(__file__).parents[1] / "reports" / "records" / "table" / "large.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines(keepends=True)
    few = [line for line in lines if '"seed":' not in line or line.partition('"seed":')[2][:2] in ("0,", "1,")]
    (tmp_path / kept.name).write_text("".join(few), encoding="utf-8")
    (found,) = load([tmp_path / kept.name]).searches
    assert found.title == "fashion14, bench, on a table of predicted networks" and found.front_name == "predicted front"
    for table in tables.searches(found):
        assert "predicted errors (" in table.notes[0] and found.reliability.rstrip(".") in table.notes[0]
        assert "true" not in table.notes[0]
