"""The best-practice checklist: each answer follows from what the records hold, and from nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from reports import checklist
from reports.checklist import NO, UNKNOWN, YES, Item
from reports.load import load
from tests.made_records import ROOT, finalist, record, save

METHODS = ("approxdarts", "evoapproxnas", "random")
FULL = {
    "versions": {"approxnas-bench": "0.1.0", "torch": "2.13"},
    "tables": {"mul8s_1KV8": "f" * 64},
    "protocol": {
        "name": "quick",
        "hash": "a" * 64,
        "settings": {"final_epochs": 6, "final_lr": 0.1, "batch": 32, "weight_decay": 0.0},
    },
    "budget": "45s",
    "account": {"unit": "s", "spent": 46.0, "granted": 45.0},
}


def answers(tmp_path: Path, *records: dict) -> dict[str, Item]:
    """The items by a word of their question that no other has."""
    for number, made in enumerate(records):
        save(tmp_path / "runs" / f"r{number}", made)
    words = (
        "trains", "of the search space", "final training", "code of the search methods", "settings of the search",
        "benchmark:", "confounders", "ablation", "evaluation protocol", "over time", "random search", "repeated",
        "tabular", "tuned", "end to end", "all details",
    )  # fmt: skip
    items = checklist.checklist(load([tmp_path / "runs"]))
    assert len(items) == len(words)
    assert all(word in item.question for word, item in zip(words, items))
    return dict(zip(words, items))


def comparison(seeds: int = 2, **changes) -> list[dict]:
    """Three methods under the same conditions, complete records."""
    return [record(method=method, seed=seed, **{**FULL, **changes}) for method in METHODS for seed in range(seeds)]


def test_a_full_comparison_is_good_practice_but_for_what_records_cannot_show(tmp_path):
    items = answers(tmp_path, *comparison())
    assert {word: item.answer for word, item in items.items() if item.answer != YES} == {
        "ablation": NO,
        "tabular": NO,
        "tuned": UNKNOWN,
    }
    assert "approxdarts: 2 seeds (0, 1)" in items["repeated"].evidence
    # Three pairs of methods, Holm: 3 · 2^(1 − n) < 0.05 from n = 7 on.
    assert items["repeated"].evidence.endswith("takes 7 seeds of each.")
    # 6 runs of 36 + 72 + 360 + 3.6 s = 471.6 s each: 0.786 h.
    assert "0.786 device-hours" in items["end to end"].evidence
    assert "version 0.1.0" in items["trains"].evidence and "quick (aaaaaaaa)" in items["final training"].evidence
    assert "at 2 moments" in items["over time"].evidence
    assert items["random search"].runs == ("r4", "r5")


def test_one_run_compares_nothing(tmp_path):
    items = answers(tmp_path, record(method="approxdarts", **FULL))
    for word in ("benchmark:", "confounders", "evaluation protocol"):
        assert items[word].answer == UNKNOWN and "No section holds two methods (approxdarts)" in items[word].evidence
    assert items["random search"].answer == items["repeated"].answer == NO


@pytest.mark.parametrize("spent", [40.0, 50.0])  # less than others, and more than granted
def test_a_method_that_spent_another_amount_is_told_with_its_figure(spent, tmp_path):
    runs = comparison()
    for run in runs:
        if run["method"] == "random":
            run["account"] = {"unit": "s", "spent": spent, "granted": 45.0}
    found = answers(tmp_path, *runs)["confounders"]
    assert (found.answer, "✗" in found.evidence) == (NO, True)
    assert (
        f"spent of 45 s, search and selection together: approxdarts 46 s, evoapproxnas 46 s, random {spent:.0f} s"
        in found.evidence
    )


def test_an_ablation_does_not_make_the_comparison_unfair(tmp_path):
    variant = record(**{**FULL, "seed": 0, "multipliers": ["mul8s_1KVA"], "anytime": record()["anytime"][-1:]})
    items = answers(tmp_path, *comparison(), variant)
    assert [items[word].answer for word in ("benchmark:", "confounders", "ablation", "over time")] == [YES] * 4


def test_random_search_alone_is_no_comparison_with_it(tmp_path):
    assert answers(tmp_path, record(**FULL))["random search"].answer == UNKNOWN


def test_the_budget_of_random_search_is_called_the_same_only_where_it_is(tmp_path):
    same, other = comparison(), comparison()
    for made in other:
        made["budget"] = "10s" if made["method"] == "random" else "45s"
    assert answers(tmp_path / "same", *same)["random search"].evidence.endswith("same protocol and budget.")
    assert answers(tmp_path / "other", *other)["random search"].evidence.endswith("same protocol; budgets differ.")


@pytest.mark.parametrize(
    ("word", "answer", "changes", "evidence"),
    [
        ("trains", UNKNOWN, {"versions": {"approxnas-bench": "not installed"}}, "1 run does not record the version"),
        ("trains", UNKNOWN, {"versions": None}, "1 run does not record the version"),
        ("of the search space", UNKNOWN, {"space": "theirs"}, "theirs"),
        ("final training", NO, {"protocol": {"name": "quick", "hash": "a" * 64}}, "not its settings"),
        ("code of the search methods", UNKNOWN, {"method": "theirs"}, "Not part of this suite: theirs"),
        ("settings of the search", NO, {"method_config": None}, "1 run does not hold"),
        ("benchmark:", NO, {"multipliers": ["mul8s_1KVA"]}, "runs differ in multipliers"),
        ("confounders", NO, {"device": {"type": "cpu", "name": "another", "count": 1}}, "runs differ in name"),
        ("confounders", NO, {"budget": "90s"}, "runs differ in budget"),
        ("confounders", NO, {"notes": ["resumed on cpu after cuda at step 3"]}, "moved between devices"),
        ("confounders", NO, {"versions": {"approxnas-bench": "0.1.0", "torch": "2.12"}}, "version of torch"),
        ("confounders", NO, {"engine": "gather"}, "differ in engine"),
        ("confounders", NO, {"deterministic": True}, "differ in bit for bit"),
        ("ablation", YES, {"method_config": {"samples": 99}}, "random (samples=99)"),
        ("ablation", NO, {"device": {"type": "cpu", "name": "another"}}, "No section"),
        ("ablation", NO, {"budget": "10s"}, "No section"),
        ("over time", NO, {"anytime": []}, "1 run does not tell"),
        ("all details", NO, {"tables": None, "versions": {}}, "versions (1 run), tables (1 run)"),
    ],
)
def test_one_run_that_differs_changes_the_answer(tmp_path, word, answer, changes, evidence):
    if word in ("benchmark:", "confounders"):
        changes = {"method": "fourth", **changes}  # a method's own unusual runs are compared with no other method
    odd = record(**{**FULL, "seed": 9, **changes})
    item = answers(tmp_path, *comparison(), odd)[word]
    assert (item.answer, evidence in item.evidence) == (answer, True), item
    assert item.runs in ((), ("r6",))


def test_given_architectures_are_no_search(tmp_path):
    items = answers(tmp_path, record(finalist(validation=None), method="given-DARTS_V2", anytime=[], **FULL))
    assert items["over time"].answer == UNKNOWN and items["code of the search methods"].answer == YES


def test_every_section_counts(tmp_path):
    items = answers(tmp_path, *comparison(), record(method="approxdarts", dataset="cifar10", **FULL))
    assert items["random search"].answer == NO and "cifar10" in items["random search"].evidence
    assert "digits" not in items["random search"].evidence
    assert "the 2 are never compared" in items["evaluation protocol"].evidence


def test_names_are_those_of_the_suite():
    from evaluation.runs.architecture_files import SPACES

    assert set(checklist.SPACES) == set(SPACES)


def test_importing_leaves_torch_alone():
    code = "import sys, reports.checklist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0
