"""Comparing finished runs: the figures by hand, what is said aloud, and the command line from plan to table."""

import io
import json
import math
from dataclasses import replace

import pytest

from evaluation.cli import comparison
from evaluation.cli.plan import plan_runs
from evaluation.run import parse
from evaluation.runs.folder import read_record
from evaluation.runs.record import Device, LedgerRow, Moment, Record
from evaluation.settings.config import Budget, Spent
from methods.fronts import relative_hypervolume, representatives
from methods.method import Evaluation
from spaces.cli.terminal import Terminal
from spaces.errors import InputError
from tests import made_records
from tests.running import SMALL_FLAGS, run_here


def record(
    method: str, moments: list[tuple[float, float]], front: list[tuple[float, float]], seed=0, **changes
) -> Record:
    """``moments``: (device-seconds, hypervolume), the last at the end of the search."""
    seconds = moments[-1][0]
    made = Record.from_json(made_records.record(method=method, seed=seed))
    searched = replace(
        made,
        space_config={"nodes": 4},
        budget="90s",
        snapshots=2,
        method_config={"samples": 3},
        hypervolume=moments[-1][1],
        ledger=made.ledger | {"search": LedgerRow(seconds, seconds)},
        anytime=tuple(Moment(s, h, tuple(front)) for s, h in moments),
    )
    return replace(searched, **changes)


FAST = [
    record("fast", [(10, 0.5), (20, 0.7), (40, 0.9)], [[0.1, 900.0], [0.2, 300.0]], 0),
    record("fast", [(10, 0.3), (20, 0.6), (40, 0.8)], [[0.05, 800.0], [0.3, 200.0]], 1),
    record("fast", [(10, 0.2), (20, 0.3), (40, 0.7)], [[0.15, 500.0]], 2),
]
SLOW = [
    record("slow", [(10, 0.1), (20, 0.2), (44, 0.6)], [[0.2, 700.0], [0.4, 100.0]], 0),
    record("slow", [(10, 0.1), (20, 0.5), (30, 0.65)], [[0.3, 400.0]], 1),
    record("slow", [(10, 0.1), (20, 0.4), (48, 0.5)], [[0.1, 950.0], [0.25, 450.0]], 2),
]


def shown(runs: list[Record], width: int = 80) -> str:
    text = io.StringIO()
    comparison.show(Terminal(file=text, width=width), runs)
    return text.getvalue()


def test_the_figures_by_hand():
    runs = FAST + SLOW
    assert comparison.cost_limit(runs[0]) == 250.0  # a quarter of the reference's 1,000 pJ
    assert [comparison.error_within(r, 450.0) for r in runs] == [0.2, 0.3, math.inf, 0.4, 0.3, 0.25]
    assert comparison.target_hypervolume(runs) == 0.6  # the median of 0.6, 0.65 and 0.5
    assert [comparison.seconds_to(r, 0.6) for r in runs] == [20, 20, 40, 44, 30, math.inf]
    assert comparison.speed_ups(runs) == {"fast": 44 / 20, "slow": 1.0}
    timeless = [replace(r, anytime=tuple(replace(s, device_seconds=0.0) for s in r.anytime)) for r in FAST]
    assert comparison.speed_ups([*timeless, *SLOW]) == {} and "none" in shown([*timeless, *SLOW])
    # Seed by seed 0.9 − 0.6, 0.8 − 0.65 and 0.7 − 0.5: all of one sign, as 2 of the 8 patterns of signs are.
    (pair,) = comparison.paired(runs)
    assert pair.differences == pytest.approx((0.3, 0.15, 0.2))
    assert (pair.p, pair.effect) == (pytest.approx(2 / 8), 1.0)


def test_a_tie_is_said_and_a_difference_is_not_called_one():
    assert "fast and slow: not distinguishable" in shown(FAST + SLOW)  # three runs each cannot tell
    assert "so few pairs can never show a difference, it takes 6 seeds of both" in shown(FAST + SLOW, 300)
    many = [
        record(name, [(40, h + n / 100)], [[0.1, 1.0]], n) for name, h in (("up", 0.6), ("down", 0.3)) for n in range(6)
    ]
    # 2 of 2^6 patterns of signs.
    verdict = "up and down: up has the larger hypervolume (median difference +0.300, p = 0.031, 6 pairs, r = +1.00)"
    assert verdict in shown(many, 200)
    assert "so few pairs" not in shown(many, 300)
    assert "so few pairs" in shown(many[:6] + many[6:11], 300)  # six and five make five pairs
    assert "known at 3 moments" in shown(many)  # two snapshots and the end, whatever a step skipped
    assert "Wilcoxon signed-rank" in shown(many, 200) and "Wilcoxon" not in shown(many[:6], 200)


def test_settings_of_one_method_are_told_apart():
    other = [replace(run, method_config={"samples": 5}) for run in FAST]
    assert set(comparison.by_method(FAST + other + SLOW)) == {"fast\nsamples=3", "fast\nsamples=5", "slow"}


