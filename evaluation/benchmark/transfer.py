"""Whether what is good in a table is good on other images: some of its networks, trained there alike.

Half of them are from the true front, spread over its cost, and half are random others. What is compared is their order:
Kendall's τ between the table's test errors and those on the other images, with a bootstrap interval over networks.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from evaluation.benchmark.curves import CurveJob, CurveTraining
from evaluation.benchmark.journal import whole_lines
from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.table import BenchTable
from evaluation.datasets import Dataset
from spaces.errors import InputError
from spaces.files.json_files import parse_json
from spaces.files.saving import append_line, save_bytes
from spaces.files.schema import typed

REPEATS = 2000  # of the bootstrap
RANDOM_SEED = 20241


@dataclass(frozen=True)
class Transferred:
    """A network of the table and its mean errors there and on the other images, as shares."""

    key: str
    group: str  # front or random
    table: float
    other: float


@dataclass(frozen=True)
class Agreement:
    """How alike two lists of errors rank networks: Kendall's τ, and its 95 % interval by bootstrap over networks."""

    networks: int
    tau: float
    low: float
    high: float


def transfer(
    table: BenchTable,
    dataset: Dataset,
    networks: int,
    seeds: int,
    device: torch.device,
    out: Path,
    show: Callable[[int, int, str], None],
) -> list[Transferred]:
    """Train ``networks`` of the front and as many others on ``dataset``, each ``seeds`` times, all but what ``out`` holds.

    Every training is a line of ``out`` as soon as it has ended. Raises InputError where that is of other images or table.
    """
    chosen = _chosen(table, networks)
    about = {"table": table.header.plan_key, "images": dataset.train.fingerprint}
    known = _read(out, about)
    training: CurveTraining | None = None
    jobs = [
        CurveJob(table.architecture(number), "approximate", seed, table.epochs)
        for seed in range(seeds)
        for number in chosen
    ]
    show(sum(job.name in known for job in jobs), len(jobs), "")
    for done, job in enumerate(jobs, 1):
        if job.name in known:
            continue
        training = training or CurveTraining(table.header.plan, device, dataset)
        curve = training(job)
        known[job.name] = curve.test[-1] / len(training.test.labels)
        append_line(out, json.dumps({"name": job.name, "error": known[job.name], "failure": curve.failure}))
        show(done, len(jobs), f"{job.architecture.short()}: {curve.failure or f'{known[job.name]:.1%}'}")
    errors = table.errors()
    other = {
        number: float(
            np.mean([known[job.name] for job in jobs if job.architecture.key == table.architecture(number).key])
        )
        for number in chosen
    }
    return [
        Transferred(table.architecture(number).key, group, float(errors[number]), other[number])
        for number, group in chosen.items()
    ]


def agreement(found: Sequence[Transferred]) -> Agreement:
    """Of all that is given; an undefined τ, where all errors are the same, is 0."""
    pairs = np.array([(each.table, each.other) for each in found])
    rng = np.random.default_rng(0)
    samples = [_tau(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(REPEATS)]
    low, high = np.quantile(samples, (0.025, 0.975))
    return Agreement(len(found), _tau(pairs), float(low), float(high))


def _tau(pairs: np.ndarray) -> float:
    return float(np.nan_to_num(kendalltau(pairs[:, 0], pairs[:, 1]).statistic))


def _chosen(table: BenchTable, networks: int) -> dict[int, str]:
    """Numbers of networks → their group: of the front those nearest to evenly spaced places on it, and random others."""
    front = Landscape.of(table, "horowitz45").front
    places = np.unique(np.linspace(0, len(front) - 1, min(networks, len(front))).round().astype(int))
    rest = np.setdiff1d(np.arange(len(table)), front)
    others = np.random.default_rng(RANDOM_SEED).permutation(rest)[:networks]
    return {front[at]: "front" for at in places} | {int(number): "random" for number in others}


def _read(out: Path, about: dict[str, str]) -> dict[str, float]:
    """What was trained already, by name."""
    lines, torn = whole_lines(out, "file of table transfer")
    if not lines:
        save_bytes(out, (json.dumps(about) + "\n").encode())
        return {}
    if parse_json(lines[0], out) != about:
        raise InputError(f"{out} holds trainings on other images, or of another table; choose another --to")
    if torn:
        save_bytes(out, *lines)
    return {entry.name: entry.error for entry in (typed(parse_json(line, out), _Line, str(out)) for line in lines[1:])}


@dataclass(frozen=True)
class _Line:
    name: str
    error: float
    failure: str
