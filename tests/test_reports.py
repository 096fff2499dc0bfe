"""The report: hand-computed means and deviations, groups that never mix, and what is left out."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reports import build

ROOT = Path(__file__).parents[1]
NAN = float("nan")


def energies(fp32: float, int8: float, approximate: float) -> dict:
    """One accounting of a finalist; a tenth of every total is additions, memory is seven times the total."""
    totals = {"fp32": fp32, "int8": int8, "approximate": approximate}
    return {
        **{f"{name}_pj": total for name, total in totals.items()},
        "saving_vs_fp32": 1 - approximate / fp32,
        "saving_vs_int8": 1 - approximate / int8,
        "split": {
            name: {"multiplications_pj": 0.9 * total, "additions_pj": 0.1 * total, "memory_pj": 7.0 * total}
            for name, total in totals.items()
        },
    }


def finalist(validation=0.9, fp32=0.99, int8=0.95, approximate=0.94, pj=150.0) -> dict:
    return {
        "architecture": {},
        "key": "abcdef0123456789",
        "params": 1234,
        "macs": 56789,
        "accuracy": {"validation": validation, "test": {"fp32": fp32, "int8": int8, "approximate": approximate}},
        "energy": {"horowitz45": energies(1000.0, 200.0, pj), "approxdarts": energies(800.0, 400.0, 2 * pj)},
    }


def record(*finalists: dict, method="random", seed=0, digest="a" * 64, **changes) -> dict:
    """A valid record: 36, 72, 360 and 3.6 device-seconds in the four stages."""
    seconds = {"search": 36.0, "selection": 72.0, "final": 360.0, "test": 3.6}
    return {
        "schema": 2,
        "status": "complete",
        "method": method,
        "method_config": {"samples": 12},
        "space": "cells",
        "dataset": "digits",
        "dataset_origin": "UCI digits",
        "dataset_fingerprint": "f" * 64,
        "seed": seed,
        "protocol": {"name": "quick", "hash": digest},
        "scope": "all",
        "multiplier_choice": "edge",
        "energy_model": "horowitz45",
        "multipliers": ["mul8s_1KV8"],
        "budget": "",
        "command": f"python -m evaluation.run --method {method}, --seed {seed}",
        "device": {"type": "cpu", "name": "a | processor", "count": 1},
        "ledger": {stage: {"device_seconds": s, "wall_seconds": s} for stage, s in seconds.items()},
        "hypervolume": 0.1 + 0.2,  # 0.30000000000000004: must survive the CSV file
        "finalists": list(finalists or [finalist()]),
        "failures": [],
        **changes,
    }


def save(folder: Path, content: dict | str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "record.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def report(tmp_path: Path, *paths: Path) -> tuple[str, list[dict]]:
    """The Markdown text and the rows of the CSV file for ``paths`` (default: tmp_path/runs)."""
    out = tmp_path / "report"
    assert build.main([*map(str, paths or [tmp_path / "runs"]), "--out", str(out)]) == 0
    with (out / "comparison.csv").open(newline="", encoding="utf-8") as file:
        return (out / "comparison.md").read_text(encoding="utf-8"), list(csv.DictReader(file))


def tables(markdown: str) -> list[list[dict[str, str]]]:
    """Every table as rows by header; asserts that each row has as many cells as its header."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", markdown, flags=re.MULTILINE):
        lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert {len(line) for line in lines} == {len(lines[0])}
        assert all(re.fullmatch("---:?", cell) for cell in lines[1])
        found.append([dict(zip(lines[0], line)) for line in lines[2:]])
    return found


