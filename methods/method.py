"""What a search method is, and what it is given. A method proposes architectures; everything else is the harness's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from spaces.energy import EnergyModel, LayerCost
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape


class Architecture(Protocol):
    """A frozen value with a lossless JSON form; equal networks have equal keys."""

    @property
    def key(self) -> str: ...

    def to_json(self) -> dict: ...

    def short(self) -> str: ...


class Space(Protocol):
    """What can be built. A differentiable space also has ``supernet`` machinery that a method may import from it."""

    name: str
    library: tuple[Multiplier, ...]

    def sample(self, rng: np.random.Generator) -> Architecture: ...

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture: ...

    def dearest(self) -> Architecture: ...

    def from_json(self, data: object) -> Architecture: ...

    def build(
        self, architecture: Architecture, shape: NetworkShape, arithmetic: str = "approximate"
    ) -> torch.nn.Module: ...

    def costs(self, architecture: Architecture, shape: NetworkShape) -> list[LayerCost]: ...


@dataclass(frozen=True)
class Evaluation:
    """The outcome of training one candidate briefly. Always finite: a failure has error 1 and says why."""

    key: str
    error: float  # share of wrong answers on the validation images, 0..1
    energy_pj: float  # per inference, in the problem's energy model
    params: int
    macs: int
    failure: str | None = None


@dataclass(frozen=True)
class StepReport:
    """What one step of a method did, for the progress line and the history."""

    step: int  # steps done so far
    total: int  # steps planned
    validation_error: float  # best so far, or of the supernet; 0..1
    energy_pj: float  # of the same network, per inference
    diagnostics: dict[str, float] = field(default_factory=dict)


class Problem(Protocol):
    """All that a method may know. There is no way from here to the test set."""

    space: Space
    shape: NetworkShape  # in which candidates and supernets are built
    energy_model: EnergyModel
    device: torch.device
    rng: np.random.Generator  # the method's own source of randomness, saved with every checkpoint
    generator: torch.Generator  # likewise, on ``device``

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented (images (N, C, H, W), labels (N,)) from the training part, reshuffled every time."""

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of the validation part in random order, without augmentation."""

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Train each briefly under the selection protocol and judge it on validation; cached by key."""

    def init_seed(self) -> int:
        """A fresh seed for the weights of a network that the method builds itself."""


class Method(Protocol):
    """A search algorithm, constructed as ``cls(problem, config)``; the harness calls ``step`` until ``finished``.

    ``load_state_dict`` of a fresh object with the same problem and config continues bit for bit.
    """

    Config: ClassVar[type]  # a dataclass with a default for every field; each becomes a flag
    presets: ClassVar[dict[str, Any]]  # named protocol → Config with settings that suit it

    def step(self) -> StepReport: ...

    @property
    def finished(self) -> bool: ...

    def proposals(self) -> list[Architecture]:
        """Architectures worth training, best first, spread over energy; may be called after any step."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


def pareto_front(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations that no other beats in error and energy at once, most accurate first; one of equals is kept."""
    front: list[Evaluation] = []
    for candidate in sorted(evaluations, key=lambda e: (e.error, e.energy_pj, e.key)):
        if not front or candidate.energy_pj < front[-1].energy_pj:
            front.append(candidate)
    return front
