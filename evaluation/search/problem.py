"""The problem that a method is given: space, data, energy, randomness and the evaluation of candidates."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.datasets import Dataset, split_index
from evaluation.search import failures
from evaluation.settings.config import Budget, RunConfig
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.loop import Schedule, Training, accuracy
from evaluation.training.tasks import TASKS
from evaluation.training.tasks.task import Augmentation
from methods.method import Evaluation, relative_hypervolume
from spaces.cells.space import CellSpace
from spaces.costs import COSTS
from spaces.costs.trace import total_macs, total_params
from spaces.grid.space import GridSpace
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space
from spaces.warmup import first_step_watched

FAILED_COST = 1e15  # of a candidate whose cost could not even be computed; finite and worse than any network


def derived_seed(*parts: object) -> int:
    """A seed that depends on all parts: the same training gets the same numbers whenever, and wherever, it runs."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "little")


def build_seeded(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """``build()`` with weights drawn under ``seed``; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def make_space(config: RunConfig, library: Sequence[Multiplier]) -> Space:
    """The space that a run searches. Raises InputError where its settings do not fit together."""
    if config.space == "grid":
        size = (config.rows, config.columns, config.levels_back)
        return GridSpace(library, *size, config.multiplier_choice, config.scope)
    return CellSpace(library, config.nodes, config.scope, config.multiplier_choice)


@dataclass(frozen=True)
class Trained:
    """The weights of a candidate, from which others can start."""

    architecture: Architecture
    epochs: int
    weights: dict[str, Tensor]


class SearchProblem:
    """Implements ``methods.method.Problem``. Holds the training images only; the test set cannot be reached from here.

    A method's own ``evaluate`` and the harness's ``judge`` are kept apart: what a search found good by luck is trained
    anew, from scratch and with other random numbers, before methods are compared by it.
    """

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, library: Sequence[Multiplier]
    ) -> None:
        self.config, self.device = config, device
        protocol = config.protocol
        self.space = make_space(config, library)
        self.cost_model = COSTS[config.cost]
        self.task = TASKS[config.task]()
        self.shape = NetworkShape(
            protocol.search_channels,
            protocol.search_cells,
            self.task.outputs(dataset),
            self.task.input_shape(dataset),
        )
        training, validation = split_index(dataset.train.labels, protocol.validation_share, protocol.split_seed)
        statistics = channel_statistics(dataset.train)
        self.everything = DeviceImages(dataset.train, *statistics, device, self.task)
        self.training, self.validation = self.everything.part(training), self.everything.part(validation)
        self.statistics = statistics
        self.rng = np.random.default_rng([config.seed, derived_seed(config.method)])
        self.generator = torch.Generator(device).manual_seed(derived_seed(config.seed, config.method))
        budget = Budget.parse(config.budget)
        self.open_ended, self.evaluation_limit = bool(config.budget), budget.evaluations
        self.evaluations: dict[tuple[str, int], Evaluation] = {}  # of the search, by key and epochs
        self.judged: dict[str, Evaluation] = {}  # under the selection protocol, by key
        self.judging: dict[str, float] = {}  # seconds that this took
        self.hits = 0  # evaluations that were asked for again
        self.spent: dict[tuple[str, int], float] = {}  # seconds of training in the search
        self.trained: dict[str, Trained] = {}
        self._costs: dict[str, tuple[float, int, int]] = {}  # energy in pJ, parameters and MACs, by key
        self.on_evaluation: Callable[[Evaluation], None] = lambda _: None
        self.machine = failures.MachineFailures()
        reference = self.space.costs(self.space.reference(), self.shape)
        self.reference_cost = self.cost_model.network(reference, "int8").total
        self.reference_params = total_params(reference)
        self.selection_epochs = protocol.selection_epochs
        self.warm = False  # in this process

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        protocol = self.config.protocol
        augmentation = Augmentation(protocol.crop_padding, protocol.flip)
        batches = self.training.shuffled(protocol.search_batch, self.generator, augmentation)
        if not self.warm:
            batches, self.warm = first_step_watched(batches, self.device), True
        return batches

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.validation.shuffled(self.config.protocol.search_batch, self.generator)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets)

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.errors(outputs, targets)

    def init_seed(self) -> int:
        return int(self.rng.integers(2**48))

    def cost_of(self, architecture: Architecture) -> float:
        """See ``methods.method.Problem.cost_of``."""
        return self._cost(architecture)[0]

    def _cost(self, architecture: Architecture) -> tuple[float, int, int]:
        if architecture.key not in self._costs:
            rows = self.space.costs(architecture, self.shape)
            cost = self.cost_model.network(rows, "approximate").total
            self._costs[architecture.key] = (cost, total_params(rows), total_macs(rows))
        return self._costs[architecture.key]

    def evaluate(
        self,
        architectures: Sequence[Architecture],
        epochs: int | None = None,
        parents: Sequence[Architecture | None] | None = None,
    ) -> list[Evaluation]:
        """See ``methods.method.Problem.evaluate``. A result depends on the run's seed, the key, epochs and parent."""
        epochs = epochs or self.selection_epochs
        results = []
        for at, architecture in enumerate(architectures):
            known = (architecture.key, epochs)
            if known in self.evaluations:
                self.hits += 1
            else:
                parent = parents[at] if parents else None
                self.evaluations[known] = self._search_evaluation(architecture, epochs, parent, parents is not None)
            results.append(self.evaluations[known])
            self.on_evaluation(results[-1])
        return results

    def _search_evaluation(
        self, architecture: Architecture, epochs: int, parent: Architecture | None, keep: bool
    ) -> Evaluation:
        start = self.trained.get(parent.key) if parent is not None else None
        evaluation, network, seconds = self._train(architecture, "search", epochs, start)
        self.spent[architecture.key, epochs] = seconds
        known = self.trained.get(architecture.key)
        if keep and network is not None and (known is None or known.epochs <= epochs):
            self.trained[architecture.key] = Trained(architecture, epochs, network.state_dict())
        return evaluation

    def judge(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Train each from scratch under the selection protocol, whatever the search knows of it; cached by key."""
        for architecture in architectures:
            if architecture.key not in self.judged:
                evaluation, _, seconds = self._train(architecture, "selection", self.selection_epochs)
                self.judged[architecture.key], self.judging[architecture.key] = evaluation, seconds
            self.on_evaluation(self.judged[architecture.key])
        return [self.judged[architecture.key] for architecture in architectures]

    def retain(self, keys: Iterable[str]) -> None:
        """See ``methods.method.Problem.retain``."""
        self.trained = {key: self.trained[key] for key in keys if key in self.trained}

    def _train(
        self, architecture: Architecture, purpose: str, epochs: int, start: Trained | None = None
    ) -> tuple[Evaluation, torch.nn.Module | None, float]:
        """The outcome, the trained network unless it failed, and the seconds that its training took."""
        energy, params, macs = FAILED_COST, 0, 0
        began = time.perf_counter()
        try:
            energy, params, macs = self._cost(architecture)
            began = time.perf_counter()
            network = self._trained_network(architecture, purpose, epochs, start)
            error = 1.0 - accuracy(network, self.validation)
        except Exception as failure:
            # A candidate that diverges, does not fit or cannot be built must not end the search; its reason is recorded.
            self.machine.note(failure)
            reason = failures.reason(failure, self.config.protocol.batch)
            failed = Evaluation(architecture.key, 1.0, energy, params, macs, reason, epochs)
            return failed, None, time.perf_counter() - began
        self.machine.clear()
        evaluation = Evaluation(architecture.key, error, energy, params, macs, None, epochs)
        return evaluation, network, time.perf_counter() - began

    def _trained_network(
        self, architecture: Architecture, purpose: str, epochs: int, start: Trained | None
    ) -> torch.nn.Module:
        seed = derived_seed(self.config.seed, purpose, architecture.key)
        network = build_seeded(lambda: self.space.build(architecture, self.shape), seed)
        if start is not None:
            inherited = getattr(self.space, "inherited", lambda *_: {})
            inherit(network, start.weights, inherited(architecture, start.architecture, self.shape))
            if start.architecture.key == architecture.key:
                epochs -= start.epochs
        generator = torch.Generator(self.device).manual_seed(derived_seed(seed, epochs))
        training = Training(network, self.training, Schedule.selection(self.config.protocol, epochs), generator)
        while not training.finished:
            training.run_epoch()
        return network

    @property
    def candidates(self) -> int:
        """How many different networks the search has trained."""
        return len({key for key, _ in self.evaluations})

    def full_fidelity(self) -> list[Evaluation]:
        """The search's evaluations of the highest number of epochs: only these can be set side by side."""
        most = max((e.epochs for e in self.evaluations.values()), default=0)
        return [e for e in self.evaluations.values() if e.epochs == most]

    def hypervolume(self) -> float | None:
        """Of the search's own evaluations, if it made any; see ``methods.method.relative_hypervolume``."""
        if not self.evaluations:
            return None
        return relative_hypervolume(self.full_fidelity(), self.reference_cost)

    def state_dict(self) -> dict:
        return {
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
            "evaluations": [{**vars(e), "seconds": self.spent[at]} for at, e in self.evaluations.items()],
            "judged": [{**vars(e), "seconds": self.judging[e.key]} for e in self.judged.values()],
            "hits": self.hits,
            "trained": [
                {"architecture": t.architecture.to_json(), "epochs": t.epochs, "weights": t.weights}
                for t in self.trained.values()
            ],
        }

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])
        searched = [_evaluation(data) for data in state["evaluations"]]
        self.evaluations = {(e.key, e.epochs): e for e, _ in searched}
        self.spent = {(e.key, e.epochs): seconds for e, seconds in searched}
        judged = [_evaluation(data) for data in state["judged"]]
        self.judged = {e.key: e for e, _ in judged}
        self.judging = {e.key: seconds for e, seconds in judged}
        self.hits = state["hits"]
        trained = [
            Trained(self.space.from_json(t["architecture"]), t["epochs"], t["weights"]) for t in state["trained"]
        ]
        self.trained = {t.architecture.key: t for t in trained}


def _evaluation(data: dict) -> tuple[Evaluation, float]:
    """An evaluation and its seconds as a checkpoint keeps them."""
    return Evaluation(**{name: data[name] for name in data if name != "seconds"}), data["seconds"]


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