def command(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "reports.build", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def three_seeds(tmp_path: Path) -> Path:
    """Test accuracies 90, 92, 97 % and 150, 160, 170 pJ; the run of seed 2 has no int8 baseline."""
    for seed, approximate, int8, pj in ((0, 0.90, 0.95, 150.0), (1, 0.92, 0.95, 160.0), (2, 0.97, None, 170.0)):
        made = record(finalist(approximate=approximate, int8=int8, pj=pj), seed=seed)
        save(tmp_path / "runs" / f"s{seed}", made)
    return tmp_path


def test_means_and_deviations_over_seeds(three_seeds):
    (row,), finalists = tables(report(three_seeds)[0])
    assert (row["method"], row["runs"], row["seeds"], row["energy model"]) == ("random", "3", "0 1 2", "horowitz45")
    # Deviations −3, −1, 4 around 93: √((9 + 1 + 16) / 2) = √13 = 3.606.
    assert row["test approximate, %"] == "93.00 ± 3.61"
    assert row["test fp32, %"] == "99.00 ± 0.00"
    assert row["test int8, %"] == "95.00 ± 0.00 (2 of 3)"
    # 95 − 90 = 5 and 95 − 92 = 3: mean 4, deviation √2. Not 95 − 93.
    assert row["drop vs int8, points"] == "4.00 ± 1.41 (2 of 3)"
    assert row["approximate, pJ"] == "160 ± 10"
    assert row["saved vs fp32, %"] == "84.00 ± 1.00"  # 85, 84, 83 of 1000 pJ
    assert row["saved vs int8, %"] == "20.00 ± 5.00"  # 25, 20, 15 of 200 pJ
    hours = [row[f"{stage}, device-h"].split()[0] for stage in ("search", "selection", "final", "test", "total")]
    assert hours == ["0.0100", "0.0200", "0.1000", "0.0010", "0.1310"]
    assert [(line["seed"], line["drop vs int8, points"]) for line in finalists] == [
        ("0", "5.00"),
        ("1", "3.00"),
        ("2", "–"),
    ]


def test_one_run_has_no_deviation_and_unmeasured_is_a_dash(tmp_path):
    save(tmp_path / "runs" / "a", record(finalist(int8=None, fp32=None)))
    (row,), _ = tables(report(tmp_path)[0])
    assert row["test approximate, %"] == "94.00"
    assert (row["test fp32, %"], row["test int8, %"], row["drop vs int8, points"]) == ("–", "–", "–")


def test_best_finalist_is_chosen_on_validation_never_on_test(tmp_path):
    flattering, best = finalist(validation=0.8, approximate=0.99), finalist(validation=0.9, approximate=0.7)
    save(tmp_path / "runs" / "a", record(flattering, best))
    (row,), finalists = tables(report(tmp_path)[0])
    assert row["test approximate, %"] == "70.00"
    assert [line["best on validation"] for line in finalists] == ["", "yes"]


def test_best_finalist_whose_training_failed_is_not_replaced(tmp_path):
    failure = {"stage": "final", "key": "abcdef01", "reason": "FloatingPointError: loss is nan"}
    made = record(finalist(0.8), finalist(0.9, approximate=None), failures=[failure, failure])
    save(tmp_path / "runs" / "a", made)
    markdown, _ = report(tmp_path)
    assert tables(markdown)[0][0]["test approximate, %"] == "–"
    assert "final: FloatingPointError: loss is nan (2 ×)" in markdown


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "b" * 64},
        {"scope": "separable"},
        {"dataset": "cifar10"},
        {"dataset_fingerprint": "0" * 64},  # another folder of the same name
        {"train_limit": 2000},
    ],
)
def test_groups_never_mix(tmp_path, other):
    save(tmp_path / "runs" / "a", record(finalist(approximate=0.8)))
    save(tmp_path / "runs" / "b", record(finalist(approximate=0.6), seed=1, **other))
    markdown, _ = report(tmp_path)
    methods = tables(markdown)[::2]
    assert sorted(row["test approximate, %"] for table in methods for row in table) == ["60.00", "80.00"]
    assert [len(table) for table in methods] == [1, 1]
    assert markdown.count("protocol quick (") == 2 and markdown.count("Data: UCI digits") == 2


@pytest.mark.parametrize(
    "other",
    [
        {"method_config": {"samples": 99}},
        {"multipliers": ["mul8s_1KVA"]},
        {"energy_model": "approxdarts"},
        {"device": {"type": "cuda", "name": "H100", "count": 1}},
    ],
)
def test_other_settings_are_no_repetitions(tmp_path, other):
    save(tmp_path / "runs" / "a", record())
    save(tmp_path / "runs" / "b", record(seed=1, **other))
    rows = tables(report(tmp_path)[0])[0]
    assert [row["runs"] for row in rows] == ["1", "1"]
    assert all(next(iter(other)) in row["method"].replace("\\", "") for row in rows)


def test_a_new_driver_is_a_repetition_and_another_device_on_the_way_is_not(tmp_path):
    gpu = {"type": "cuda", "name": "H200", "count": 1}
    moved = "resumed on cpu after cuda at step 3: other random numbers from there on"
    save(tmp_path / "runs" / "a", record(device=gpu | {"driver": "1", "power_limit_watts": 700}))
    save(tmp_path / "runs" / "b", record(seed=1, device=gpu | {"driver": "2", "power_limit_watts": 600}))
    save(tmp_path / "runs" / "c", record(seed=2, device=gpu, notes=[moved]))
    markdown, _ = report(tmp_path)
    assert sorted(row["runs"] for row in tables(markdown)[0]) == ["1", "2"]
    assert "## Notes on these runs" in markdown and markdown.count(f"{moved}\n") == 1


