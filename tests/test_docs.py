"""The guides, followed as they stand; and what README promises: links that lead somewhere, commands that are understood."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation import interface
from methods import METHODS
from methods.method import Evaluation
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.multipliers.files.tables import read_multipliers
from spaces.registry import SPACES
from tests import tiny
from tests.guides import OWN, ROOT, Reader, blocks, commands
from tests.method_contract import CONTRACT

DOCS = ROOT / "docs"
ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*ROOT_PAGES, *sorted(DOCS.glob("*.md"))]


SMALL_SEARCH = {
    "random": {"samples": 2, "batch": 1},
    "cells": {"nodes": 1},
    "multipliers": ["mul8s_1KV8", "mul8s_1L2H"],
    "protocol": {
        "search_channels": 2, "final_channels": 2, "search_batch": 180, "batch": 180,
        "selection_epochs": 1, "final_epochs": 1, "finalists": 1,
    },
}  # fmt: skip


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Reader:
    """Somebody in an empty folder. What they install is known to nobody afterwards."""
    for registry in (METHODS, SPACES, COSTS, ARITHMETICS):
        len(registry)  # has looked for entry points, so that the next line is undone at the end
        monkeypatch.delitem(vars(registry), "_paths")
    return Reader(tmp_path, monkeypatch)


# -- a new method ------------------------------------------------------------------------------------------------------


def test_the_guide_to_a_new_method(reader):
    reader.follow(DOCS / "new-method.md")
    assert METHODS["annealing"].__module__ == "annealing"
    assert reader.collected == len(CONTRACT) + 2  # and two other spaces
    run = reader.folder / "runs" / "annealing-digits-quick-custom-s0-1"
    record = json.loads((run / "record.json").read_text())
    assert (record["method"], record["evaluations"], record["train_limit"]) == ("annealing", 5, 200)
    # Own flags are understood.
    for flag in ("--annealing.temperature",):
        configs = run_parse(["--method", "annealing", flag, "0.7"]).methods
        assert configs["annealing"].temperature == 0.7


def run_parse(arguments: list[str]):
    from evaluation.run import parse

    return parse(arguments)


def test_the_line_in_methods_makes_the_method_known(tmp_path):
    shutil.copytree(ROOT / "methods", tmp_path / "methods", ignore=shutil.ignore_patterns("__pycache__"))
    (code,) = [block for block in blocks(DOCS / "new-method.md") if block.file == "annealing.py"]
    (diff,) = [block for block in blocks(DOCS / "new-method.md") if block.language == "diff"]
    *context, added = (line[1:] for line in diff.text.splitlines())
    (tmp_path / "methods" / "annealing.py").write_text(code.text)
    registry = tmp_path / "methods" / "__init__.py"
    before = "\n".join(context)
    assert registry.read_text().count(f"{before}\n") == 1
    registry.write_text(registry.read_text().replace(before, f"{before}\n{added}"))
    line = [sys.executable, "-c", "import methods; print(methods.METHODS['annealing'])"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "<class 'methods.annealing.Annealing'>", done.stderr


@pytest.fixture
def annealing(tmp_path, monkeypatch):
    """The module of the guide."""
    (code,) = [block for block in blocks(DOCS / "new-method.md") if block.file == "annealing.py"]
    (tmp_path / "annealing.py").write_text(code.text)
    spec = importlib.util.spec_from_file_location("annealing", tmp_path / "annealing.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "annealing", module)
    spec.loader.exec_module(module)
    return module


def test_the_guides_method_walks_from_mutant_to_mutant(annealing):
    """Where better ones are taken always, and worse ones while it is warm, by brute force over what was evaluated."""
    problem = tiny.problem()
    rng, energies, walk, stands = np.random.default_rng(0), {}, [], []

    def evaluate(architectures):
        for architecture in architectures:
            energies[architecture.key] = rng.random()
        return [Evaluation(a.key, energies[a.key], 0.0, 1, 1) for a in architectures]

    mutate = problem.space.mutate

    def watched(architecture, rng):
        stands.append((len(energies), architecture.key))
        return mutate(architecture, rng)

    problem.evaluate, problem.space = evaluate, SimpleNamespace(sample=problem.space.sample, mutate=watched)
    method = annealing.Annealing(problem, annealing.AnnealingConfig(samples=60, temperature=1.0))
    while not method.finished:
        method.step()
        walk.append(energies[method.here])
    assert len(energies) == 60 and {trained for trained, _ in stands} == set(range(1, 60))
    steps = np.diff(walk)
    assert (steps[:20] > 0).any() and (steps <= 0).any() and not (steps[-5:] > 0.5).any()
    for trained, (before, energy) in enumerate(zip(walk, list(energies.values())[1:]), 1):
        if energy < before:
            assert walk[trained] == energy


def test_the_guides_method_ends_where_its_space_does(annealing):
    problem = tiny.problem(budget="1h")
    rng = np.random.default_rng(0)
    few = {architecture.key: architecture for architecture in (problem.space.sample(rng) for _ in range(9))}
    draw = lambda *_: list(few.values())[rng.integers(len(few))]  # noqa: E731 both to sample and to mutate
    problem.space = SimpleNamespace(sample=draw, mutate=draw)
    problem.evaluate = lambda drawn: [Evaluation(a.key, 0.5, 1.0, 1, 1) for a in drawn]
    method = annealing.Annealing(problem, annealing.AnnealingConfig())
    steps = 0
    while not method.finished:
        method.step()
        steps += 1
    assert method.evaluations.keys() == few.keys()
    assert steps == len(few) + 1  # the last found nothing new


@pytest.mark.usefixtures("annealing")
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_guides_method_keeps_the_contract(check, tmp_path):
    with METHODS.temporarily("annealing", "annealing:Annealing"):
        check("annealing", tmp_path)


def test_a_method_under_a_name_that_no_flag_can_have_is_refused():
    entry = METHODS.temporarily("simulated-annealing", "annealing:Annealing")
    with entry, pytest.raises(InputError, match="letters, digits and underscores"):
        run_parse(["--method", "simulated-annealing"])


# -- a new cost model, a new arithmetic -------------------------------------------------------------------------------


def test_the_guide_to_a_new_cost_and_a_new_arithmetic(reader):
    reader.follow(DOCS / "new-cost.md")
    (path,) = (reader.folder / "runs").glob("random-*/record.json")
    record = json.loads(path.read_text())
    assert record["cost"] == "macs" and {"macs", "horowitz45"} <= set(record["finalists"][0]["costs"])
    tested = record["finalists"][0]["accuracy"]["test"]
    assert [name for name in tested if tested[name] is not None] == ["int8", "approximate", "shifts"]


# -- a new space -------------------------------------------------------------------------------------------------------


def test_the_guide_to_a_new_space(reader):
    """Whose file is that of the contract tests, and whose line in the registry has its place there."""
    reader.follow(DOCS / "new-space.md")
    assert SPACES["chain"].__module__ == "chain_space"
    code, diff = (
        next(block for block in blocks(DOCS / "new-space.md") if block.language == language)
        for language in ("python", "diff")
    )
    assert code.text == f"# chain_space.py\n{(ROOT / 'tests' / 'chain_space.py').read_text()}"
    *context, _ = (line[1:] for line in diff.text.splitlines())
    assert (ROOT / "spaces" / "registry.py").read_text().count("\n".join(context)) == 1
    record = json.loads((reader.folder / "runs" / "random-digits-quick-custom-s0-1" / "record.json").read_text())
    assert (record["space"], record["space_config"]) == ("chain", {"length": 2})


# -- a new multiplier --------------------------------------------------------------------------------------------------


def test_the_guide_to_a_new_multiplier(reader):
    reader.follow(DOCS / "new-multiplier.md")
    found = {multiplier.name: multiplier for multiplier in read_multipliers(reader.folder / "circuits")}
    cut, swapped = found["mul8s_cut2"], found["mul8s_swapped"]
    assert (cut.power_mw, cut.area_um2, cut.delay_ns) == (0.301, 520.1, 1.31)
    assert (swapped.power_mw, swapped.area_um2, swapped.delay_ns) == (0.298, None, None)
    for a, b in ((-128, -127), (-1, 5), (3, 7), (127, -128), (2, -3)):
        assert cut.table[a + 128, b + 128] == (a - a % 4) * b  # a % 4 is what the two lowest bits hold
        assert swapped.table[a + 128, b + 128] == a * (b - b % 4)
    (run,) = (reader.folder / "runs").glob("random-*")
    record = json.loads((run / "record.json").read_text())
    assert record["multipliers"] == ["mul8s_1KV8", "mul8s_cut2", "mul8s_swapped"]
    assert record["tables"]["mul8s_cut2"] == cut.key
    (given,) = (reader.folder / "runs").glob("given-*")
    (finalist,) = json.loads((given / "record.json").read_text())["finalists"]
    energy = finalist["costs"]["horowitz45"]["split"]
    ratio = energy["approximate"]["multiplications"] / energy["int8"]["multiplications"]
    assert ratio == pytest.approx(0.301 / 0.425)
    assert (reader.folder / "error.png").read_bytes().startswith(b"\x89PNG")


# -- a new data set ----------------------------------------------------------------------------------------------------


def test_the_guide_to_a_new_data_set(reader):
    reader.follow(DOCS / "new-dataset.md")
    (run,) = (reader.folder / "runs").glob("*")
    record = json.loads((run / "record.json").read_text())
    (looked,) = [shown for shown in reader.shown if "archive 'stripes.tar.xz'" in shown]
    fingerprints = re.findall(r"\(120, 1, 12, 12\) (\w{8})", looked)
    assert fingerprints == [record["dataset_fingerprint"][:8]] * 2


# -- reading the report ------------------------------------------------------------------------------------------------


def test_the_guide_to_the_report(reader):
    shutil.copytree(ROOT / "reports" / "records", reader.folder / "reports" / "records")
    reader.follow(DOCS / "reading-the-report.md")
    report = reader.folder / "report"
    assert "ApproxNAS-Bench report" in (report / "index.html").read_text(encoding="utf-8")
    assert {"finalists.csv", "report.md", "section1-headline.tex", "section1-front.pdf"} <= {
        path.name for path in report.rglob("*")
    }


# -- all pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page):
    """By the parsers of the programs; nothing runs. What the guides add, and data that only a reader has, is not known."""
    for words in commands(page):
        text = " ".join(words)
        if (
            "-m" not in words
            or "--help" in words
            or "annealing" in text
            or "--space chain" in text
            or "…" in text
            or "NAME" in text
        ):
            continue
        at = words.index("-m")
        module, arguments = words[at + 1], words[at + 2 :]
        try:
            understand(module, arguments)
        except InputError as error:
            if not re.search(r"unknown (data set|cost model) |data set '.*' does not exist", str(error)):
                pytest.fail(f"{page.name}: {text}: {error}")


WITH_PYTHON = [page for page in PAGES if any(block.language == "python" and not block.file for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_without_a_file_name_runs(page, tmp_path, monkeypatch, capsys):
    """Of pages that are no guides to follow: each block by itself, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    search = interface.search

    def small(method: str, *, dataset: str, budget: str, seeds: int):
        """What was asked for is understood; what runs takes seconds."""
        run_parse(["--method", method, "--dataset", dataset, "--budget", budget, "--seeds", str(seeds)])
        return search("random", progress=False, **SMALL_SEARCH)

    monkeypatch.setattr(interface, "search", small)
    for block in blocks(page):
        if block.language == "python" and not block.file:
            exec(compile(block.text, page.name, "exec"), {"__name__": "example"})
    assert "Traceback" not in capsys.readouterr().err


def test_the_readme_is_short_and_its_test_command_is_what_ci_runs():
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.encode()) < 10_000
    (command,) = re.findall(r"<!-- test command -->\n```sh\n(.+)\n```", text)
    assert command in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    made = {"index.md", "commands.md", "reference.md", "changelog.md", "contributing.md"}
    assert sorted(listed) == sorted({page.name for page in PAGES[len(ROOT_PAGES) :]} | made)


def understand(module: str, arguments: list[str]) -> None:
    """Raises InputError, or an AssertionError where there is no such program."""
    if module in OWN:
        program = importlib.import_module(OWN[module])
        (program.parse if hasattr(program, "parse") else program.parser().parse)(arguments)
    else:
        assert importlib.util.find_spec(module), module
