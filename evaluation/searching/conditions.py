"""What all jobs of a run have in common, and how another process gets it, too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NoReturn

import torch

from evaluation.datasets import Dataset, ImageSet
from evaluation.searching.costs import CandidateCosts
from evaluation.searching.data import SearchData, Split
from evaluation.settings.config import RunConfig
from evaluation.settings.protocols import Protocol
from evaluation.training.device import choose_device, set_determinism, use_threads
from evaluation.training.tasks import TASKS
from spaces.arithmetic import emulate, gradient_precision
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.multipliers.multiplier import Multiplier
from spaces.registry import SPACES
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space


@dataclass(frozen=True)
class Conditions:
    """The test set is none of them: no job can reach it."""

    space: Space
    shape: NetworkShape  # of candidates
    final_shape: NetworkShape
    data: SearchData
    protocol: Protocol
    costs: Callable[[Architecture], tuple[float, int, int]]  # (cost, parameters, MACs) of a candidate

    @classmethod
    def of(
        cls,
        config: RunConfig,
        dataset: Dataset,
        library: Sequence[Multiplier],
        device: torch.device,
        split: Split | None = None,
    ) -> "Conditions":
        """Those of a run; ``split`` is that of its images, where it is known.

        Raises InputError where its settings do not fit together.
        """
        space, protocol, task = make_space(config, library), config.protocol, TASKS[config.task]()
        outputs, input_shape = task.outputs(dataset), task.input_shape(dataset)
        shape = NetworkShape(protocol.search_channels, protocol.search_cells, outputs, input_shape)
        auxiliary = protocol.auxiliary_weight > 0
        final = replace(shape, channels=protocol.final_channels, cells=protocol.final_cells, auxiliary=auxiliary)
        data = SearchData(dataset, protocol, task, device, split, config.seed)
        return cls(space, shape, final, data, protocol, CandidateCosts(space, shape, COSTS[config.cost]))

    def again(self, config: RunConfig) -> "Conditions":
        """Those of another seed: the images are split otherwise."""
        return replace(self, data=self.data.again(config.protocol, config.seed))


def make_space(config: RunConfig, library: Sequence[Multiplier]) -> Space:
    """The space that a run searches. Raises InputError where its settings do not fit together."""
    cls = SPACES[config.space]
    settings = typed(config.space_config, cls.Config, "space_config")
    return cls(library, settings, scope=config.scope, choice=config.multiplier_choice)


@dataclass(frozen=True)
class RunRecipe:
    """Gets a worker ready for a run's jobs; see ``executors.executor.Recipe``."""

    config: RunConfig
    library: tuple[Multiplier, ...]
    name: str  # of the data set
    classes: tuple[str, ...]
    train: ImageSet
    split: Split
    device: str  # the run's type of device
    make_work: Callable[[Conditions], Callable[[Any], Any]]

    def work(self, number: int) -> Callable[[Any], Any]:
        """One thread, unless the run's settings say more: workers share the cores. Workers share GPUs by turns."""
        set_determinism(self.config.deterministic)
        use_threads(self.config.threads or 1, self.train.images.shape[2])
        emulate.use_engine(self.config.engine)
        device = choose_device(self.device)
        if device.type == "cuda":
            device = torch.device("cuda", number % torch.cuda.device_count())
            torch.cuda.set_device(device)
        dataset = Dataset(self.name, "", self.classes, self.train, _no_test_set)
        work = self.make_work(Conditions.of(self.config, dataset, self.library, device, self.split))
        precision = self.config.protocol.gradient_precision

        def do(job: Any) -> Any:
            with gradient_precision.used(precision, device):
                return on_cpu(work(job))

        return do


def _no_test_set() -> NoReturn:
    raise InputError("the test set is read once, at the end of a run, and by no worker")


def on_cpu(value: Any) -> Any:
    """A result with all its tensors on the CPU, where another process can have them."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: on_cpu(part) for name, part in value.items()}
    if isinstance(value, list):
        return [on_cpu(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        moved = {name: on_cpu(part) for name, part in parts.items()}
        return value if all(moved[name] is parts[name] for name in parts) else replace(value, **moved)
    return value
