"""Trains the networks of a plan, on this machine or many, and keeps every one at once: a stop loses those in flight."""

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import filelock
import numpy as np
import torch

from evaluation import datasets
from evaluation.benchmark.curves import COST, TASK, Curve, CurveJob, CurveRecipe
from evaluation.benchmark.header import FP32, Header, Table, exact, table_shape
from evaluation.benchmark.journal import whole_lines
from evaluation.benchmark.plan import TablePlan
from evaluation.benchmark.surrogate import SurrogateTable
from evaluation.benchmark.table import BenchTable
from evaluation.datasets import split_index
from evaluation.runs.ledger import Ledger
from evaluation.searching.costs import CandidateCosts
from evaluation.searching.executors import EXECUTORS
from evaluation.searching.forecast import Forecast
from evaluation.searching.job_queue import JobQueue
from evaluation.settings.config import Place
from evaluation.training.device import choose_device
from evaluation.training.tasks import TASKS
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.files.json_files import parse_json
from spaces.files.saving import append_line, save_bytes
from spaces.files.schema import typed
from spaces.shape import NetworkShape

AHEAD = 2  # jobs in the queue for every worker
LEAST_SAMPLE = 20  # networks, to predict others from
ARRAYS = (("validation", np.uint16), ("test", np.uint16), ("seconds", np.float32))


def build(
    plan: TablePlan,
    out: Path,
    place: Place,
    device: str,
    command: str,
    show: Callable[[int, int, str], None],
    so_far: bool = False,
) -> Table:
    """Train what is left of a plan's networks, and write the table to ``out``; its journal lies beside it until then.

    ``so_far`` makes a surrogate of what is trained already. ``show(done, total, note)`` is called after every training.
    Raises InputError where the journal is of another plan, or holds too little.
    """
    if so_far and not plan.surrogate:
        raise InputError("a complete table cannot be made of a part of its trainings; build it to its end")
    jobs = jobs_of(plan)
    journal = Journal(out.with_suffix(".jsonl"), plan)
    with journal.locked():
        known = journal.read()
        left = [job for job in jobs if job.name not in known and not so_far]
        show(len(known), len(jobs), "")
        for job, curve in _trained(plan, left, place, device) if left else ():
            journal.add(job, curve)
            known[job.name] = curve
            error = curve.validation[-1]
            show(len(known), len(jobs), f"{job.architecture.short()}, seed {job.seed}: {curve.failure or error}")
        table = _assembled(plan, jobs, known, device, command)
        table.save(out)
    return table


def jobs_of(plan: TablePlan) -> list[CurveJob]:
    """All trainings, in an order in which those that are done first are good for something.

    Of a complete table: of one seed after the other, so that a part is a table of fewer seeds. Of a surrogate's sample: of one
    network after the other, so that a part is a smaller sample.
    """
    networks, epochs = plan.networks(), plan.settings.selection_epochs
    if plan.surrogate:
        return [
            CurveJob(architecture, "approximate", seed, epochs)
            for number, architecture in enumerate(networks)
            for seed in plan.seeds_of(number)
        ]
    topologies = list({exact(each, plan).key: exact(each, plan) for each in networks}.values())
    return [
        CurveJob(architecture, arithmetic, seed, epochs)
        for seed in range(plan.seeds)
        for arithmetic, found in (("approximate", networks), (FP32, topologies))
        for architecture in found
    ]


def _trained(plan: TablePlan, jobs: list[CurveJob], place: Place, device: str) -> Iterator[tuple[CurveJob, Curve]]:
    """Every job with its curve, in whatever order they end. Raises InputError where a worker is lost twice on one."""
    recipe, space = CurveRecipe(plan, device), plan.make_space()
    costs = CandidateCosts(space, _shape_for_costs(plan), COSTS[COST])
    work = recipe.work(0) if place.executor == "serial" else _elsewhere
    queue = JobQueue(EXECUTORS[place.executor](work, recipe, Forecast(costs), place))
    waiting = list(reversed(jobs))
    under_way: dict[int, CurveJob] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < AHEAD * queue.parallel:
                job = waiting.pop()
                under_way[queue.begin(job)] = job
            number, outcome = queue.first_of(set(under_way))
            job = under_way.pop(number)
            if outcome.result is None:
                raise InputError(f"the training of {job.name} was lost: {outcome.losses[-1].reason}; start again")
            yield job, outcome.result
    finally:
        queue.close()


def _elsewhere(job: CurveJob) -> Curve:
    raise AssertionError(f"{job} is trained by workers")