def test_the_table_fits_a_narrow_terminal():
    text = shown(FAST + SLOW)
    assert "…" not in text
    for cell in (
        "0.800",
        "0.700–0.900",
        "0.600",
        "0.500–0.650",
        "30.0–none",
        "≤ 250 pJ",
        "20.0–40.0",
        "30.0–never",
        "2.20",
    ):
        assert cell in text, cell


def test_runs_that_differ_in_more_than_the_method_share_no_table():
    other = [
        record("slow", [(10, 0.1)], [[0.1, 1.0]], budget="5m"),
        record("slow", [(10, 0.1)], [[0.1, 1.0]], space="grid"),
        record("slow", [(10, 0.1)], [[0.1, 1.0]], train_limit=2000),
    ]
    other += [replace(FAST[0], device=Device("cuda", "a GPU"))]
    assert shown([FAST[0], *other]) == ""
    assert shown([*FAST, *other]).count("comparison on") == 1
    whole = [replace(run, tables={}, dataset_origin=None) for run in SLOW]  # as older records
    assert shown([*FAST, *whole]).count("comparison on") == 1
    limited = [replace(run, train_limit=2000) for run in FAST + SLOW]
    assert "comparison on digits (2,000 training images), space cells" in shown(limited, 200)


# -- what a front is worth ---------------------------------------------------------------------------------------------


def evaluation(error: float, energy: float, failure: str | None = None) -> Evaluation:
    return Evaluation(f"{error} {energy}", error, energy, 1, 1, failure)


def test_relative_hypervolume_by_hand():
    points = [evaluation(0.5, 20.0), evaluation(0.2, 60.0), evaluation(0.6, 90.0), evaluation(0.0, 1.0, "failed")]
    assert relative_hypervolume(points, 100.0) == pytest.approx(0.5 * 0.4 + 0.8 * 0.4)
    assert relative_hypervolume([evaluation(0.1, 200.0)], 100.0) == 0.0
    assert relative_hypervolume([], 100.0) == 0.0


def test_representatives_begin_with_the_best_and_add_most_hypervolume():
    front = [evaluation(0.1, 90.0), evaluation(0.11, 89.0), evaluation(0.3, 40.0), evaluation(0.6, 10.0)]
    dominated = evaluation(0.7, 95.0)
    chosen = representatives([*front, dominated], 3, 100.0)
    assert [e.error for e in chosen] == [0.1, 0.3, 0.6]
    assert representatives([*front, dominated], 9, 100.0)[0] is front[0]
    assert len(representatives([*front, dominated], 9, 100.0)) == 4
    assert representatives([], 3, 100.0) == []


# -- the plan ----------------------------------------------------------------------------------------------------------


def planned(*arguments: str):
    return plan_runs(parse(list(arguments)), "command")[0]


def test_methods_are_compared_on_one_space_with_one_budget_and_seed_by_seed():
    plan = planned("--method", "approxdarts", "evoapproxnas", "random", "--seeds", "2")
    assert [(c.method, c.seed) for c in plan] == [
        (name, seed) for seed in (0, 1) for name in ("approxdarts", "evoapproxnas", "random")
    ]
    assert {(c.space, c.budget, c.snapshots) for c in plan} == {("cells", "90s", 3)}


def test_alone_a_method_takes_its_native_space_and_its_own_end():
    for name, space in (("approxdarts", "cells"), ("evoapproxnas", "grid"), ("random", "cells")):
        (config,) = planned("--method", name)
        assert (config.space, config.budget, config.snapshots) == (space, "", 0)


def test_what_is_asked_for_is_kept():
    flags = (
        "--space",
        "grid",
        "--budget",
        "50evals",
        "--snapshots",
        "2",
        "--grid.rows",
        "2",
        "--grid.columns",
        "7",
        "--grid.levels-back",
        "3",
    )
    for config in planned("--method", "evoapproxnas", "random", *flags):
        assert (config.space, config.budget, config.snapshots) == ("grid", "50evals", 2)
        assert config.space_config == {"rows": 2, "columns": 7, "levels_back": 3}


def test_budgets():
    assert Budget.parse("200evals") == Budget(evaluations=200)
    assert Budget.parse("2e13macs") == Budget(work=2e13) and Budget.parse("1.5e6MACs") == Budget(work=1.5e6)
    assert Budget.parse("1eval").share(Spent(1e9, 10, 1, 1e20)) == 1.0
    assert Budget.parse("10steps").share(Spent(1e9, 5, 0, 1e20)) == 0.5
    assert Budget.parse("2m").share(Spent(30, 5, 0, 1e20)) == 0.25
    assert Budget.parse("1e12macs").share(Spent(1e9, 5, 7, 25e10)) == 0.25
    assert Budget.parse("").share(Spent(1e9, 5, 7, 1e20)) == 0.0
    for text in ("0s", "1.5evals", "10", "evals", "-3s", "1e3evals", "0macs", "1e999macs"):
        with pytest.raises(InputError, match="not understood"):
            Budget.parse(text)


