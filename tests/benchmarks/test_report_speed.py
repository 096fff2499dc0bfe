"""How long a report of many runs takes, as a process."""

import subprocess
import sys

import pytest

from tests.made_records import many_runs


@pytest.mark.benchmark(group="report")
def test_a_report_of_200_runs(benchmark, tmp_path):
    many_runs(tmp_path / "runs", 200)
    line = [sys.executable, "-m", "reports.build", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    benchmark.pedantic(lambda: subprocess.run(line, capture_output=True, check=True), rounds=3)