class Journal:
    """The trainings that are done, a line each, under a first line that says of what plan."""

    def __init__(self, path: Path, plan: TablePlan) -> None:
        self.path, self.plan = path, plan

    def locked(self) -> filelock.FileLock:
        """The right to write, for as long as it is held. Raises InputError where another process has it."""
        lock = filelock.FileLock(self.path.with_suffix(".lock"), blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"{self.path} is in use by another process") from None
        return lock

    def read(self) -> dict[str, Curve]:
        """All whole lines; a new journal is begun where there is none."""
        whole, torn = whole_lines(self.path, "journal of a table")
        if not whole:
            save_bytes(self.path, (json.dumps({"plan": self.plan.key}) + "\n").encode())
            return {}
        if parse_json(whole[0], self.path).get("plan") != self.plan.key:
            raise InputError(f"{self.path} holds trainings of another plan; move it away, or choose another --out")
        if torn:
            save_bytes(self.path, *whole)
        entries = [parse_json(line, self.path) for line in whole[1:]]
        return {entry.pop("name"): typed(entry, Curve, str(self.path)) for entry in entries}

    def add(self, job: CurveJob, curve: Curve) -> None:
        append_line(self.path, json.dumps({"name": job.name, **asdict(curve)}))


def _shape_for_costs(plan: TablePlan) -> NetworkShape:
    dataset, task = datasets.load(plan.dataset), TASKS[TASK]()
    return table_shape(plan.settings, task.outputs(dataset), task.input_shape(dataset))


def _assembled(plan: TablePlan, jobs: list[CurveJob], curves: dict[str, Curve], device: str, command: str) -> Table:
    """The table of all curves; of a surrogate, of the networks of whose trainings none is missing."""
    header = _header(plan, device, command, {name: each.failure for name, each in curves.items() if each.failure})
    if not plan.surrogate:
        return _complete(header, curves)
    missing = {job.architecture.key for job in jobs if job.name not in curves}
    done = [job for job in jobs if job.architecture.key not in missing]
    networks = list({job.architecture.key: job.architecture for job in done}.values())
    numbers = {each.key: number for number, each in enumerate(networks)}
    arrays: dict[str, np.ndarray] = {
        "network": np.array([numbers[job.architecture.key] for job in done], np.uint16),
        "seed": np.array([job.seed for job in done], np.uint8),
    }
    for name, kind in ARRAYS:
        arrays[name] = np.array([getattr(curves[job.name], name) for job in done], kind)
    if len(networks) < LEAST_SAMPLE or len(done) == len(networks):
        raise InputError(f"{len(networks)} networks are too few to predict others from, or none was trained again")
    return SurrogateTable.fitted(header, networks, arrays)


def _complete(header: Header, curves: dict[str, Curve]) -> BenchTable:
    plan = header.plan
    networks = plan.networks()
    topologies = {
        each.key: at for at, each in enumerate({exact(n, plan).key: exact(n, plan) for n in networks}.values())
    }

    def array(name: str, arithmetic: str, keys: list[str], kind: type) -> np.ndarray:
        rows = [[getattr(curves[f"{key}/{arithmetic}/{seed}"], name) for seed in range(plan.seeds)] for key in keys]
        return np.array(rows, kind)

    arrays = {"fp32_of": np.array([topologies[exact(each, plan).key] for each in networks], np.uint16)}
    for name, kind in ARRAYS:
        arrays[name] = array(name, "approximate", [each.key for each in networks], kind)
        arrays[f"fp32_{name}"] = array(name, FP32, list(topologies), kind)
    return BenchTable(header, networks, arrays)


def _header(plan: TablePlan, device: str, command: str, failures: dict[str, str]) -> Header:
    dataset, shape = datasets.load(plan.dataset), _shape_for_costs(plan)
    kept, held = split_index(dataset.train.labels, plan.settings.validation_share, 0)
    return Header(
        plan=plan,
        protocol=plan.settings,
        plan_key=plan.key,
        tables={multiplier.name: multiplier.key for multiplier in plan.library},
        dataset_origin=dataset.origin,
        train_fingerprint=dataset.train.fingerprint,
        test_fingerprint=dataset.test().fingerprint,
        validation_images=len(held),
        test_images=len(dataset.test().labels),
        train_images=len(kept),
        input_shape=shape.input_shape,
        classes=shape.classes,
        device=str(Ledger(choose_device(device)).describe_device()["name"]),
        versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        command=command,
        failures=failures,
    )
