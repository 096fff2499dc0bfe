"""ApproxDARTS: differentiable search of networks whose convolutions run on approximate multipliers.

Pinos, Sekanina, Mrazek, IJCNN 2024 (arXiv 2404.08002), on DARTS (Liu, Simonyan, Yang, ICLR 2019), whose equations are
numbered here.

    min_{α,β}  L_val(w*(α,β), α, β) + λ E[cost(α,β)] / E[cost in exact int8]   s.t.   w* = argmin_w L_train(w, α, β)

α are the logits of operations and β those of multipliers, for every place that the space names. The algorithm:

1. Build the supernet, in which every place computes the mixture of its options (equation 2; ``methods.relaxations``).
2. Until the epochs are over, for every batch: a step of α and β on the validation part (equation 6, of first or second
   order: 7 and 8), then a step of the weights w on the training part (``methods.bilevel``).
3. Derive the strongest options (section 2.4), by their probabilities or by what the supernet loses without them
   (``methods.perturbation``); and again with the cost taxed or subsidised, for a spread of costs.

With one multiplier in the library this is the published setting, where β has nothing to choose.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.bilevel import Batch, Bilevel, Tally
from methods.derivation import Derivation
from methods.method import Problem, StepReport
from methods.perturbation import Perturbation, Weights
from methods.relaxations import RELAXATIONS, mean_shares, relative_entropy
from spaces.errors import InputError
from spaces.graphed_step import recorder_of
from spaces.multipliers.multiplier import error_metrics
from spaces.optimisers import learning_rate, set_learning_rate
from spaces.registry import differentiable
from spaces.space import Architecture, DifferentiableSpace

PERTURBED_BATCHES = 4  # of validation images, by which options are compared


@dataclass(frozen=True)
class ApproxDartsConfig:
    """Settings of ApproxDARTS; the defaults are the published ones of DARTS where it has them."""

    epochs: int = 50
    """Epochs of search."""
    warmup: int = 0
    """First epochs in which only the weights learn."""
    order: Literal[1, 2] = 1
    """Order of the bilevel gradient: 1 takes the weights as they are, 2 looks one step ahead."""
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
    selection: Literal["probability", "perturbation"] = "probability"
    """How operations are chosen in the end: the likeliest, or those that the supernet's loss needs most, one edge after the
    other (DARTS-PT, ICLR 2021)."""
    tuning: int = 5
    """Epochs of the weights after each edge that is decided by perturbation."""
    untrained: bool = False
    """A control: α is drawn from a normal distribution, β stays at its start, and nothing is trained."""
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
        if self.epochs < 1 or self.proposals < 1 or not 0 <= self.warmup < self.epochs:
            raise InputError("approxdarts needs at least one epoch after the warm-up and at least one proposal")
        if min(*self.temperature, *self.weight_lr, self.choice_lr) <= 0:
            raise InputError("approxdarts needs positive temperatures and learning rates")
        if not all(0 <= value < 1 for value in (self.weight_momentum, *self.choice_betas)):
            raise InputError("approxdarts needs weight_momentum and choice_betas in [0, 1)")
        if self.tuning < 0:
            raise InputError(f"approxdarts cannot tune for {self.tuning} epochs")
        if min(self.weight_decay, self.choice_decay) < 0 or self.clip <= 0 or self.partial < 1:
            raise InputError("approxdarts needs weight decays ≥ 0, a positive clip and partial ≥ 1")
        if min(self.energy_weight, self.multiplier_prior) < 0:
            raise InputError("approxdarts needs an energy weight and a multiplier prior that are not negative")


class ApproxDarts:
    """See the module's docstring. Works on every space that is differentiable."""

    Config = ApproxDartsConfig
    native_space = "cells"
    presets: ClassVar[dict[str, ApproxDartsConfig]] = {
        # Ours: few epochs, so one operation per edge and step, and a higher learning rate for α and β.
        "quick": ApproxDartsConfig(
            epochs=7,
            warmup=1,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.03, 0.005),
        ),
        # Ours, likewise, for CIFAR-10 in minutes, on a quarter of the channels as in PC-DARTS. The defaults serve "darts".
        "fast": ApproxDartsConfig(
            epochs=4,
            partial=4,
            warmup=1,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            proposals=4,
        ),
    }

    def __init__(self, problem: Problem, config: ApproxDartsConfig) -> None:
        if not isinstance(problem.space, DifferentiableSpace):
            known = " or ".join(differentiable())
            raise InputError(f"approxdarts searches differentiable spaces ({known}), not '{problem.space.name}'")
        if problem.evaluation_limit is not None:
            raise InputError("approxdarts trains no candidates of its own; give its budget in device time or steps")
        self.problem, self.config, self.epoch = problem, config, 0
        self.space = space = problem.space
        device = problem.device
        self.choices = space.choices(problem.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.init_seed())
            self.net = space.supernet(problem.shape, self.choices, config.partial)
            logits = {name: self._first_logits(name) for name in self.choices}
        self.net.to(device=device, memory_format=torch.channels_last)
        self.logits = {name: nn.Parameter(rows.to(device)) for name, rows in logits.items()}
        for name, choice in self.choices.items():  # a single option leaves nothing to choose
            self.logits[name].requires_grad_(len(choice.options) > choice.hidden + 1)
        temperature = {"temperature": config.temperature} if config.relaxation == "gumbel" else {}
        self.relaxation = RELAXATIONS[config.relaxation](self.choices, problem.generator, **temperature)
        self.cost = space.expected_cost(problem.shape, self.choices, problem.cost_model, device)
        self.exact_cost = self.cost.exact_uniform()
        self.derivation = Derivation(space, self.choices, self.cost.relative, problem.cost_of)
        self.bilevel = self._bilevel()
        self.perturbation = Perturbation(self.choices, problem.rng) if config.selection == "perturbation" else None

    def _first_logits(self, name: str) -> Tensor:
        """Small noise, which breaks ties; multipliers begin as likely as they are exact."""
        choice = self.choices[name]
        noise = torch.randn(choice.count, len(choice.options))
        if not choice.multipliers:
            return noise if self.config.untrained else 1e-3 * noise
        errors = [error_metrics(multiplier).mre_pct / 100 for multiplier in self.problem.space.library]
        return torch.tensor([-self.config.multiplier_prior * error for error in errors]) + 1e-3 * noise

    def _bilevel(self) -> Bilevel:
        config, device = self.config, self.problem.device
        # Where operations are sampled, the host launches those that were: no graph can be repeated.
        recorder = None if self.relaxation.samples else recorder_of(device)
        graphs = recorder is not None
        lr, decay = learning_rate(config.weight_lr[0], graphs, device), config.weight_decay
        # Fused, it fails where weights get their first gradients at different steps, as sampled ones do.
        way = {"foreach": not graphs, "fused": graphs}
        weights = torch.optim.SGD(self.net.parameters(), lr, config.weight_momentum, weight_decay=decay, **way)
        learning = [rows for rows in self.logits.values() if rows.requires_grad]
        betas, decay = config.choice_betas, config.choice_decay
        choices = torch.optim.Adam(learning, config.choice_lr, betas, weight_decay=decay, capturable=graphs)
        held, buffers = lambda: self.relaxation.held(self.logits), list(self.net.buffers())
        levels = (self._loss, self._cost_term, weights, choices)
        return Bilevel(*levels, config.clip, config.order, held, recorder, buffers)

    # -- one epoch of the bilevel optimisation -----------------------------------------------------------------------

    def step(self) -> StepReport:
        """One epoch: for every batch a step of α and β on validation, then a step of the weights on training.

        After the last one, where perturbation selects, one edge is decided in each step.
        """
        if self.epoch >= self.config.epochs:
            return self._decide()
        set_learning_rate(self.bilevel.weight_optimiser, self._cosine(*self.config.weight_lr))
        self.relaxation.progress = self.epoch / max(1, self.config.epochs - 1)
        self.net.train()
        train, held_out = self.bilevel.begin_epoch()
        warming, validation = self.epoch < self.config.warmup, self._endless_validation()
        for batch in self.problem.train_batches():
            if not warming:
                self.bilevel.choice_step(batch, next(validation))
            self.bilevel.weight_step(batch)
        if warming:  # look at one batch all the same
            with torch.no_grad():
                self._loss(next(validation), held_out)
        self.relaxation.forget()
        return self._over(train, held_out)

    def _decide(self) -> StepReport:
        """Decide an edge by perturbation, and let the weights get used to it."""
        assert self.perturbation is not None
        self.net.train()
        train, held_out = self.bilevel.begin_epoch()
        batches = list(itertools.islice(self._endless_validation(), PERTURBED_BATCHES))
        self.perturbation.decide(
            self.relaxation.probabilities(self.logits), lambda weights: self._loss_under(weights, batches)
        )
        self.bilevel.forget()  # graphs, in which the edge was undecided
        for _ in range(self.config.tuning):
            for batch in self.problem.train_batches():
                self.bilevel.weight_step(batch)
        with torch.no_grad():
            for batch in batches:
                self._loss(batch, held_out)
        return self._over(train if self.config.tuning else held_out, held_out)

    @torch.no_grad()
    def _loss_under(self, weights: Weights, batches: list[Batch]) -> float:
        """L of the supernet whose options count with ``weights``."""
        tally = Tally(self.problem.device)
        for batch in batches:
            self._run(weights, None, batch, tally)
        return tally.loss

    def _over(self, train: Tally, held_out: Tally) -> StepReport:
        """The end of a step."""
        self.epoch += 1
        if not math.isfinite(train.loss):
            weights, choices = self.config.weight_lr[0], self.config.choice_lr
            raise InputError(
                "the supernet diverged (its loss is not finite): lower --approxdarts.weight-lr or --approxdarts.choice-lr, "
                f"whichever is high (now {weights:g} and {choices:g})"
            )
        return self._report(train, held_out)

    def _loss(self, batch: Batch, tally: Tally | None) -> Tensor:
        """L: of the supernet under the relaxed choices, or under the decided ones."""
        if self.perturbation is not None and self.epoch >= self.config.epochs:
            return self._run(self.perturbation.applied(self.relaxation.probabilities(self.logits)), None, batch, tally)
        relaxed = self.relaxation(self.logits)
        return self._run(relaxed.weights, relaxed.sampled, batch, tally)

    def _run(
        self, weights: Weights, sampled: dict[str, np.ndarray] | None, batch: Batch, tally: Tally | None
    ) -> Tensor:
        images, labels = batch
        self.net.choose(weights, sampled)
        answers = self.net(images)
        loss = self.problem.loss(answers, labels)
        if tally is not None:
            tally.add(loss.detach(), self.problem.errors(answers.detach(), labels))
        return loss

    def _cost_term(self) -> Tensor:
        """λ E[cost] / E[exact int8 cost]."""
        expected = self.cost(self.relaxation.probabilities(self.logits))
        return self.config.energy_weight * expected / self.exact_cost

    def _endless_validation(self) -> Iterator[Batch]:
        while True:
            yield from self.problem.validation_batches()

    def _cosine(self, first: float, last: float) -> float:
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * self.epoch / self.config.epochs))

    # -- derivation --------------------------------------------------------------------------------------------------

    def proposals(self) -> list[Architecture]:
        """The published derivation first; then others of the same scores, with the cost taxed or subsidised."""
        return self.derivation.spread(self._scores(), self.config.proposals)

    def _scores(self) -> Weights:
        """By which options are derived: log-probabilities, and nats of loss where perturbation decided."""
        scores = self.relaxation.scores(self.logits)
        return scores if self.perturbation is None else self.perturbation.scores(scores)

    # -- reports and state -------------------------------------------------------------------------------------------

    def _report(self, train: Tally, held_out: Tally) -> StepReport:
        derived = self.derivation.strongest(self._scores())
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
    def steps(self) -> int:
        """Of the whole search."""
        return self.config.epochs + (self.perturbation.steps if self.perturbation is not None else 0)

    @property
    def finished(self) -> bool:
        return self.config.untrained or self.epoch >= self.steps

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "logits": {name: rows.detach() for name, rows in self.logits.items()},
            "weight_optimiser": self.bilevel.weight_optimiser.state_dict(),
            "choice_optimiser": self.bilevel.choice_optimiser.state_dict(),
            "perturbation": None if self.perturbation is None else self.perturbation.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.net.load_state_dict(state["net"])
        with torch.no_grad():
            for name, rows in self.logits.items():
                rows.copy_(state["logits"][name])
        self.bilevel.load(state["weight_optimiser"], state["choice_optimiser"])
        if self.perturbation is not None:
            self.perturbation.load_state_dict(state["perturbation"])
