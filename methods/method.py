"""What a search method is, and what it is given. A method proposes architectures; everything else is the harness's."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from spaces.costs.model import CostModel
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space


@dataclass(frozen=True)
class Evaluation:
    """The outcome of training one candidate briefly. Always finite: a failure has error 1 and says why."""

    key: str
    error: float  # share of wrong answers on the validation images, 0..1
    cost: float  # per inference, in the unit of the problem's cost model
    params: int
    macs: int
    failure: str | None = None
    epochs: int = 0  # of proxy training: results of different fidelity are not compared
    inherited: int = (
        0  # epochs behind the weights that it began with, in all its ancestors: of their own training it has none
    )

    @property
    def epochs_in_all(self) -> int:
        """For how long its weights have been trained, or some of them: those of ancestors included."""
        return self.epochs + self.inherited


@dataclass(frozen=True)
class StepReport:
    """What one step of a method did, for the progress line and the history."""

    step: int  # steps done so far
    total: int  # steps planned
    validation_error: float  # best so far, or of the supernet; 0..1
    cost: float  # of the same network, per inference
    diagnostics: dict[str, float] = field(default_factory=dict)


class Problem(Protocol):
    """All that a method may know. There is no way from here to the test set."""

    space: Space
    shape: NetworkShape  # in which candidates and supernets are built
    cost_model: CostModel
    device: torch.device
    rng: np.random.Generator  # the method's own source of randomness, saved with every checkpoint
    generator: torch.Generator  # likewise, on ``device``
    reference_cost: float  # of the space's reference network in exact int8, per inference
    reference_params: int  # of the same network
    selection_epochs: int  # of proxy training under the protocol
    open_ended: bool  # a budget ends the search: a method that could go on then should
    evaluation_limit: int | None  # of candidates trained in all, where the budget says so

    @property
    def ahead(self) -> int:
        """How many candidates are worth announcing beyond those asked for; 0 where one is trained after the other."""

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented (images (N, C, H, W), labels (N,)) from the training part, reshuffled every time.

        Where a budget ends on the way, the epoch ends there, too; it has at least one batch.
        """

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of the validation part in random order, without augmentation."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training minimises: a scalar, the mean over a batch of those that the batches below consist of."""

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How wrong each answer is: (N,), 0 to 1. Their mean over the validation part is ``Evaluation.error``."""

    def cost_of(self, architecture: Architecture) -> float:
        """Per inference in approximate arithmetic, known without training; cached by key."""

    def evaluate(
        self,
        architectures: Sequence[Architecture],
        epochs: int | None = None,
        parents: Sequence[Architecture | None] | None = None,
    ) -> list[Evaluation]:
        """Train each for so many epochs (None: those of the selection protocol) and judge it on validation.

        One evaluation for each, in order. Where a budget of time ends on the way, only those of the first ones, so that a
        method can still take account of them; of every step at least one.
        Cached by key and epochs. With ``parents``, weights are kept, and a candidate starts from those of its parent
        where their networks agree; its own parent goes on from where it stands, for the epochs that are missing.
        """

    def announce(
        self,
        architectures: Sequence[Architecture],
        epochs: int | None = None,
        parents: Sequence[Architecture | None] | None = None,
    ) -> None:
        """These will be asked for next, in this order, with the same epochs and parents: free workers may begin.

        A method whose next candidates do not depend on the results of the last ones so keeps all workers busy. The
        results are the same without it, but that a parent's weights are those of the announcement.
        """

    def retain(self, keys: Iterable[str]) -> None:
        """Forget the weights of all other candidates."""

    def init_seed(self) -> int:
        """A fresh seed for the weights of a network that the method builds itself."""


class Method(Protocol):
    """A search algorithm, constructed as ``cls(problem, config)``; the harness calls ``step`` until ``finished``.

    A method may have ``signals() -> {name: {key of an architecture: value}}``, asked for at the end of the search: what it
    believes of its proposals, lower for better. The record tells how well that ranks them as they are judged. And
    ``published_scope``, where the literature has one multiplier, which governs that; and ``needs``, the name of a package that
    is not among those of the suite.

    ``load_state_dict`` of a fresh object with the same problem and config continues bit for bit. A run that is killed in
    the middle of a step repeats the step with the same random numbers, and finds in the cache what was evaluated already.
    """

    Config: ClassVar[type]  # a dataclass with a default for every field; each becomes a flag
    presets: ClassVar[
        dict[str, Any]
    ]  # named protocol → Config with settings that suit it; "published": the literature's
    native_space: ClassVar[str]  # searched when the method runs alone and no space is asked for

    def __init__(self, problem: Problem, config: Any) -> None: ...

    def step(self) -> StepReport: ...

    @property
    def finished(self) -> bool: ...

    def proposals(self) -> list[Architecture]:
        """Architectures worth training, best first, spread over cost; may be called after any step."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
