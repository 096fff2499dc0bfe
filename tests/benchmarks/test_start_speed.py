"""How long a person waits for an answer: tox -e bench."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["--method", "approxdarts", "--help"], ["--method", "unknown"]])
def test_the_command_line_answers(benchmark, arguments):
    command = [sys.executable, "-m", "evaluation.run", *arguments]
    done = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, check=False), rounds=5)
    assert done.returncode in (0, 2)
