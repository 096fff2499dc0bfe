"""Tables on wide and narrow terminals and in a pipe: no number is wrapped or cut, whatever has to leave."""

import functools
import io
import re
from pathlib import Path

import pytest

from evaluation.benchmark import presentation as benchmark
from evaluation.benchmark.table import BenchTable
from evaluation.cli import comparison, summary
from evaluation.cli.several import Several
from evaluation.runs import units
from evaluation.runs.folder import read_record
from evaluation.runs.progress import RunProgress
from reports.paper.__main__ import RECORDS
from spaces.cli.numbers import three
from spaces.cli.tables import Column, Fitted
from spaces.cli.terminal import WIDTH_OF_FILES, Terminal
from spaces.multipliers import catalogue, presentation

WIDTHS = (120, 80, 60)
NUMBER = re.compile(r"[\d.,]*\d")


def record(method: str = "approxdarts", seed: int = 0):
    return read_record(RECORDS / f"{method}-digits-quick-s{seed}" / "record.json")


def shown(*renderables, width: int) -> str:
    file = io.StringIO()
    console = Terminal(file=file, width=width)
    for renderable in renderables:
        console.print(renderable)
    return file.getvalue()


def result_tables() -> list:
    return [table(record()) for table in (summary._finalists, summary._savings, summary._split, summary._times)]


EVERYTHING = {
    "result": result_tables,
    "comparison": lambda: [comparison._table([record(name, seed) for name in ("random", "approxdarts") for seed in (0, 1)])],
    "multipliers": lambda: [presentation.overview([presentation.row(catalogue.get(each)) for each in catalogue.names()])],
    "front": lambda: [benchmark.front(BenchTable.load("fashion14"), "horowitz45")],
    "info": lambda: [benchmark.info(BenchTable.load("fashion14"))],
}  # fmt: skip


@functools.cache
def made(name: str) -> list:
    return EVERYTHING[name]()


@pytest.mark.parametrize("width", [*WIDTHS, 40])
@pytest.mark.parametrize("name", EVERYTHING)
def test_every_number_that_is_shown_is_whole(name, width):
    text = shown(*made(name), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    whole = set(NUMBER.findall(shown(*made(name), width=1000)))
    assert set(NUMBER.findall(text)) <= whole


@pytest.mark.parametrize("name", ["result", "comparison", "multipliers"])
def test_what_matters_most_stays_on_the_narrowest(name):
    text = shown(*made(name), width=60)
    for word in {
        "result": ("approx.", "energy", "int8, %", "total"),
        "comparison": ("hypervolume", "× faster", "error, %"),
        "multipliers": ("mW", "MAE %", "rank", "mul8s_1KR3"),
    }[name]:
        assert word in text


def test_a_pipe_gets_every_column(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    file = io.StringIO()
    console = Terminal(file=file)
    assert console.width == WIDTH_OF_FILES
    for renderable in [*result_tables(), *made("multipliers")]:
        console.print(renderable)
    assert "not shown" not in file.getvalue() and "params" in file.getvalue()


def table() -> Fitted:
    drawn = Fitted(
        "A title that is long", [Column("name", left=True), Column("a\nb", 2), Column("energy\nnJ"), Column("c", 1)]
    )
    drawn.add("first", "1,234", "0.425", "99", end=True)
    drawn.add("second one", "–", "12.5", "7")
    return drawn


def test_columns_leave_by_rank_and_a_line_names_them():
    assert table().lines(80) == [
        "A title that is long",
        "",
        "                 a  energy",
        " name            b      nJ   c",
        " ─────────────────────────────",
        " first       1,234   0.425  99",
        "",
        " second one      –    12.5   7",
    ]
    narrow = "\n".join(table().lines(28))
    assert "1,234" not in narrow and "99" in narrow and "not shown in so narrow a\n window: a b" in narrow
    narrower = "\n".join(table().lines(20))
    assert "99" not in narrower and "0.425" in narrower and "a\n b, c" in narrower


def test_below_that_every_value_has_a_line():
    assert table().lines(18)[3:7] == [" name       first", " a b        1,234", " energy nJ  0.425", " c          99"]
    wide_names = Fitted("", [Column("x"), Column("y")])
    wide_names.add("1" * 30, "2" * 30)
    assert wide_names.lines(40) == ["", f" x  {'1' * 30}", f" y  {'2' * 30}"]
    assert shown(wide_names, width=10).split() == ["x", "1" * 30, "y", "2" * 30], "not even here is a number cut"


def test_text_wraps_between_words_in_the_last_column():
    drawn = Fitted("", [Column("n"), Column("text", text=True)])
    drawn.add("1", "one two three four five six")
    assert drawn.lines(21) == [" n  text", " " + "─" * 16, " 1  one two three", "    four five six"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (47.1234, "47.1"), (1008.9, "1,010"), (99.96, "100"), (0.000425, "0.000425"), (-2.345, "-2.35"),
     (999.6, "1,000"), (123456, "123,000"), (5, "5.00"), (float("inf"), "inf")],
)  # fmt: skip
def test_three_digits(value, text):
    assert three(value) == text


def test_prefixes():
    assert units.with_prefix(47_100, "pJ") == "47.1 nJ"
    assert units.with_prefix(1_234_000, "pJ") == "1.23 µJ"
    assert units.with_prefix(210_304) == "210 k"
    assert units.with_prefix(49.3e9, "MAC") == "49.3 GMAC"


def test_of_several_runs_each_has_a_line_with_the_time_that_is_left(monkeypatch):
    now = iter([0, 90, 100, 101, 200, 320])
    monkeypatch.setattr("evaluation.cli.several.time.monotonic", lambda: next(now))
    console = Terminal(file=io.StringIO(), width=120)
    several = Several(console, 3)
    titles = []
    for method, was_finished in (("approxdarts", False), ("evoapproxnas", True), ("random", False)):
        titles.append(several.begin(Path("runs") / method))
        several.end(record(method), was_finished)
    assert titles[1] == f"run 2 of 3: {Path('runs') / 'evoapproxnas'}"
    first, second, third = console.file.getvalue().splitlines()
    assert first == (
        "run 1 of 3, approxdarts, seed 0: test error 1.67 % at 45.7 nJ; hypervolume 0.758; 90 s; about 3 min left"
    )
    assert second.endswith("; was finished; about 90 s left"), "a run that was found finished tells nothing of the time"
    assert third.endswith("; 2 min") and "left" not in third


def test_a_search_under_a_budget_shows_its_share():
    file = io.StringIO()
    with RunProgress(Terminal(file=file), "runs/x") as progress:
        progress.stage("search", 100, unit="% of 5s")
        progress.step(100, "step 1: validation error 10.0%")
        progress.stage("final", 4)
        progress.step(4, "loss 0.1")
    assert file.getvalue().splitlines() == [
        "runs/x",
        "  search 100 % of 5s  step 1: validation error 10.0%",
        "  final 4/4  loss 0.1",
    ]