def test_what_is_reserved_is_no_part_of_the_budget():
    spent = Spent(30, 5, 7, 3e12)
    assert Budget.parse("2m").share(spent, 60, 9e12) == 0.5
    assert Budget.parse("1e13macs").share(spent, 1e9, 4e12) == pytest.approx(0.5)
    assert Budget.parse("1e13macs").share(spent, 0, 1e13) == 1.0


# -- the command line --------------------------------------------------------------------------------------------------

SMALL = ["--random.batch", "1", "--evoapproxnas.population", "2", "--evoapproxnas.offspring", "1", *SMALL_FLAGS]


def test_a_comparison_from_the_command_to_the_table(tmp_path):
    flags = ["--method", "evoapproxnas", "random", "--budget", "4evals", "--snapshots", "1", "--baselines", "none"]
    answer = run_here(*flags, *SMALL, "--out", str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert "comparison on digits, space cells" in answer.stdout and "× faster" in answer.stdout
    runs = [read_record(path) for path in sorted(tmp_path.glob("*/record.json"))]
    assert [run.method for run in runs] == ["evoapproxnas", "random"]
    for run in runs:
        assert run.evaluations == 4
        assert [moment.mark for moment in run.anytime] == [1, 2]
        assert run.anytime[0].evaluations < 4
        assert run.ledger["snapshots"].device_seconds > 0
        assert 0 < run.search_training_seconds <= run.ledger["search"].device_seconds
        assert run.hypervolume == run.anytime[-1].hypervolume
        assert run.space_config == {"nodes": 1}
    again = run_here("--resume", *map(str, tmp_path.iterdir()))
    assert again.returncode == 0, again.stderr
    assert "comparison on digits" in again.stdout


def test_evolution_on_its_native_space_draws_its_networks(tmp_path):
    flags = [
        "--method",
        "evoapproxnas",
        "--evoapproxnas.generations",
        "2",
        "--grid.columns",
        "6",
        "--grid.levels-back",
        "3",
    ]
    small = SMALL[2 : SMALL.index("--cells.nodes")] + SMALL[SMALL.index("--cells.nodes") + 2 :]
    answer = run_here(*flags, *small, "--out", str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    (folder,) = tmp_path.iterdir()
    run = read_record(folder / "record.json")
    assert (run.space, run.space_config) == ("grid", {"rows": 5, "columns": 6, "levels_back": 3})
    assert (folder / "finalist1.svg").read_text().startswith("<?xml")
    assert json.loads((folder / "proposals.json").read_text())[0]["space"] == "grid"


def test_one_failing_run_does_not_stop_the_others(tmp_path):
    """The only candidate of the first seed diverges at this learning rate, and so do all others: each says so."""
    wild = ["--method", "random", "--random.samples", "1", "--seeds", "2", "--protocol.selection-lr", "1e30"]
    flags = [flag for flag in SMALL_FLAGS if flag != "--cells.nodes"][1:]
    answer = run_here(*wild, "--protocol.clip", "1e30", "--random.batch", "1", *flags, "--out", str(tmp_path))
    assert answer.returncode == 2
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 2 and all("every candidate failed" in line for line in lines)
    assert ["s0" in lines[0], "s1" in lines[1]] == [True, True]


BAD = {
    "no rows": (["--grid.rows", "0"], "at least one row"),
    "levels-back": (["--grid.levels-back", "31"], "levels-back must lie between 1 and the number of columns (30)"),
    "population": (["--evoapproxnas.population", "1"], "at least 2"),
    "budget below a generation": (["--budget", "3evals"], "below the first population"),
    "empty library": (["--multipliers"], "--multipliers"),
    "scope": (["--scope", "separable"], "no separable convolutions"),
    "choice": (["--multiplier-choice", "cell"], "edge (node) or network"),
    "space of another method": (
        ["--method", "approxdarts", "--space", "grid"],
        "differentiable spaces (cells or bench), not 'grid'",
    ),
    "rungs": (["--evoapproxnas.rungs", "9"], "rungs need at least"),
    "snapshots": (["--snapshots", "-2"], "--snapshots must be between"),
    "unknown space": (["--space", "gird"], "grid"),
    "candidates of approxdarts": (["--method", "approxdarts", "random", "--budget", "9evals"], "trains no candidates"),
    "no generation": (["--evoapproxnas.generations", "0"], "one generation"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused_before_anything_is_trained(case, tmp_path):
    arguments, expected = BAD[case]
    method = [] if "--method" in arguments else ["--method", "evoapproxnas"]
    answer = run_here(*method, *arguments, "--out", str(tmp_path / "runs"))
    assert answer.returncode == 2, answer.stdout
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert expected in answer.stderr
    assert not (tmp_path / "runs").exists()
