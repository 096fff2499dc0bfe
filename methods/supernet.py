"""What searches over a supernet share: the choices with their logits, the network of all options, its loss and its cost.

A subclass says when which of them learn: that is the method. Derivation, reports and the state are here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.bilevel import Batch, Bilevel, Tally
from methods.derivation import Derivation
from methods.method import Problem, StepReport
from methods.relaxations import RELAXATIONS, Weights, mean_shares, relative_entropy
from spaces.arithmetic.precision import mixtures_in_fp32
from spaces.errors import InputError
from spaces.graphed_step import recorder_of
from spaces.multipliers.multiplier import error_metrics
from spaces.optimisers import learning_rate, set_learning_rate
from spaces.registry import differentiable
from spaces.space import Architecture, Choice, DifferentiableSpace


@dataclass(frozen=True)
class SupernetConfig:
    """Settings of every search over a supernet; the defaults are the published ones of DARTS where it has them."""

    method: ClassVar[str] = ""  # the name in messages and flags

    relaxation: Literal["softmax", "sigmoid", "gumbel"] = "softmax"
    """softmax mixes all operations of an edge, sigmoid too, but lets each count for itself (FairDARTS, ECCV 2020);
    gumbel samples one per step (GDAS, CVPR 2019)."""
    temperature: tuple[float, float] = (10.0, 0.1)
    """First and last temperature of the gumbel relaxation, falling linearly."""
    energy_weight: float = 0.2
    """λ: the loss of α and β is cross-entropy + λ · E[cost] / E[cost in exact int8]."""
    partial: int = 1
    """1/K of the channels goes through the operations (PC-DARTS); 1 is all of them."""
    multiplier_prior: float = 2.0
    """β starts at −prior · (mean relative error of the multiplier), so that useless ones are not tried at length."""
    proposals: int = 6
    """Architectures to derive from one search, spread along the cost axis."""
    weight_lr: tuple[float, float] = (0.025, 0.001)
    """First and last learning rate of the weights (SGD, cosine)."""
    weight_momentum: float = 0.9
    """Momentum of the weights."""
    weight_decay: float = 3e-4
    """Weight decay of the weights."""
    clip: float = 5.0
    """Largest norm of the weights' gradient."""
    choice_lr: float = 3e-4
    """Learning rate of α and β (Adam)."""
    choice_betas: tuple[float, float] = (0.5, 0.999)
    """Momenta of Adam for α and β."""
    choice_decay: float = 1e-3
    """Weight decay of α and β."""

    def __post_init__(self) -> None:
        name = self.method
        if self.proposals < 1:
            raise InputError(f"{name} needs at least one proposal")
        if min(*self.temperature, self.weight_lr[0], self.choice_lr) <= 0 or self.weight_lr[1] < 0:
            raise InputError(
                f"{name} needs positive temperatures and learning rates; the last of the weights' may be 0"
            )
        if not all(0 <= value < 1 for value in (self.weight_momentum, *self.choice_betas)):
            raise InputError(f"{name} needs weight_momentum and choice_betas in [0, 1)")
        if min(self.weight_decay, self.choice_decay) < 0 or self.clip <= 0 or self.partial < 1:
            raise InputError(f"{name} needs weight decays ≥ 0, a positive clip and partial ≥ 1")
        if min(self.energy_weight, self.multiplier_prior) < 0:
            raise InputError(f"{name} needs an energy weight and a multiplier prior that are not negative")


