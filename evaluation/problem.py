"""The problem that a method is given: space, data, energy, randomness and the evaluation of candidates."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import moocore
import numpy as np
import torch
from torch import Tensor

from evaluation.config import RunConfig
from evaluation.datasets import Dataset, split
from evaluation.training import DeviceImages, Schedule, Training, accuracy, channel_statistics
from methods.method import Architecture, Evaluation
from spaces.cells import CellSpace
from spaces.energy import energy_model, total_macs, total_params
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

FAILED_ENERGY_PJ = 1e15  # of a candidate whose cost could not even be computed; finite and worse than any network


def derived_seed(*parts: object) -> int:
    """A seed that depends on all parts: the same training gets the same numbers whenever, and wherever, it runs."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "little")


def build_seeded(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """``build()`` with weights drawn under ``seed``; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class SearchProblem:
    """Implements ``methods.method.Problem``. Holds the training images only; the test set cannot be reached from here."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, library: Sequence[Multiplier]
    ) -> None:
        self.config, self.device = config, device
        protocol = config.protocol
        self.space = CellSpace(library, config.nodes, config.scope, config.multiplier_choice)
        self.energy_model = energy_model(config.energy_model)
        channels, *size = dataset.train.images.shape[1:]
        self.shape = NetworkShape(
            protocol.search_channels, protocol.search_cells, len(dataset.classes), channels, tuple(size)
        )
        training, validation = split(dataset.train, protocol.validation_share, protocol.split_seed)
        statistics = channel_statistics(dataset.train)
        self.training = DeviceImages(training, *statistics, device)
        self.validation = DeviceImages(validation, *statistics, device)
        self.everything = DeviceImages(dataset.train, *statistics, device)
        self.statistics = statistics
        self.rng = np.random.default_rng([config.seed, derived_seed(config.method)])
        self.generator = torch.Generator(device).manual_seed(derived_seed(config.seed, config.method))
        self.evaluations: dict[str, Evaluation] = {}
        self.on_evaluation: Callable[[Evaluation], None] = lambda _: None
        dearest = self.space.costs(self.space.dearest(), self.shape)
        self.reference_pj = self.energy_model.network(dearest, "int8").total

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        protocol = self.config.protocol
        return self.training.shuffled(protocol.search_batch, self.generator, protocol.crop_padding, protocol.flip)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.validation.shuffled(self.config.protocol.search_batch, self.generator)

    def init_seed(self) -> int:
        return int(self.rng.integers(2**48))

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """See ``methods.method.Problem.evaluate``. A result depends on the run's seed and the key alone."""
        results = []
        for architecture in architectures:
            if architecture.key not in self.evaluations:
                self.evaluations[architecture.key] = self._evaluate(architecture)
            results.append(self.evaluations[architecture.key])
            self.on_evaluation(results[-1])
        return results

    def _evaluate(self, architecture: Architecture) -> Evaluation:
        energy, params, macs = FAILED_ENERGY_PJ, 0, 0
        try:
            rows = self.space.costs(architecture, self.shape)
            energy = self.energy_model.network(rows, "approximate").total
            params, macs = total_params(rows), total_macs(rows)
            seed = derived_seed(self.config.seed, "selection", architecture.key)
            network = build_seeded(lambda: self.space.build(architecture, self.shape), seed)
            generator = torch.Generator(self.device).manual_seed(seed)
            training = Training(network, self.training, Schedule.selection(self.config.protocol), generator)
            while not training.finished:
                training.run_epoch()
            error = 1.0 - accuracy(network, self.validation)
        except (FloatingPointError, RuntimeError, MemoryError, ValueError) as failure:
            # A candidate that diverges or does not fit must not end the search; its reason goes into the record.
            reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
            return Evaluation(architecture.key, 1.0, energy, params, macs, reason)
        return Evaluation(architecture.key, error, energy, params, macs)

    def hypervolume(self) -> float:
        """Of all evaluations so far: error and energy, relative to the dearest architecture, against the point (1, 1)."""
        good = [e for e in self.evaluations.values() if e.failure is None]
        if not good:
            return 0.0
        points = np.array([[e.error, e.energy_pj / self.reference_pj] for e in good])
        return float(moocore.hypervolume(points, ref=[1.0, 1.0]))

    def state_dict(self) -> dict:
        return {
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
            "evaluations": [vars(evaluation) for evaluation in self.evaluations.values()],
        }

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])
        self.evaluations = {data["key"]: Evaluation(**data) for data in state["evaluations"]}
