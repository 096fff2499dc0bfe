"""The problem that a method is given: space, data, costs, randomness and the evaluation of candidates."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from evaluation.datasets import Dataset
from evaluation.search.candidates import Conditions
from evaluation.search.costs import CandidateCosts
from evaluation.search.data import SearchData
from evaluation.search.evaluators import EVALUATORS
from evaluation.search.executors import EXECUTORS
from evaluation.search.failures import MachineFailures
from evaluation.search.seeds import derived_seed
from evaluation.search.trials import Trials
from evaluation.settings.config import Budget, RunConfig
from evaluation.training.tasks import TASKS
from evaluation.training.tasks.task import Augmentation
from methods.fronts import relative_hypervolume
from methods.method import Evaluation
from spaces.costs import COSTS
from spaces.costs.trace import total_params
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.multipliers.multiplier import Multiplier
from spaces.registry import SPACES
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space
from spaces.warmup import first_step_watched


def make_space(config: RunConfig, library: Sequence[Multiplier]) -> Space:
    """The space that a run searches. Raises InputError where its settings do not fit together."""
    cls = SPACES[config.space]
    settings = typed(config.space_config, cls.Config, "space_config")
    return cls(library, settings, scope=config.scope, choice=config.multiplier_choice)


class SearchProblem:
    """Implements ``methods.method.Problem``. Holds the training images only; the test set cannot be reached from here.

    What a method's own ``evaluate`` led to (``searched``) and the harness's ``judge`` (``judged``) are kept apart: what a
    search found good by luck is trained anew, from scratch and with other random numbers, before methods are compared by it.
    """

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, library: Sequence[Multiplier]
    ) -> None:
        protocol = config.protocol
        self.config, self.device, self.selection_epochs = config, device, protocol.selection_epochs
        self.space, self.cost_model = make_space(config, library), COSTS[config.cost]
        self.task = TASKS[config.task]()
        outputs, input_shape = self.task.outputs(dataset), self.task.input_shape(dataset)
        self.shape = NetworkShape(protocol.search_channels, protocol.search_cells, outputs, input_shape)
        self.data = SearchData(dataset, protocol, self.task, device)
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
        self.costs = CandidateCosts(self.space, self.shape, self.cost_model)
        evaluator = EVALUATORS[config.evaluator](Conditions(self.space, self.shape, self.data, protocol, self.costs))
        executor = EXECUTORS[config.executor]()
        self.machine = MachineFailures()
        self.searched, self.judged = (
            Trials(purpose, config.seed, evaluator, executor, self.machine) for purpose in ("search", "selection")
        )
        self._before_step: dict | None = None
        self.warm = False  # in this process

    # -- for methods -------------------------------------------------------------------------------------------------

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        protocol = self.config.protocol
        augmentation = Augmentation(protocol.crop_padding, protocol.flip)
        batches = self.data.training.shuffled(protocol.search_batch, self.generator, augmentation)
        if not self.warm:
            batches, self.warm = first_step_watched(batches, self.device), True
        return batches

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

    def retain(self, keys: Iterable[str]) -> None:
        """See ``methods.method.Problem.retain``."""
        self.searched.retain(keys)

    # -- for the harness ---------------------------------------------------------------------------------------------

    def judge(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Train each from scratch under the selection protocol, whatever the search knows of it; cached by key."""
        return self.judged.evaluate(architectures, self.selection_epochs)

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
            yield
        finally:
            self._before_step = None

    def _position(self) -> dict:
        """Where the random numbers and the count of evaluations stand."""
        return {
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
            "asked": self.searched.asked,
        }

    def state_dict(self) -> dict:
        return {
            **(self._before_step or self._position()),
            "evaluations": self.searched.to_plain(),
            "trained": self.searched.weights_to_plain(),
            "judged": self.judged.to_plain(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])
        self.searched.asked = state["asked"]
        self.searched.restore(state["evaluations"], state["trained"], self.space)
        self.judged.restore(state["judged"], [], self.space)
        self.judged.asked = 1 + max((trial.place for trial in self.judged.trials.values()), default=-1)
