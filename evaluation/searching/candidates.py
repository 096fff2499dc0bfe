"""The training of one candidate: from a job to its result, and nothing else.

A result depends on the job's seed, key, epochs and parent alone: not on what was trained before, or beside it, or where.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.searching import failures
from evaluation.searching.conditions import Conditions
from evaluation.searching.executors.executor import Loss
from evaluation.searching.seeds import build_seeded, derived_seed
from evaluation.training.loop import Schedule, Training, accuracy
from methods.method import Evaluation
from spaces.space import Architecture

FAILED_COST = 1e15  # of a candidate whose cost could not even be computed; finite and worse than any network


@dataclass(frozen=True)
class Trained:
    """The weights of a candidate, from which others can start."""

    architecture: Architecture
    epochs: int
    weights: dict[str, Tensor]
    inherited: int = 0  # see ``Evaluation.inherited``


@dataclass(frozen=True)
class Job:
    """A candidate to train and judge on the validation part."""

    architecture: Architecture
    purpose: str  # "search" or "selection": the same candidate gets other random numbers in each
    seed: int  # the run's
    epochs: int  # in all, those of an own parent included
    parent: Trained | None = None
    keeps_weights: bool = False  # whether the result shall hold them
    repeat: int = 0  # which of several trainings, by which a network is judged: each has random numbers of its own

    @property
    def known(self) -> tuple[str, int]:
        """Key and epochs: what results are cached by."""
        return self.architecture.key, self.epochs

    @property
    def kind(self) -> str:
        """See ``forecast.Timed``."""
        return self.purpose

    @property
    def goes_on(self) -> bool:
        """Whether it starts from itself."""
        return self.parent is not None and self.parent.architecture.key == self.architecture.key

    @property
    def missing_epochs(self) -> int:
        """Epochs to train: one that starts from itself has some of them behind it."""
        return self.epochs - (self.parent.epochs if self.parent is not None and self.goes_on else 0)

    @property
    def inherited(self) -> int:
        """See ``Evaluation.inherited``."""
        if self.parent is None:
            return 0
        return self.parent.inherited + (0 if self.goes_on else self.parent.epochs)


@dataclass(frozen=True)
class Result:
    """What came of a job."""

    evaluation: Evaluation
    seconds: float  # of one device
    trained: Trained | None = None  # where weights were asked for and the training did not fail
    suspicion: str = ""  # the reason of a failure that may be the machine's
    losses: tuple[Loss, ...] = ()  # attempts before this one, of which nothing came

    @property
    def failed(self) -> bool:
        """See ``forecast.Ended``."""
        return self.evaluation.failure is not None

    @property
    def spent(self) -> float:
        """Seconds of all attempts."""
        return self.seconds + sum(loss.seconds for loss in self.losses)


def train(job: Job, conditions: Conditions) -> Result:
    """Train and judge. A candidate that diverges, does not fit or cannot be built is a result, too, and says why."""
    began = time.perf_counter()
    key, sizes, trained = job.architecture.key, (FAILED_COST, 0, 0), None
    try:
        sizes = conditions.costs(job.architecture)
        network = trained_network(job, conditions)
        error = 1.0 - accuracy(network, conditions.data.validation)
    except Exception as failure:
        reason = failures.reason(failure, conditions.protocol.batch)
        evaluation = Evaluation(key, 1.0, *sizes, reason, job.epochs)
        return Result(evaluation, time.perf_counter() - began, suspicion=failures.suspicion(failure))
    if job.keeps_weights:
        trained = Trained(job.architecture, job.epochs, network.state_dict(), job.inherited)
    return Result(Evaluation(key, error, *sizes, None, job.epochs, job.inherited), time.perf_counter() - began, trained)


def trained_network(job: Job, conditions: Conditions) -> torch.nn.Module:
    """The job's network after its training; one that starts from itself trains for the epochs that are missing."""
    architecture, parent, epochs = job.architecture, job.parent, job.missing_epochs
    repeat = (job.repeat,) if job.repeat else ()
    seed = derived_seed(job.seed, job.purpose, architecture.key, *repeat)
    network = build_seeded(lambda: conditions.space.build(architecture, conditions.shape), seed)
    if parent is not None:
        inherited = conditions.space.inherited(architecture, parent.architecture, conditions.shape)
        inherit(network, parent.weights, inherited)
    data = conditions.data.training
    generator = torch.Generator(data.device).manual_seed(derived_seed(seed, epochs))
    training = Training(network, data, Schedule.selection(conditions.protocol, epochs), generator)
    while not training.finished:
        training.run_epoch()
    return network


def inherit(network: torch.nn.Module, weights: dict[str, Tensor], modules: dict[str, str]) -> None:
    """Copy into each module of ``network`` what ``weights`` hold for the module it descends from.

    ``modules``: own module → the ancestor's. A module of which any tensor has another shape there keeps its own values.
    """
    state = network.state_dict()
    for own, ancestor in modules.items():
        names = [name for name in state if name.startswith(f"{own}.")]
        pairs = [(state[name], weights.get(ancestor + name[len(own) :])) for name in names]
        if all(theirs is not None and theirs.shape == mine.shape for mine, theirs in pairs):
            for mine, theirs in pairs:
                mine.copy_(theirs)
