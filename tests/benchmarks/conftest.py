"""After the timings: each approximate layer beside the fp32 convolution of its shape, as a ratio of medians."""

from collections import defaultdict

FP32 = "fp32"


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
    terminalreporter.section("time ÷ time of the fp32 convolution")
    terminalreporter.line(f"| {'layer':38} | fp32 ms | {' | '.join(multipliers)} |")
    terminalreporter.line("|---" * (len(multipliers) + 2) + "|")
    for group, times in medians.items():
        if FP32 not in times:
            continue
        ratios = (f"{times[c] / times[FP32]:.2f}" if c in times else "" for c in multipliers)
        terminalreporter.line(f"| {group:38} | {1e3 * times[FP32]:.2f} | {' | '.join(ratios)} |")
