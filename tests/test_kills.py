"""A campaign of signals: runs of every method, disturbed at random moments of all stages, and gone on with.

Whatever came, and whenever: nothing is lost, the record is that of an undisturbed run, and a stop ends with one line and
its code. The moments are drawn by a seed; which stage a moment in seconds meets depends on the machine, and any will do.
"""

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.runs.folder import read_history, read_record
from methods import installed
from tests.method_contract import ONE_OF_EACH_KIND
from tests.running import SMALL_FLAGS, without_times

SHORT, WHOLE = 2, 24  # moments of each method
CODES = {"SIGKILL": -9, "SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGSTOP": 0}
SMALL = {
    "approxdarts": "--approxdarts.epochs 2 --approxdarts.warmup 1 --approxdarts.proposals 2",
    "evoapproxnas": "--evoapproxnas.population 2 --evoapproxnas.offspring 1 --evoapproxnas.generations 2 "
    "--evoapproxnas.epochs 1 --evoapproxnas.proposals 2",
    "random": "--random.samples 2 --random.batch 1 --random.proposals 2",
}
HUNG = 1500  # seconds for all jobs of a method


def campaign(method: str, folder: Path, moments: int) -> list[dict]:
    """The outcomes of the disturbed runs, each after it was gone on with; the first job is left alone."""
    flags = [
        "--method",
        method,
        *shlex.split(SMALL.get(method, "")),
        *SMALL_FLAGS,
        "--space",
        "cells",
        "--baselines",
        "none",
        "--seed",
        "3",
    ]
    out = str(folder / "whole")
    jobs = [{"arguments": [*flags, "--out", out], "signal": "", "out": out}]
    order = [*ONE_OF_EACH_KIND, *sorted({*installed()} - {*ONE_OF_EACH_KIND})]
    first = order.index(method) * moments  # so that the methods together get every signal
    rng, names = random.Random(f"{method}-{moments}"), list(CODES)
    for number in range(moments):
        out = str(folder / f"run{number}")
        job = {"signal": names[(number + first) % len(names)], "out": out, "resume": True}
        moment = {"write": rng.randint(1, 25)} if number % 2 else {"share": rng.random()}
        jobs.append({"arguments": [*flags, "--out", out], **job, **moment})
    first, *others = outcomes_of(jobs)
    assert (first["code"], first["error"]) == (0, ""), first
    return [{**job, **outcome, "whole": first} for job, outcome in zip(jobs[1:], others)]


def outcomes_of(jobs: list[dict]) -> list[dict]:
    process = subprocess.run(
        [sys.executable, "-m", "tests.killing"],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def check(outcome: dict) -> None:
    """Nothing is lost, nothing is falsified, and the end is as announced."""
    told = {name: outcome.get(name) for name in ("signal", "write", "share", "code", "error", "again", "folders")}
    name, stopped = outcome["signal"], outcome["signal"] in ("SIGINT", "SIGTERM", "SIGHUP")
    done = outcome["code"] == 0 and outcome.get("finished")  # before the signal came
    assert outcome["code"] == CODES[name] or done, told
    if stopped and not done:
        where = f"; go on with: python -m evaluation.run --resume {' '.join(outcome['folders'])}"
        expected = f"stopped{where}\n" if outcome["folders"] else "stopped\n"
        assert outcome["error"] in (expected, "stopped\n" if not outcome.get("again") else expected), told
    else:
        assert outcome["error"] == "", told
    if not outcome["folders"]:  # it came before there was anything
        return
    (place,) = map(Path, outcome["folders"])
    (whole,) = map(Path, outcome["whole"]["folders"])
    if not (place / "config.json").exists():  # it came before the settings were written: nothing was begun
        assert name == "SIGKILL", told
        return
    assert (outcome["again"]["code"], outcome["again"]["error"]) == (0, ""), told
    expected, resumed = (without_times(read_record(path / "record.json")) for path in (whole, place))
    assert resumed == expected, told
    lines = [read_history(path / "history.jsonl") for path in (whole, place)]
    timeless = [[{k: v for k, v in line.items() if k != "device_seconds"} for line in history] for history in lines]
    assert timeless[0] == timeless[1], told


@pytest.mark.parametrize("method", ONE_OF_EACH_KIND)
def test_a_disturbed_run_ends_as_an_undisturbed_one(method, tmp_path):
    for outcome in campaign(method, tmp_path, SHORT):
        check(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(installed()))
def test_a_run_disturbed_at_many_moments_ends_as_an_undisturbed_one(method, tmp_path):
    for outcome in campaign(method, tmp_path, WHOLE):
        check(outcome)