def test_every_method_has_its_row_and_its_own_accounting(tmp_path):
    save(tmp_path / "runs" / "a", record(method="random"))
    save(tmp_path / "runs" / "b", record(method="approxdarts", energy_model="approxdarts"))
    rows = tables(report(tmp_path)[0])[0]
    assert [(row["method"], row["approximate, pJ"], row["saved vs int8, %"]) for row in rows] == [
        ("approxdarts", "300", "25.00"),
        ("random", "150", "25.00"),
    ]


def test_a_training_limit_is_in_the_heading_and_the_csv(tmp_path):
    save(tmp_path / "runs" / "older", record())
    save(tmp_path / "runs" / "whole", record(seed=1, train_limit=0))
    save(tmp_path / "runs" / "part", record(seed=2, train_limit=2000))
    save(tmp_path / "runs" / "wrong", record(seed=3, train_limit="many"))
    markdown, rows = report(tmp_path)
    assert [(row["seed"], row["train_limit"]) for row in rows] == [("0", "0"), ("1", "0"), ("2", "2000")]
    assert markdown.count("## digits, protocol") == markdown.count("## digits (2,000 training images), protocol") == 1
    assert 'wrong/record.json is damaged: train_limit is "many"' in markdown


def test_csv_holds_every_number_exactly(tmp_path):
    third = finalist(validation=1 / 3, fp32=2 / 3, int8=None, approximate=0.1 + 0.7, pj=100 / 7)
    folder = save(tmp_path / "runs" / "a", record(finalist(), third, seed=7))
    _, rows = report(tmp_path)
    assert [row["finalist"] for row in rows] == ["1", "2"]
    row = rows[1]
    numbers = {
        "validation_accuracy": 1 / 3,
        "test_accuracy_fp32": 2 / 3,
        "test_accuracy_approximate": 0.1 + 0.7,
        "horowitz45_fp32_pj": 1000.0,
        "horowitz45_approximate_pj": 100 / 7,
        "horowitz45_saving_vs_int8": 1 - 100 / 7 / 200,
        "approxdarts_int8_pj": 400.0,
        "approxdarts_saving_vs_fp32": 1 - 200 / 7 / 800,
        "int8_multiplications_pj": 0.9 * 200.0,
        "fp32_additions_pj": 100.0,
        "approximate_memory_pj": 7 * (100 / 7),
        "final_device_seconds": 360.0,
        "total_device_seconds": 471.6,
        "hypervolume": 0.30000000000000004,
    }
    assert {name: float(row[name]) for name in numbers} == numbers
    texts = ("seed", "params", "macs", "scope", "key", "protocol_hash", "device_name", "run_folder", "command")
    assert [row[name] for name in texts] == [
        "7", "1234", "56789", "all", "abcdef0123456789", "a" * 64, "a | processor", str(folder),
        "python -m evaluation.run --method random, --seed 7",
    ]  # fmt: skip
    assert row["test_accuracy_int8"] == row["accuracy_drop_vs_int8"] == ""
    assert float(rows[0]["accuracy_drop_vs_int8"]) == 0.95 - 0.94


def test_markdown_from_records_stays_in_its_cell(tmp_path):
    save(tmp_path / "runs" / "a|b\nc", record(method="x|y", dataset_origin="two\nlines"))
    (row,), (line,) = tables(report(tmp_path)[0])
    assert row["method"] == "x\\|y"
    assert line["run folder"].endswith("a\\|b c")


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path):
    runs = tmp_path / "runs"
    save(runs / "good", record())
    (runs / "unfinished").mkdir()
    settings = {"schema": 3}
    (runs / "unfinished" / "config.json").write_text(json.dumps(settings))
    save(runs / "torn", json.dumps(record())[:200])
    save(runs / "newer", record(schema=99))
    save(runs / "failed", record(status="failed"))
    save(runs / "list", "[]")
    save(runs / "deep", "[" * 100_000)
    save(runs / "nan", record(finalist(validation=NAN)))
    save(runs / "text", record(finalist(approximate="high")))
    save(runs / "huge", record(finalist(pj=1e200)))
    save(runs / "empty", record(finalists=[]))
    save(runs / "bare", {key: value for key, value in record().items() if key != "scope"})
    (runs / "directory" / "record.json").mkdir(parents=True)
    markdown, rows = report(tmp_path)
    assert len(rows) == 1
    left = markdown.partition("## Left out")[2].replace("\\", "")
    for line in (
        "unfinished/config.json: schema 3 is newer", "torn/record.json is damaged", "newer/record.json: schema 99",
        "failed/record.json: the run's status is 'failed'", "list/record.json is not the record of a run",
        "deep/record.json is damaged", "nan/record.json is damaged: finalists.0.accuracy.validation is NaN",
        "text/record.json is damaged: finalists.0.accuracy.test.approximate is \"high\"", "huge/record.json is damaged",
        "empty/record.json is damaged: it has no finalists", "bare/record.json is damaged: it lacks scope",
        "directory cannot be read",
    ):  # fmt: skip
        assert line in left
    assert left.count("\n- ") == 12


