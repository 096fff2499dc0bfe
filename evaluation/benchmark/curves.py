"""The training of one entry of a table: whole learning curves, on validation and test images."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evaluation import datasets
from evaluation.benchmark.header import FP32, table_shape
from evaluation.benchmark.plan import TablePlan
from evaluation.datasets import split_index
from evaluation.searching import failures
from evaluation.searching.conditions import Conditions
from evaluation.searching.costs import CandidateCosts
from evaluation.searching.data import SearchData
from evaluation.searching.seeds import build_seeded, derived_seed
from evaluation.training.data import DeviceImages
from evaluation.training.device import choose_device, use_threads
from evaluation.training.loop import Schedule, Training, accuracy
from evaluation.training.tasks import TASKS
from spaces.costs import COSTS
from spaces.space import Architecture

TASK, COST = "image_classification", "horowitz45"
WARM_UP = 2  # networks


@dataclass(frozen=True)
class CurveJob:
    """One training of a network in an arithmetic."""

    architecture: Architecture
    arithmetic: str
    seed: int  # of the split, the weights and the batches
    epochs: int

    @property
    def kind(self) -> str:
        """See ``evaluation.searching.forecast.Timed``."""
        return self.arithmetic

    @property
    def name(self) -> str:
        """Which entry of a table it makes."""
        return f"{self.architecture.key}/{self.arithmetic}/{self.seed}"


@dataclass(frozen=True)
class Curve:
    """After every epoch: the wrong answers on validation and test images, and the seconds of training until then.

    Seconds are those of one thread of the processor, which no other process on the machine can change, or of the GPU;
    judging is not in them.
    """

    validation: tuple[int, ...]
    test: tuple[int, ...]
    seconds: tuple[float, ...]
    failure: str = ""

    @property
    def failed(self) -> bool:
        """See ``evaluation.searching.forecast.Ended``."""
        return bool(self.failure)


class CurveTraining:
    """Trains entries of a plan's table, on a device; with a ``dataset``, on its images instead of the plan's."""

    def __init__(self, plan: TablePlan, device: torch.device, dataset: datasets.Dataset | None = None) -> None:
        self.plan, self.device, self.protocol = plan, device, plan.settings
        self.dataset = dataset or datasets.load(plan.dataset)
        self.test = self.dataset.test()
        self.space = plan.make_space()
        self._conditions: dict[int, tuple[Conditions, DeviceImages]] = {}
        self._warm_up()

    def _warm_up(self) -> None:
        """An epoch of a few networks: what a process does once (loading, compiling, timing) is on no entry's account."""
        rng = np.random.default_rng(0)
        for architecture in (self.space.reference(), *(self.space.sample(rng) for _ in range(WARM_UP))):
            for arithmetic in ("approximate", FP32):
                job = CurveJob(architecture, arithmetic, 0, self.protocol.selection_epochs)
                self._training(job, self._of_seed(0)[0]).run_epoch()

    def __call__(self, job: CurveJob) -> Curve:
        """Raises no error for a network whose training fails: its answers count as wrong from then on."""
        conditions, test = self._of_seed(job.seed)
        validation, tested, seconds = [], [], []
        failure = ""
        try:
            began = self._clock()
            training = self._training(job, conditions)
            spent = self._clock() - began
            while not training.finished:
                began = self._clock()
                training.run_epoch()
                spent += self._clock() - began
                answers = [_wrong(training.network, images) for images in (conditions.data.validation, test)]
                validation.append(answers[0])
                tested.append(answers[1])
                seconds.append(round(spent, 4))
        except Exception as error:
            failure = failures.reason(error, self.protocol.batch)
            missing = job.epochs - len(validation)
            validation += [len(conditions.data.validation)] * missing
            tested += [len(test)] * missing
            seconds += [seconds[-1] if seconds else 0.0] * missing
        return Curve(tuple(validation), tuple(tested), tuple(seconds), failure)

    def _training(self, job: CurveJob, conditions: Conditions) -> Training:
        seed = derived_seed("table", job.seed, job.architecture.key)
        network = build_seeded(lambda: self.space.build(job.architecture, conditions.shape, job.arithmetic), seed)
        data = conditions.data.training
        generator = torch.Generator(data.device).manual_seed(derived_seed(seed, job.epochs))
        return Training(network, data, Schedule.selection(self.protocol, job.epochs), generator)

    def _of_seed(self, seed: int) -> tuple[Conditions, DeviceImages]:
        if seed not in self._conditions:
            self._conditions[seed] = self._make(seed)
        return self._conditions[seed]

    def _make(self, seed: int) -> tuple[Conditions, DeviceImages]:
        task = TASKS[TASK]()
        shape = table_shape(self.protocol, task.outputs(self.dataset), task.input_shape(self.dataset))
        split = split_index(self.dataset.train.labels, self.protocol.validation_share, seed)
        data = SearchData(self.dataset, self.protocol, task, self.device, split)
        costs = CandidateCosts(self.space, shape, COSTS[COST])
        test = DeviceImages(self.test, *data.statistics, self.device, task)
        return Conditions(self.space, shape, shape, data, self.protocol, costs), test

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def _wrong(network: torch.nn.Module, images: DeviceImages) -> int:
    return round((1.0 - accuracy(network, images)) * len(images))


@dataclass(frozen=True)
class CurveRecipe:
    """Gets a worker ready for a plan's trainings; see ``evaluation.searching.executors.executor.Recipe``."""

    plan: TablePlan
    device: str

    def work(self, number: int) -> Callable[[Any], Any]:
        device = choose_device(self.device)
        if device.type == "cuda":
            device = torch.device("cuda", number % torch.cuda.device_count())
            torch.cuda.set_device(device)
        use_threads(1, 1)
        return CurveTraining(self.plan, device)
