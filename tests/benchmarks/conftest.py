"""After the timings: each approximate layer beside the fp32 convolution of its shape, as a ratio of medians."""

import os
from collections import defaultdict

import pytest
import torch

FP32 = "fp32"


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, default=1, help="threads of all benchmarks")
    parser.addoption("--no-matrix-units", action="store_true", help="forbid oneDNN what came after AVX-512")


def pytest_configure(config):
    if config.getoption("--no-matrix-units"):
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # read when the library first computes


@pytest.fixture(autouse=True)
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--threads"))
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    medians: dict[str, dict[str, float]] = defaultdict(dict)
    for bench in getattr(session, "benchmarks", []):
        if "circuit" in bench.extra_info and not bench.has_error:
            medians[bench.group][bench.extra_info["circuit"]] = bench.stats.median
    if not medians:
        return
    multipliers = list(
        dict.fromkeys(multiplier for times in medians.values() for multiplier in times if multiplier != FP32)
    )
    units = "without matrix units" if config.getoption("--no-matrix-units") else "all units"
    threads = config.getoption("--threads")
    terminalreporter.section(f"time ÷ time in fp32 ({threads} thread{'s' * (threads > 1)}, {units})")
    terminalreporter.line(f"| {'layer':38} | fp32 ms | {' | '.join(multipliers)} |")
    terminalreporter.line("|---" * (len(multipliers) + 2) + "|")
    for group, times in medians.items():
        if FP32 not in times:
            continue
        ratios = (f"{times[c] / times[FP32]:.2f}" if c in times else "" for c in multipliers)
        terminalreporter.line(f"| {group:38} | {1e3 * times[FP32]:.2f} | {' | '.join(ratios)} |")
