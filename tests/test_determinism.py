"""``--deterministic``: the same command twice, compared byte for byte but for what time and place decide."""

import json
import os
from pathlib import Path

import pytest
import torch

from evaluation.settings.config import RunConfig
from evaluation.training.device import set_determinism
from spaces.errors import InputError
from tests import tiny
from tests.running import SMALL_RANDOM, run_cli

TINY_DARTS = [
    "--approxdarts.epochs",
    "2",
    "--approxdarts.warmup",
    "0",
    "--approxdarts.proposals",
    "2",
    *SMALL_RANDOM[6:],
]


def timeless(value: object) -> object:
    """A record without seconds, wherever they are, without the ledger, and without the command, which names a folder."""
    if isinstance(value, dict):
        gone = ("ledger", "command", "search_training_seconds", "device_seconds", "judging_seconds")
        return {name: timeless(part) for name, part in value.items() if name not in gone}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def test_two_processes_write_the_same_record(tmp_path):
    texts = []
    for name in ("a", "b"):
        answer = run_cli("--deterministic", *TINY_DARTS, "--out", str(tmp_path / name))
        assert answer.returncode == 0, answer.stderr
        (path,) = (tmp_path / name).glob("*/record.json")
        record = json.loads(path.read_text())
        assert record["deterministic"] is True and record["finalists"][0]["accuracy"]["test"]["fp32"] is not None
        texts.append(json.dumps(timeless(record)).encode())
    assert texts[0] == texts[1]


def test_torch_is_told_and_told_otherwise_again(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_determinism(False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    torch.backends.cudnn.benchmark = True
    try:
        set_determinism(True)
        assert (
            torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
        )
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and not torch.backends.cudnn.benchmark
    finally:
        set_determinism(False)  # the next run of the same process does not ask for it
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_budget_of_device_time_is_refused(tmp_path):
    answer = run_cli("--deterministic", "--budget", "60s", "--out", str(tmp_path / "runs"))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert "steps, evals or macs" in answer.stderr and not (tmp_path / "runs").exists()
    compared = run_cli("--deterministic", "--method", "approxdarts", "random")  # whose default is device time
    assert compared.returncode == 2 and "steps, evals or macs" in compared.stderr
    with pytest.raises(InputError, match="steps"):
        tiny.run_config(deterministic=True, budget="2m")
    assert tiny.run_config(deterministic=True, budget="10steps").deterministic


def test_an_older_config_is_not_deterministic():
    told = {name: value for name, value in tiny.run_config().to_json().items() if name != "deterministic"}
    assert RunConfig.from_json(told, Path("config.json")).deterministic is False
