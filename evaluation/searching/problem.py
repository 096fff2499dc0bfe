"""The problem that a method is given: space, data, costs, randomness and the evaluation of candidates."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from evaluation.datasets import Dataset
from evaluation.searching.conditions import Conditions, RunRecipe
from evaluation.searching.executors import EXECUTORS
from evaluation.searching.failures import MachineFailures
from evaluation.searching.forecast import Forecast
from evaluation.searching.job_queue import JobQueue
from evaluation.searching.judging import Judgements
from evaluation.searching.seeds import derived_seed
from evaluation.searching.trials import Trials, trained_work
from evaluation.searching.work import MakeWork
from evaluation.settings.config import Budget, RunConfig
from evaluation.training.tasks.task import Augmentation
from methods.fronts import relative_hypervolume
from methods.method import Evaluation
from spaces import work
from spaces.costs import COSTS
from spaces.costs.trace import total_params
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier
from spaces.space import Architecture
from spaces.warmup import first_step_watched

T = TypeVar("T")
AHEAD = 4  # candidates that a method may announce for each worker


class SearchProblem:
    """Implements ``methods.method.Problem``. Holds the training images only; the test set cannot be reached from here.

    What a method's own ``evaluate`` led to (``searched``) and the harness's ``judge`` (``judged``) are kept apart: what a
    search found good by luck is trained anew, from scratch and with other random numbers, before methods are compared by it.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        device: torch.device,
        library: Sequence[Multiplier],
        conditions: Conditions | None = None,
    ) -> None:
        protocol = config.protocol
        self.config, self.dataset, self.device, self.library = config, dataset, device, tuple(library)
        self.selection_epochs = protocol.selection_epochs
        self.conditions = conditions or Conditions.of(config, dataset, library, device)
        self.space, self.shape, self.data = self.conditions.space, self.conditions.shape, self.conditions.data
        self.costs, self.task, self.cost_model = self.conditions.costs, self.data.everything.task, COSTS[config.cost]
        self.rng = np.random.default_rng([config.seed, derived_seed(config.method)])
        self.generator = torch.Generator(device).manual_seed(derived_seed(config.seed, config.method))
        budget = Budget.parse(config.budget)
        self.open_ended, self.evaluation_limit = bool(config.budget), budget.evaluations
        reference = self.space.costs(self.space.reference(), self.shape)
        self.reference_cost = self.cost_model.network(reference, "int8").total
        if self.reference_cost == 0:
            raise InputError(
                f"by the cost model '{config.cost}' even a large network costs nothing; choose another --cost"
            )
        self.reference_params = total_params(reference)
        make_work = MakeWork(config)
        self.work = make_work(self.conditions)
        recipe = RunRecipe(
            config,
            self.library,
            dataset.name,
            dataset.classes,
            dataset.train,
            self.data.split,
            device.type,
            make_work,
        )
        self.queue = JobQueue(EXECUTORS[config.executor](self.work, recipe, Forecast(self.costs), config.place))
        self.machine = MachineFailures()
        shared = (config.seed, self.queue, self.machine, self.costs, len(self.data.training))
        self.searched = Trials("search", *shared)
        self.judged = Judgements([Trials("selection", *shared, repeat) for repeat in range(protocol.judgements)])
        self._own_work = 0.0  # of networks that the method trains itself, in the steps so far
        self._counted = work.Counted()  # in the step in progress
        self._before_step: dict | None = None
        self.warm = False  # in this process

    def again(self, seed: int) -> "SearchProblem":
        """The same problem for another seed, at its beginning, without what all seeds have in common being made anew."""
        config = replace(self.config, seed=seed)
        return SearchProblem(config, self.dataset, self.device, self.library, self.conditions.again(config))

    @property
    def ahead(self) -> int:
        """See ``methods.method.Problem``. A slow candidate holds up the results of those behind it; workers go on."""
        return AHEAD * self.queue.parallel if self.queue.parallel > 1 else 0

    # -- for methods -------------------------------------------------------------------------------------------------

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``methods.method.Problem.train_batches``."""
        protocol = self.config.protocol
        augmentation = Augmentation(protocol.crop_padding, protocol.flip)
        batches = self.data.training.shuffled(protocol.search_batch, self.generator, augmentation)
        if not self.warm:
            batches, self.warm = first_step_watched(batches, self.device), True
        return self._while_there_is_time(batches)

    def _while_there_is_time(self, batches: Iterator[T]) -> Iterator[T]:
        """The first batch in any case."""
        for number, batch in enumerate(batches):
            if number and self.searched.out_of_time():
                return
            yield batch

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.data.validation.shuffled(self.config.protocol.search_batch, self.generator)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets)

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.errors(outputs, targets)

    def init_seed(self) -> int:
        return int(self.rng.integers(2**48))

    def cost_of(self, architecture: Architecture) -> float:
        """See ``methods.method.Problem.cost_of``."""
        return self.costs(architecture)[0]

    def evaluate(
        self,
        architectures: Sequence[Architecture],
        epochs: int | None = None,
        parents: Sequence[Architecture | None] | None = None,
    ) -> list[Evaluation]:
        """See ``methods.method.Problem.evaluate``. A result depends on the run's seed, the key, epochs and parent."""
        return self.searched.evaluate(architectures, epochs or self.selection_epochs, parents)

    def announce(
        self,
        architectures: Sequence[Architecture],
        epochs: int | None = None,
        parents: Sequence[Architecture | None] | None = None,
    ) -> None:
        """See ``methods.method.Problem.announce``."""
        self.searched.announce(architectures, epochs or self.selection_epochs, parents)

    def retain(self, keys: Iterable[str]) -> None:
        """See ``methods.method.Problem.retain``."""
        self.searched.retain(keys)

    # -- for the harness ---------------------------------------------------------------------------------------------

    def announce_judging(self, architectures: Sequence[Architecture]) -> None:
        """These will be judged, in this order."""
        self.judged.announce(architectures, self.selection_epochs)

    def judge(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Train each from scratch under the selection protocol, as often as it says, whatever the search knows of it; cached
        by key.
        """
        return self.judged.evaluate(architectures, self.selection_epochs)

    def end_search(self) -> float:
        """Nothing that was announced is asked for any more: the device-seconds of what had been begun."""
        self.searched.announced.clear()
        return self.queue.drop()

    def close(self) -> None:
        """End the workers."""
        self.queue.close()

    def hypervolume(self) -> float | None:
        """Of the search's own evaluations, if it made any; see ``methods.fronts.relative_hypervolume``."""
        if not self.searched.trials:
            return None
        return relative_hypervolume(self.searched.full_fidelity(), self.reference_cost)

    @contextmanager
    def repeatable_step(self) -> Iterator[None]:
        """Around a method's step. A state that is taken inside leads back to the step's beginning, with all that was
        evaluated since: the step is repeated with the same random numbers, and finds it in the cache.
        """
        self._before_step, self.searched.asked_before = self._position(), self.searched.asked
        try:
            with self.counting():
                yield
        finally:
            self._before_step = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Around what a method computes itself, candidates apart: its work is part of ``search_work``."""
        with work.counting() as self._counted:
            yield
        self._own_work += self._counted.macs
        self._counted = work.Counted()

    @property
    def search_work(self) -> float:
        """Trained work of the search so far, in MACs: of its candidates, and of networks that the method trains itself."""
        return self._own_work + self._counted.macs + self.searched.work

    def judging_work(self, architecture: Architecture) -> float:
        """Trained work of judging it, in MACs."""
        epochs = self.selection_epochs * self.config.protocol.judgements
        return trained_work(self.costs(architecture)[2], len(self.data.training), epochs)

    def _position(self) -> dict:
        """Where the random numbers, the count of evaluations and the work stand."""
        return {
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
            "asked": self.searched.asked,
            "own_work": self._own_work,
            "candidates_work": self.searched.work,
        }

    def state_dict(self) -> dict:
        return {
            **(self._before_step or self._position()),
            "evaluations": self.searched.to_plain(),
            "trained": self.searched.weights_to_plain(),
            "judgements": self.judged.to_plain(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])
        self.searched.asked = state["asked"]
        self.searched.restore(state["evaluations"], state["trained"], self.space)
        self.judged.restore(state["judgements"], self.space)
        self._own_work, self.searched.work = state.get("own_work", 0.0), state.get("candidates_work", 0.0)
