"""The script that runs everything on a GPU, as far as a CPU can tell. tests/test_check_device.py does its dry run."""

import json
import os
import time

import pytest

from tests.gpu import campaign


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Run a campaign of other parts and return its exit code and summary."""

    def make(*parts: campaign.Part, budget: str = "1m") -> tuple[int, dict]:
        monkeypatch.setattr(campaign, "_all_parts", lambda *_: iter(parts))
        code = campaign.main(["--out", str(tmp_path), "--budget", budget])
        return code, json.loads((tmp_path / campaign.SUMMARY).read_text())["parts"]

    return make


def test_a_part_leaves_its_file_and_its_line(make, tmp_path, capsys):
    part = campaign.Part("one", ["-c", "print('{\"answer\": 42}')"], 30, json.loads)
    code, parts = make(part, campaign.Part("two", [], 1, skip="it needs a CUDA device"))
    assert code == 0
    assert parts["one"]["ran"] and parts["one"]["exit_code"] == 0 and parts["one"]["reason"] == ""
    assert json.loads((tmp_path / "one.json").read_text()) == {"answer": 42}
    assert parts["two"] == {"ran": False, "seconds": 0.0, "exit_code": None, "reason": "it needs a CUDA device"}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]


def test_a_part_that_hangs_is_stopped_and_the_next_one_runs(make, tmp_path):
    began = time.monotonic()
    code, parts = make(
        campaign.Part("slow", ["-c", "import time; print('begun', flush=True); time.sleep(60)"], 1.5),
        campaign.Part("next", ["-c", "print('[]')"], 30, json.loads),
    )
    assert code == 1 and time.monotonic() - began < 40
    assert parts["slow"]["exit_code"] == 124 and "stopped after" in parts["slow"]["reason"]
    assert parts["next"]["exit_code"] == 0
    assert (tmp_path / "logs" / "slow.out").read_text() == "begun\n"


def test_a_part_that_is_stopped_leaves_what_it_told_by_then(make, tmp_path):
    told = "import time; print('{\"a\": 1}'); print('{\"a\": 1, \"b\": 2}'); print('{\"a', end='', flush=True); time.sleep(60)"
    code, parts = make(campaign.Part("slow", ["-c", told], 3, campaign.last_line))
    assert code == 1 and parts["slow"]["reason"] == "stopped after 3 s"
    assert json.loads((tmp_path / "slow.json").read_text()) == {"a": 1, "b": 2}


def test_a_part_that_leaves_nothing_is_reported(make):
    code, parts = make(campaign.Part("bad", ["-c", "raise SystemExit(3)"], 30, json.loads))
    assert code == 1 and parts["bad"]["exit_code"] == 3
    assert parts["bad"]["reason"].startswith("exit code 3 (JSONDecodeError")


def test_without_a_device_nothing_else_is_begun(make):
    _, parts = make(
        campaign.Part("smoke", ["-c", "raise SystemExit(2)"], 30), campaign.Part("check", ["-c", "pass"], 30)
    )
    assert parts["check"] == {
        "ran": False,
        "seconds": 0.0,
        "exit_code": None,
        "reason": "the smoke test could not begin",
    }


def test_the_budget_ends_it(make):
    _, parts = make(campaign.Part("one", ["-c", "pass"], 30), budget="1s")
    assert parts["one"]["reason"] == "no time is left"


def test_the_parts_and_why_they_are_skipped(tmp_path):
    options = campaign._parse(["--out", str(tmp_path), "--device", "cpu", "--dataset", "nowhere"])
    skipped = {part.name: part.skip for part in campaign.parts(options, tmp_path, tmp_path)}
    assert list(skipped) == [
        "smoke",
        "check",
        "tests",
        "emulation",
        "step",
        *(f"run-{name}" for name in campaign.KINDS),
        "gpu",
    ]
    assert skipped["tests"] == skipped["emulation"] == "it needs a CUDA device"
    assert skipped["run-random"] == "there is no 'nowhere'" and "--only gpu" in skipped["gpu"]
    options = campaign._parse(["--out", str(tmp_path), "--dataset", str(tmp_path), "--only", "run", "tests"])
    chosen = list(campaign.parts(options, tmp_path, tmp_path))
    assert [part.name for part in chosen] == ["tests", *(f"run-{name}" for name in campaign.KINDS)]
    assert not any(part.skip for part in chosen)
    parts = list(campaign._all_parts(options, tmp_path, tmp_path))
    assert sum(part.limit for part in parts if not part.skip) < 25 * 60
    options = campaign._parse(["--out", str(tmp_path), "--dataset", str(tmp_path), "--only", "gpu"])
    (whole,) = campaign.parts(options, tmp_path, tmp_path)
    assert not whole.skip and whole.limit < 600 and whole.arguments[whole.arguments.index("--train-limit") + 1] == "0"


def test_a_run_leaves_its_record_or_how_far_it_came(tmp_path):
    before, folder = tmp_path / "run-2", tmp_path / "run-1"
    for number, run in enumerate((before, folder)):
        run.mkdir()
        (run / "config.json").write_text("{}")
        os.utime(run / "config.json", (number, number))
    (before / "record.json").write_text('{"schema": 8}')  # of an earlier campaign in the same folder
    with pytest.raises(ValueError, match="no step"):
        campaign.outcome(tmp_path)
    (folder / "history.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert campaign.outcome(tmp_path) == {"history": [{"step": 1}, {"step": 2}]}
    (folder / "record.json").write_text('{"schema": 9}')
    assert campaign.outcome(tmp_path) == {"schema": 9}


def test_results_of_pytest_are_reduced(tmp_path):
    assert campaign._counts("....\n321 passed, 2 skipped in 5s") == {"passed": 321, "skipped": 2}
    with pytest.raises(ValueError, match="said nothing"):
        campaign._counts("")
    bench = {
        "group": "3x3",
        "name": "test_engine[a]",
        "stats": {"median": 0.5, "data": [1]},
        "extra_info": {"device": "H100"},
    }
    (tmp_path / "raw.json").write_text(json.dumps({"benchmarks": [bench]}))
    assert campaign.medians(tmp_path / "raw.json") == [
        {"group": "3x3", "name": "test_engine[a]", "median_seconds": 0.5, "device": "H100"}
    ]