def test_a_run_without_record_is_unfinished(tmp_path):
    from evaluation.config import RunConfig
    from evaluation.protocols import named_protocol

    save(tmp_path / "runs" / "good", record())
    names = (
        "method",
        "dataset",
        "scope",
        "multiplier_choice",
        "energy_model",
        "budget",
        "baselines",
        "device",
        "command",
    )
    config = RunConfig(
        **dict.fromkeys(names, "x"),
        method_config={},
        seed=0,
        protocol=named_protocol("quick"),
        multipliers=(),
        nodes=4,
        threads=0,
        image_size=0,
    )
    (tmp_path / "runs" / "going").mkdir()
    (tmp_path / "runs" / "going" / "config.json").write_text(json.dumps(config.to_json()))
    assert "going is unfinished (still running or stopped): it has no record.json" in report(tmp_path)[0]


def test_runs_are_found_two_levels_deep_and_counted_once(tmp_path):
    runs = tmp_path / "runs"
    save(runs / "a", record())
    save(runs / "night" / "b", record(seed=1))
    save(runs / "far" / "too" / "deep", record(seed=2))
    save(runs / "copy", record())
    alone = save(tmp_path / "other", record(seed=3)) / "record.json"
    (tmp_path / "nothing").mkdir()
    markdown, rows = report(tmp_path, runs, runs / "a", alone, alone.parent, tmp_path / "nothing")
    assert [row["seed"] for row in rows] == ["0", "1", "3"]
    assert rows[2]["run_folder"] == str(alone.parent)
    assert f"{runs}/copy is a copy of {runs}/a; counted once" in markdown
    assert f"'{tmp_path}/nothing' holds no run" in markdown


def test_names_copied_from_above_torch_are_the_originals():
    from evaluation.ledger import STAGES
    from spaces.arithmetic.factory import ARITHMETICS
    from spaces.energy import ENERGY_MODELS

    assert (STAGES, ARITHMETICS, tuple(ENERGY_MODELS)) == (build.STAGES, build.ARITHMETICS, build.ACCOUNTINGS)


def test_command_line_writes_both_files_and_says_so(three_seeds):
    out = three_seeds / "new" / "report"
    save(three_seeds / "runs" / "torn", "{")
    done = command(three_seeds / "runs", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(": 3 runs, 3 finalists; 1 left out, see the end of comparison.md\n")
    assert sorted(path.name for path in out.iterdir()) == ["comparison.csv", "comparison.md"]
    before = (out / "comparison.md").read_bytes()
    assert command(three_seeds / "runs", "--out", out).returncode == 0
    assert (out / "comparison.md").read_bytes() == before


def test_importing_leaves_torch_alone():
    code = "import sys, reports.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{tmp}/missing"], "missing' does not exist"),
        (["{tmp}/nothing"], "no finished run to report"),
        (["{tmp}/torn"], "torn/record.json is damaged"),
        (["{tmp}/runs", "--out", "{tmp}/file"], "choose another folder with --out"),
        (["{tmp}/runs", "--out", "{tmp}/file/below"], "choose another folder with --out"),
        (["{tmp}/runs", "--out", "{tmp}/blocked"], "choose another folder with --out"),
        (["{tmp}/runs", "--ot", "x"], "did you mean --out?"),
        (["{tmp}/runs", "--out"], "expected one argument"),
        ([], "required: paths"),
        (["{tmp}/two\nlines"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, complaint):
    save(tmp_path / "runs" / "a", record())
    save(tmp_path / "torn", "{")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "blocked" / "comparison.csv").mkdir(parents=True)
    done = command(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert complaint in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob(".*.tmp"))