class SupernetSearch(ABC):
    """A search over the supernet of a differentiable space; ``noise`` is the deviation of the first logits."""

    native_space = "cells"
    space: DifferentiableSpace
    config: SupernetConfig  # a subclass has settings of its own

    def __init__(self, problem: Problem, config: SupernetConfig, noise: float = 1e-3) -> None:
        if not isinstance(problem.space, DifferentiableSpace):
            known = " or ".join(differentiable())
            raise InputError(f"{config.method} searches differentiable spaces ({known}), not '{problem.space.name}'")
        if problem.evaluation_limit is not None:
            raise InputError(
                f"{config.method} trains no candidates of its own; give its budget in device time, trained work or steps"
            )
        self.problem, self.config, self.epoch = problem, config, 0
        self.space, device = problem.space, problem.device
        self.choices = self.offered()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.init_seed())
            self.net = self.space.supernet(problem.shape, self.choices, config.partial)
            logits = {name: self._first_logits(choice, noise) for name, choice in self.choices.items()}
        self.net.to(device=device, memory_format=torch.channels_last)
        self.logits = {name: nn.Parameter(rows.to(device)) for name, rows in logits.items()}
        for name, choice in self.choices.items():  # a single option leaves nothing to choose
            self.logits[name].requires_grad_(len(choice.options) > choice.hidden + 1)
        temperature = {"temperature": config.temperature} if config.relaxation == "gumbel" else {}
        self.relaxation = RELAXATIONS[config.relaxation](self.choices, problem.generator, **temperature)
        self.cost = self.space.expected_cost(problem.shape, self.choices, problem.cost_model, device)
        self.exact_cost = self.cost.exact_uniform()
        self.derivation = Derivation(self.space, self.choices, self.cost.relative, problem.cost_of)
        self.bilevel = self._bilevel(config)

    def offered(self) -> dict[str, Choice]:
        """What is to be decided."""
        return self.space.choices(self.problem.shape)

    def _first_logits(self, choice: Choice, noise: float) -> Tensor:
        """Small noise, which breaks ties; multipliers begin as likely as they are exact."""
        drawn = torch.randn(choice.count, len(choice.options))
        if not choice.multipliers:
            return noise * drawn
        errors = [error_metrics(multiplier).mre_pct / 100 for multiplier in self.problem.space.library]
        return torch.tensor([-self.config.multiplier_prior * error for error in errors]) + 1e-3 * drawn

    # -- learning ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, batch: Batch, tally: Tally | None) -> Tensor:
        """L as it is now in this search."""

    @property
    def samples(self) -> bool:
        """Whether which operations run is decided anew for every pass, on the host."""
        return self.relaxation.samples

    @property
    def order(self) -> Literal[1, 2]:
        """Of the bilevel gradient."""
        return 1

    def _bilevel(self, config: SupernetConfig) -> Bilevel:
        # Where operations are sampled, the host launches those that were: no graph can be repeated.
        device = self.problem.device
        recorder = None if self.samples else recorder_of(device)
        graphs = recorder is not None
        lr, decay = learning_rate(config.weight_lr[0], graphs, device), config.weight_decay
        # Fused, it fails where weights get their first gradients at different steps, as sampled ones do.
        way = {"foreach": not graphs, "fused": graphs}
        weights = torch.optim.SGD(self.net.parameters(), lr, config.weight_momentum, weight_decay=decay, **way)
        learning = [rows for rows in self.logits.values() if rows.requires_grad]
        betas, decay = config.choice_betas, config.choice_decay
        choices = torch.optim.Adam(learning, config.choice_lr, betas, weight_decay=decay, capturable=graphs)
        held, buffers = lambda: self.relaxation.held(self.logits), list(self.net.buffers())
        levels = (self.loss, self.cost_term, weights, choices)
        return Bilevel(*levels, config.clip, self.order, held, recorder, buffers, mixtures_in_fp32)

    def begin_epoch(self, epochs: int) -> tuple[Tally, Tally]:
        """The tallies of training and validation, at zero, and the weights' learning rate in this epoch of so many."""
        first, last = self.config.weight_lr
        lr = last + (first - last) * 0.5 * (1 + math.cos(math.pi * self.epoch / epochs))
        set_learning_rate(self.bilevel.weight_optimiser, lr)
        return self.bilevel.begin_epoch()

    def loss_under(
        self, weights: Weights, sampled: dict[str, np.ndarray] | None, batch: Batch, tally: Tally | None
    ) -> Tensor:
        """L of the supernet whose options count with ``weights``; see ``Supernet.choose``."""
        images, labels = batch
        self.net.choose(weights, sampled)
        answers = self.net(images)
        loss = self.problem.loss(answers, labels)
        if tally is not None:
            tally.add(loss.detach(), self.problem.errors(answers.detach(), labels))
        return loss

    @torch.no_grad()
    def look(self, batch: Batch, tally: Tally) -> None:
        """Tell how the supernet does, where nothing learns by it."""
        self.loss(batch, tally)

    def cost_term(self) -> Tensor:
        """λ E[cost] / E[exact int8 cost]."""
        expected = self.cost(self.relaxation.probabilities(self.logits))
        return self.config.energy_weight * expected / self.exact_cost

    def endless_validation(self) -> Iterator[Batch]:
        while True:
            yield from self.problem.validation_batches()

    # -- derivation, reports and state -------------------------------------------------------------------------------

    def proposals(self) -> list[Architecture]:
        """The published derivation first; then others of the same scores, with the cost taxed or subsidised."""
        return self.derivation.spread(self.scores(), self.config.proposals)

    def scores(self) -> Weights:
        """By which options are derived: log-probabilities."""
        return self.relaxation.scores(self.logits)

    def over(self, train: Tally, held_out: Tally) -> StepReport:
        """The end of a step."""
        self.epoch += 1
        if not math.isfinite(train.loss):
            name, weights, choices = self.config.method, self.config.weight_lr[0], self.config.choice_lr
            raise InputError(
                f"the supernet diverged (its loss is not finite): lower --{name}.weight-lr or --{name}.choice-lr, "
                f"whichever is high (now {weights:g} and {choices:g})"
            )
        return self._report(train, held_out)

    def _report(self, train: Tally, held_out: Tally) -> StepReport:
        derived = self.derivation.strongest(self.scores())
        with torch.no_grad():
            expected = float(self.cost(self.relaxation.probabilities(self.logits)))
        return StepReport(
            step=self.epoch,
            total=self.steps,
            validation_error=held_out.error,
            cost=self.problem.cost_of(derived),
            diagnostics={
                "train_loss": train.loss,
                "train_error": train.error,
                **{f"{name}_entropy": relative_entropy(rows) for name, rows in self.logits.items()},
                **self.space.diagnostics(derived),
                "expected_cost": expected,
                **mean_shares(self.choices, self.logits),
            },
        )

    @property
    @abstractmethod
    def steps(self) -> int:
        """Of the whole search."""

    @property
    def finished(self) -> bool:
        return self.epoch >= self.steps

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "logits": {name: rows.detach() for name, rows in self.logits.items()},
            "weight_optimiser": self.bilevel.weight_optimiser.state_dict(),
            "choice_optimiser": self.bilevel.choice_optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.net.load_state_dict(state["net"])
        with torch.no_grad():
            for name, rows in self.logits.items():
                rows.copy_(state["logits"][name])
        self.bilevel.load(state["weight_optimiser"], state["choice_optimiser"])
