"""The main job finds what it found before: its networks, their accuracies and energies."""

import json
from pathlib import Path

import pytest
import torch

from evaluation.device_check.environment import facts
from evaluation.run import main

GOLDEN = Path(__file__).parent / "golden" / "main_job.json"


@pytest.mark.slow  # two minutes
@pytest.mark.skipif(
    not facts(torch.device("cpu"))["cpu"]["matrix_units"]["amx_int8"],
    reason="on processors without AMX, fp32 sums are added up in another order, and other networks are found",
)
def test_the_main_job_finds_what_it_found_before(tmp_path):
    known = json.loads(GOLDEN.read_text())
    arguments = known["command"].removeprefix("python -m evaluation.run ").split()
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*/record.json")
    record = json.loads(path.read_text())
    found = [
        {
            "key": finalist["key"],
            "validation": finalist["accuracy"]["validation"],
            **finalist["accuracy"]["test"],
            "energy_pj": finalist["costs"]["horowitz45"]["values"]["approximate"],
        }
        for finalist in record["finalists"]
    ]
    assert found == known["finalists"] and record["hypervolume"] == known["hypervolume"]
