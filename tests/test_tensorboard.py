"""Histories as event files: read back by TensorBoard's own reader."""

import json
import warnings

import pytest

from evaluation.runs.folder import read_history
from reports.tensorboard import main
from tests.made_records import RECORDS

RUN = RECORDS / "random-digits-quick-s4"


def test_without_tensorboard_a_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reports.tensorboard.find_spec", lambda _: None)
    assert main([str(RUN), "--out", str(tmp_path / "events")]) == 2
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_value_of_a_history_is_a_point_of_a_curve(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = read_history(RUN / "history.jsonl")
    out = tmp_path / "events"
    for _ in range(2):  # the second time it is replaced
        assert main([str(RUN), "--out", str(out)]) == 0
        assert f"wrote 1 run, {len(history)} steps" in capsys.readouterr().out
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    assert folder.name == RUN.name
    read = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    found = {}
    for tag in read.Tags()["scalars"]:
        found |= {(event.step, tag): (event.value, event.wall_time) for event in read.Scalars(tag)}
    for step, line in enumerate(history, 1):
        named = {name: line[name] for name in ("validation_error", "hypervolume", "cost", "device_seconds")}
        named |= {f"diagnostics/{name}": value for name, value in line["diagnostics"].items()}
        for name, value in named.items():
            at = (step, f"{line['stage']}/{name}")
            if value is None:
                assert at not in found
            else:
                assert found.pop(at) == pytest.approx((value, line["device_seconds"]), rel=1e-6)
    assert not found


def test_a_folder_without_histories_is_refused(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.json").write_text(json.dumps({}))
    pytest.importorskip("tensorboard")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "events")]) == 2
    assert "no run with a history.jsonl" in capsys.readouterr().err
