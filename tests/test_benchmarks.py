"""The benchmarks, which CI does not time, still run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow  # some minutes
def test_every_benchmark_runs():
    command = [sys.executable, "-m", "pytest", "tests/benchmarks", "-o", "addopts=", "-q", "--benchmark-disable"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1], env=os.environ
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-2000:]
