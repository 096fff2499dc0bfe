"""Everything that needs a GPU, in the order of its worth, in ten minutes: python -m tests.gpu.campaign --out FOLDER

Each part is a process of its own with a time limit and leaves one small JSON file; ``summary.json`` says of each whether
it ran, for how long, how it ended, and why not. What has finished stays, whatever happens to the rest, and so do the folders
of runs. With ``--device cpu`` it is a dry run of the parts that a CPU can do. ``--only gpu`` is a run of the protocol of that
name, which takes all of the time.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.settings.config import Budget
from spaces.files.saving import save_json

ROOT = Path(__file__).parents[2]
SUMMARY, LOGS, RUNS = "summary.json", "logs", "runs"
WHOLE = "gpu"  # the part that is run alone
KINDS = ("approxdarts", "evoapproxnas", "random")  # by gradient, by evolution, by sampling
LEAST = 5.0  # seconds that a part must have left to be begun
BAD_INPUT = 2


@dataclass(frozen=True)
class Part:
    """One process. ``finish`` makes the part's JSON of what the process left, if it does not write that itself."""

    name: str
    arguments: list[str]  # after "python"
    limit: float  # seconds
    finish: Callable[[str], Any] | None = None  # its standard output → what to write
    skip: str = ""  # why it cannot run here
    environment: dict[str, str] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 0 where all that ran ended well, 1 otherwise."""
    options = _parse(arguments)
    out = options.out.resolve()
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + (Budget.parse(options.budget).seconds or 600.0)
    summary: dict[str, Any] = {"schema": 1, "device": options.device, "budget": options.budget, "parts": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for part in parts(options, out, Path(scratch)):
            summary["parts"][part.name] = result = _part(part, out, ends, summary["parts"])
            save_json(out / SUMMARY, summary)
            print(f"{part.name:14} {result['seconds']:6.1f} s  {result['reason'] or 'done'}", flush=True)
    return int(any(result["ran"] and result["exit_code"] != 0 for result in summary["parts"].values()))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.campaign", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    parser.add_argument("--budget", default="10m", help="time for all parts (90s, 10m)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a dry run")
    parser.add_argument("--only", nargs="+", metavar="PART", help="run these parts alone")
    parser.add_argument("--dataset", help="image folder or archive of CIFAR-10 for the runs of the methods")
    parser.add_argument("--train-limit", type=int, default=2000, help="training images for these runs")
    return parser.parse_args(arguments)


def parts(options: argparse.Namespace, out: Path, scratch: Path) -> Iterator[Part]:
    """Those that are asked for, most valuable first."""
    for part in _all_parts(options, out, scratch):
        if not options.only or part.name in options.only or part.name.partition("-")[0] in options.only:
            yield part


def _all_parts(options: argparse.Namespace, out: Path, scratch: Path) -> Iterator[Part]:
    device = ["--device", options.device]
    check = ["-m", "evaluation.check_device", *device]
    no_cuda = "" if options.device == "cuda" else "it needs a CUDA device"
    budget = ["--budget", "2m"] if options.device == "cuda" else []  # kernels have yet to be compiled
    yield Part("smoke", [*check, "--quick", *budget, "--json", str(out / "smoke.json")], 180)
    yield Part("check", [*check, "--budget", "3m", "--json", str(out / "check.json")], 240)
    workers = ["-n", str(min(16, os.cpu_count() or 1)), "--dist", "worksteal"]
    pytest = ["-m", "pytest", "-p", "no:cacheprovider"]
    parallel = workers if importlib.util.find_spec("xdist") else []
    yield Part("tests", [*pytest, "tests/gpu/test_cuda.py", *parallel], 180, _counts, no_cuda)
    raw = scratch / "benchmarks.json"
    bench = [*pytest, "tests/benchmarks/test_cuda_speed.py", "--benchmark-only", f"--benchmark-json={raw}"]
    yield Part("emulation", bench, 120, lambda _: medians(raw), no_cuda)
    yield Part("step", ["-m", "tests.gpu.profile_step", *device], 180, last_line)
    for name in KINDS:  # the others ask nothing else of a GPU
        yield _run(f"run-{name}", ["--method", name, "--protocol", "fast"], 150, options, out)
    asked = options.only and WHOLE in options.only
    skip = "" if asked else f"it takes all of the time: --only {WHOLE}"
    options = argparse.Namespace(**{**vars(options), "train_limit": 0})
    yield _run(WHOLE, ["--method", "approxdarts", "--protocol", "gpu"], 580, options, out, skip)


def _run(name: str, what: list[str], limit: float, options: argparse.Namespace, out: Path, skip: str = "") -> Part:
    """A run, and its record, or how far it came."""
    runs, dataset = out / RUNS / name, options.dataset
    if not skip and (not dataset or not Path(dataset).exists()):
        skip = f"there is no '{dataset}'" if dataset else "no --dataset was given"
    where = ["--dataset", str(dataset), "--device", options.device, "--out", str(runs)]
    arguments = ["-m", "evaluation.run", *what, "--train-limit", str(options.train_limit), *where]
    return Part(name, arguments, limit, lambda _: outcome(runs), skip)


# -- running one part --------------------------------------------------------------------------------------------------


def _part(part: Part, out: Path, ends: float, before: dict[str, Any]) -> dict[str, Any]:
    left = ends - time.monotonic()
    reason = part.skip
    if before.get("smoke", {}).get("exit_code") == BAD_INPUT:
        reason = "the smoke test could not begin"
    elif left < LEAST:
        reason = "no time is left"
    if reason:
        return {"ran": False, "seconds": 0.0, "exit_code": None, "reason": reason}
    began, limit = time.monotonic(), min(part.limit, left)
    code, text = _process(part, out / LOGS / part.name, limit)
    reason = "" if code == 0 else f"exit code {code}"
    if code is None:
        code, reason = 124, f"stopped after {limit:.0f} s"
    if part.finish is not None:
        try:
            save_json(out / f"{part.name}.json", part.finish(text))
        except Exception as error:  # the process failed, or was stopped, in such a way that it left nothing to read
            code, reason = code or 1, f"{reason or 'no result'} ({type(error).__name__}: {error})"
    return {"ran": True, "seconds": round(time.monotonic() - began, 1), "exit_code": code, "reason": reason}


def _process(part: Part, log: Path, limit: float) -> tuple[int | None, str]:
    """Exit code, None where the time limit ended it, and standard output; both outputs are kept as files."""
    environment = {**os.environ, **part.environment}
    output, errors = log.with_suffix(".out"), log.with_suffix(".err")
    with output.open("w", encoding="utf-8") as stdout, errors.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, *part.arguments],
            stdout=stdout, stderr=stderr, cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    return code, output.read_text(encoding="utf-8", errors="replace")


def _end(process: subprocess.Popen) -> None:
    """The process and its children, if any are left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# -- what the parts leave ----------------------------------------------------------------------------------------------


def _counts(text: str) -> dict[str, int]:
    """How many tests passed, failed and so on, from pytest's last line."""
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", text)}
    if not found:
        raise ValueError("pytest said nothing")
    return found


def last_line(text: str) -> Any:
    """JSON of a process that prints all that it knows in every line: of one that was stopped, the last whole one."""
    return json.loads(text.rpartition("\n")[0].rpartition("\n")[2])


def outcome(runs: Path) -> Any:
    """The record of the newest run in a folder, or of one that was stopped its history."""
    folder = max(runs.iterdir(), key=lambda run: (run / "config.json").stat().st_mtime_ns)
    record, history = folder / "record.json", folder / "history.jsonl"
    if record.exists():
        return json.loads(record.read_text(encoding="utf-8"))
    if not history.exists():
        raise ValueError("no step of the run was done")
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True)
    return {"history": [json.loads(line) for line in lines if line.endswith("\n")]}


def medians(path: Path) -> list[dict[str, Any]]:
    """What pytest-benchmark wrote, reduced to a median per benchmark."""
    found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return [
        {"group": b["group"], "name": b["name"], "median_seconds": b["stats"]["median"], **b["extra_info"]}
        for b in found
    ]


if __name__ == "__main__":
    sys.exit(main())
