"""The suite from Python: the same runs as the command's, results as tables and networks, errors that are raised."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import evaluation as ev
from evaluation.cli.plan import plan_runs
from evaluation.export.exporting import TrainedFinalist
from evaluation.run import parse
from evaluation.runs.folder import RECORD
from reports.paper.__main__ import RECORDS
from spaces.cli.terminal import Terminal
from tests.running import SMALL_RANDOM

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SMALL = {
    "random": {"samples": 3, "batch": 1},
    "cells": {"nodes": 1},
    "multipliers": ["mul8s_1KV8", "mul8s_1L2H"],
    "protocol": {
        "search_channels": 2, "final_channels": 2, "search_batch": 180, "batch": 180,
        "selection_epochs": 1, "final_epochs": 2, "finalists": 2, "finalist_margin": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return ev.search("random", out=tmp_path_factory.mktemp("runs"), progress=False, **SMALL)


@pytest.fixture(scope="module")
def kept():
    return ev.load(*(RECORDS / f"{name}-digits-quick-s{seed}" for name in ("approxdarts", "random") for seed in (0, 1)))


def test_a_search_is_the_run_that_the_command_would_make(found):
    (run,) = found.runs
    (planned,), _ = plan_runs(parse(SMALL_RANDOM), "")
    made = run.folder.config()
    assert made.to_json() | {"command": ""} == planned.to_json()
    words = made.command.split()
    assert words[:5] == ["python", "-m", "evaluation.run", "--method", "random"]
    (again,), _ = plan_runs(parse(words[3:]), made.command)
    assert again.to_json() == made.to_json(), "the command in the record makes the same run"


def test_the_best_network_answers_as_its_record_says(found):
    best = found.best
    assert best.test_error == min(each.test_error for each in found.networks)
    trained = TrainedFinalist(best.run.folder.path, best.number)
    network, wrong, images = best.network(), 0, 0
    for pixels, labels in trained.images.in_order(90):
        wrong += int((network(pixels).argmax(1) != labels).sum())
        images += len(labels)
    assert wrong / images == pytest.approx(best.test_error, abs=1e-9)
    assert best.architecture.key == best.figures.key


def test_an_export_is_checked(found, tmp_path):
    assert "the same logits bit for bit" in found.export(tmp_path / "network")
    with pytest.raises(ev.InputError, match="is not empty"):
        found.best.export(tmp_path / "network")


def test_its_tables_hold_what_the_records_do(kept):
    finalists = kept.finalists
    assert len(finalists) == sum(len(run.record.finalists) for run in kept.runs) == len(kept.networks)
    first, row = kept.runs[0].record, finalists.iloc[0]
    assert (row["method"], row["seed"], row["finalist"]) == ("approxdarts", 0, 1)
    tests = first.finalists[0].accuracy.test
    assert row["test_error"] == pytest.approx(1 - tests["approximate"])
    assert row["test_error_int8"] == pytest.approx(1 - tests["int8"])
    assert row["cost"] == first.finalists[0].costs["horowitz45"].values["approximate"] and row["unit"] == "pJ"
    front = kept.front.query("method == 'random' and seed == 1")
    assert [*zip(front["validation_error"], front["cost"])] == [*kept.runs[3].record.anytime[-1].front]
    lines = (RECORDS / "random-digits-quick-s1" / "history.jsonl").read_text().splitlines()
    assert len(kept.history.query("method == 'random' and seed == 1")) == len(lines)


def test_a_notebook_shows_a_table_and_a_picture(kept):
    html = kept._repr_html_()
    assert html.count("<tr>") == 1 + len(kept.networks) and "45.7 nJ" in html
    (axes,) = kept.plot().axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["approxdarts", "random"]
    assert axes.get_xlabel() == "energy per inference, nJ" and len(axes.lines) == 4
    assert repr(kept) == f"<4 runs of approxdarts, random on digits, {len(kept.networks)} finalists>"


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("randon", {}, "did you mean random"),
        ([], {}, "--method"),
        (["random", "random"], {}, "named twice"),
        ("random", {"protocl": "quick"}, "unknown key 'protocl'; did you mean protocol"),
        ("random", {"dataset": "nope"}, "'nope'"),
        ("random", {"budget": "soon"}, "budget 'soon' is not understood"),
        ("random", {"seeds": 0}, "--seeds must be between"),
        ("random", {"seeds": "many"}, "many"),
        ("random", {"random": {"sample": 3}}, "did you mean random.samples"),
        ("random", {"multipliers": []}, "--multipliers needs"),
        ("random", {"multipliers": ["mul8s_1KV9"]}, "mul8s_1KV9"),
        ("random", {"resume": "runs"}, "resume is for the command line"),
        ("random", {"cost": "bar"}, "unknown cost model 'bar'"),
    ],
)
def test_what_is_wrong_is_raised(method, settings, says, tmp_path):
    with pytest.raises(ev.InputError) as raised:
        ev.search(method, out=tmp_path / "runs", progress=False, **settings)
    assert says in str(raised.value)
    assert not (tmp_path / "runs").exists()


def test_only_finished_runs_are_loaded(tmp_path):
    for folders, says in (((), "at least one"), ((tmp_path,), f"has no {RECORD}"), (("nowhere",), "nowhere")):
        with pytest.raises(ev.InputError, match=says):
            ev.load(*folders)
    with pytest.raises(ev.InputError, match="5 is not the path of a run folder"):
        ev.load(5)
    with pytest.raises(ev.InputError, match=r"config\.json|weights"):
        ev.load(RECORDS / "random-digits-quick-s0").best.network()


def test_to_import_it_needs_neither_torch_nor_pandas():
    program = "import sys, evaluation as ev; ev.search, ev.load, ev.SearchResult; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "matplotlib"} & set(imported.stdout.split())
    assert {"search", "load"} <= set(dir(ev))
    with pytest.raises(AttributeError, match="serach"):
        ev.serach  # noqa: B018


def test_progress_in_a_notebook_is_one_output_that_is_written_anew(monkeypatch):
    shown = []

    class Handle:
        def update(self, data: dict, raw: bool) -> None:
            assert raw
            shown.append(data["text/plain"])

    def display(data: dict, raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        shown.append(data["text/plain"])
        return Handle()

    fake = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=fake))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    from evaluation.runs.notebook_progress import NotebookProgress

    with NotebookProgress(Terminal(), "run 1 of 2: runs/x") as progress:
        progress.stage("search", 100, unit="% of 60s")
        progress.step(40, "step 3: 12 %")
        progress.stage("final", 6, done=2)
    title = "run 1 of 2: runs/x"
    assert shown == [
        title,
        f"{title}  search 0 % of 60s",
        f"{title}  search 40 % of 60s  step 3: 12 %",
        f"{title}  final 2/6",
        f"{title}  final 2/6",
    ]


def test_the_quickstart_notebook_runs_as_it_stands(tmp_path, monkeypatch):
    """Its cells in order, with smaller networks."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict = {}
    codes = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs would grow old"
    for code in codes:
        *before, last = code.splitlines()
        exec("\n".join(before), names)
        value = None
        try:
            value = eval(last, names)
        except SyntaxError:
            exec(last, names)
        if "settings" in names and "result" not in names:
            names["settings"] |= {"budget": "1s", "progress": False, "snapshots": 0, **SMALL}
            names["settings"]["protocol"] = SMALL["protocol"] | {"finalists": 1, "final_epochs": 1}
            names["settings"]["approxdarts"] = {"epochs": 1, "warmup": 0, "proposals": 2}
    assert 0 <= value <= 1 and value == names["result"].best.test_error
