"""Final trainings, epoch by epoch: each epoch is a job of its own, from the training's state to its next state.

So a finalist can move between processes, and a failure of one loses an epoch at most.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from evaluation.searching import failures
from evaluation.searching.conditions import Conditions
from evaluation.searching.seeds import build_seeded, derived_seed
from evaluation.training import distributed, memory
from evaluation.training.loop import Schedule, Training
from spaces.errors import InputError
from spaces.files.reading import parsing
from spaces.space import Architecture


@dataclass(frozen=True)
class FinalEpoch:
    """The next epoch of a finalist's training."""

    architecture: Architecture
    arithmetic: str
    seed: int  # the run's
    state: dict[str, Any] | None = None  # of the training so far

    epochs = 1  # of this job

    @property
    def kind(self) -> str:
        """See ``forecast.Timed``."""
        return f"final, {self.arithmetic}"

    @property
    def training(self) -> tuple[str, str, int]:
        """What tells one training from another."""
        return self.architecture.key, self.arithmetic, self.seed


@dataclass(frozen=True)
class EpochResult:
    """What came of it: the training's new state, or the reason why it failed."""

    seconds: float  # of one device
    state: dict[str, Any] | None = None
    finished: bool = False
    loss: float = 0.0
    failure: str = ""
    suspicion: str = ""  # the reason of a failure that may be the machine's
    memory_full: bool = False

    @property
    def failed(self) -> bool:
        """See ``forecast.Ended``."""
        return bool(self.failure)


def to_plain(job: FinalEpoch) -> dict[str, Any]:
    """For ``distributed.send``."""
    return {**vars(job), "architecture": job.architecture.to_json()}


def from_plain(plain: dict[str, Any], conditions: Conditions) -> FinalEpoch:
    """The inverse of ``to_plain``."""
    return FinalEpoch(**{**plain, "architecture": conditions.space.from_json(plain["architecture"])})


def final_network(
    architecture: Architecture, arithmetic: str, seed: int, conditions: Conditions
) -> tuple[torch.nn.Module, torch.Generator]:
    """A finalist's network and its training's generator: the same start and the same batches in every arithmetic."""
    own = derived_seed(seed, "final", architecture.key)
    network = build_seeded(lambda: conditions.space.build(architecture, conditions.final_shape, arithmetic), own)
    return network, torch.Generator(conditions.data.everything.device).manual_seed(own)


class FinalEpochs:
    """Runs epochs of final trainings; the next one of the latest training goes on with the network that is there."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions, self.team = conditions, distributed.team()
        self.latest: tuple[tuple[str, str, int], Training] | None = None

    def run(self, job: FinalEpoch) -> EpochResult:
        """One epoch. Raises InputError for a state that does not fit, and where it fails in one process of several."""
        began = time.perf_counter()
        try:
            with distributed.training_together():
                if self.team.size > 1:
                    distributed.send(to_plain(job))
                training, loss = self.train(job)
        except InputError:
            raise
        except (FloatingPointError, RuntimeError, MemoryError, ValueError) as failure:
            return EpochResult(
                time.perf_counter() - began,
                failure=failures.one_line(failure),
                suspicion=failures.suspicion(failure),
                memory_full=memory.is_full(failure),
            )
        return EpochResult(time.perf_counter() - began, training.state_dict(), training.finished, loss)

    def train(self, job: FinalEpoch) -> tuple[Training, float]:
        """The training after the epoch, and the epoch's loss. Raises what training raises."""
        epoch = job.state["epoch"] if job.state is not None else 0
        latest, self.latest = self.latest, None
        if latest is not None and latest[0] == job.training and latest[1].epoch == epoch:
            training = latest[1]
        else:
            training = self._training(job)
        loss = training.run_epoch()
        if not training.finished:
            self.latest = job.training, training
        return training, loss

    def _training(self, job: FinalEpoch) -> Training:
        conditions = self.conditions
        network, generator = final_network(job.architecture, job.arithmetic, job.seed, conditions)
        schedule = Schedule.final(conditions.protocol)
        training = Training(network, conditions.data.everything, schedule, generator, self.team)
        if job.state is not None:
            with parsing("the checkpoint", "does not fit this training", "; start a new run"):
                training.load_state_dict(job.state)
        return training
