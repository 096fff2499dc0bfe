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
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from methods.bilevel import Batch, Tally
from methods.fronts import relative_hypervolume
from methods.method import Evaluation, Problem, StepReport
from methods.perturbation import Perturbation
from methods.relaxations import Weights, zero_one_loss
from methods.supernet import SupernetSearch
from methods.supernet_settings import SupernetConfig
from spaces.errors import InputError


@dataclass(frozen=True)
class ApproxDartsConfig(SupernetConfig):
    """Settings of ApproxDARTS; the defaults are the published ones of DARTS where it has them."""

    method: ClassVar[str] = "approxdarts"

    epochs: int = 50
    """Epochs of search."""
    warmup: int = 0
    """First epochs in which only the weights learn."""
    order: Literal[1, 2] = 1
    """Order of the bilevel gradient: 1 takes the weights as they are, 2 looks one step ahead, α's part of it in fp32."""
    selection: Literal["probability", "perturbation"] = "probability"
    """How operations are chosen in the end: the likeliest, or those that the supernet's loss needs most, one edge after the
    other (DARTS-PT, ICLR 2021)."""
    tuning: int = 5
    """Epochs of the weights after each edge that is decided by perturbation."""
    patience: int = 0
    """Epochs in a row in which the hypervolume of what is derived, by its errors in the supernet, may fail to grow; then the
    supernet's search is over. 0 never ends it early."""
    zero_one_weight: float = 0.0
    """w_01, of a loss that drives the gates of the sigmoid relaxation to 0 or 1 (FairDARTS has 10)."""
    untrained: bool = False
    """A control: α is drawn from a normal distribution, β stays at its start, and nothing is trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or not 0 <= self.warmup < self.epochs:
            raise InputError(
                f"{self.method} needs at least one epoch after the warm-up: --{self.method}.epochs above "
                f"--{self.method}.warmup, which is {self.warmup}"
            )
        if min(self.tuning, self.patience) < 0:
            raise InputError(f"{self.method} needs tuning and patience ≥ 0")
        if self.zero_one_weight < 0 or (self.zero_one_weight and self.relaxation != "sigmoid"):
            raise InputError(
                f"{self.method}'s zero-one loss needs --{self.method}.relaxation sigmoid, and a weight ≥ 0"
            )
        if self.patience and self.selection == "perturbation":
            raise InputError(f"{self.method} selects by perturbation after all its epochs: patience is for probability")


class ApproxDarts(SupernetSearch):
    """See the module's docstring. Works on every space that is differentiable."""

    Config: ClassVar[type[ApproxDartsConfig]] = ApproxDartsConfig
    config: ApproxDartsConfig
    published_scope: ClassVar[str] = "separable"  # of the one multiplier that networks have in the paper
    presets: ClassVar[dict[str, ApproxDartsConfig]] = {
        # One objective, one multiplier, one network.
        "published": ApproxDartsConfig(energy_weight=0.0, proposals=1),
        # Ours: few epochs, so one operation per edge and step, and a higher learning rate for α and β; both wait until the
        # weights know something, or pools and skip connections, which need not learn, win.
        "quick": ApproxDartsConfig(
            epochs=7,
            warmup=4,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.03, 0.005),
        ),
        # Ours, likewise, for CIFAR-10 in minutes, on a quarter of the channels as in PC-DARTS. The defaults serve "darts".
        "fast": ApproxDartsConfig(
            epochs=4,
            partial=4,
            warmup=2,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            proposals=3,
        ),
        # Ours, for all of CIFAR-10 on a GPU, where every operation at once is one graph. With this little weight on the cost,
        # convolutions win (docs/methods.md, one seed); the taxed proposals are the cheaper ones.
        "gpu": ApproxDartsConfig(
            epochs=5,
            partial=4,
            warmup=3,
            energy_weight=0.05,
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            proposals=2,
        ),
        # Ours, likewise; what is left of a budget trains networks of all costs (docs/methods.md has what that is worth).
        "bench": ApproxDartsConfig(
            epochs=6,
            warmup=2,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            price=8.0,
            trained=20,
        ),
    }

    def __init__(self, problem: Problem, config: ApproxDartsConfig) -> None:
        super().__init__(problem, config, noise=1.0 if config.untrained else 1e-3)
        self.perturbation = Perturbation(self.choices, problem.rng) if config.selection == "perturbation" else None
        self.best, self.flat = 0.0, 0  # the highest hypervolume of what was derived; epochs since then

    @property
    def order(self) -> Literal[1, 2]:
        return self.config.order

    # -- one epoch of the bilevel optimisation -----------------------------------------------------------------------

    def search_step(self) -> StepReport:
        """One epoch: for every batch a step of α and β on validation, then a step of the weights on training.

        After the last one, where perturbation selects, one edge is decided in each step.
        """
        if self.epoch >= self.config.epochs:
            return self._decide()
        self.relaxation.progress = self.epoch / max(1, self.config.epochs - 1)
        self.net.train()
        train, held_out = self.begin_epoch(self.config.epochs)
        warming, validation = self.epoch < self.config.warmup, self.endless_validation()
        for batch in self.problem.train_batches():
            if not warming:
                self.bilevel.choice_step(batch, next(validation))
            self.bilevel.weight_step(batch)
        if warming:  # look at one batch all the same
            self.look(next(validation), held_out)
        self.relaxation.forget()
        if self.config.patience and not warming:
            self._watch()
        return self.over(train, held_out)

    def _watch(self) -> None:
        """Note whether what is derived now is better than before, as far as the supernet can tell."""
        derived, cost_of = self.derived(), self.problem.cost_of
        told = [
            Evaluation(each.key, tally.error, cost_of(each), 0, 0)
            for each, tally in zip(derived, self.in_supernet(derived))
        ]
        hypervolume = relative_hypervolume(told, self.problem.reference_cost)
        self.flat = 0 if hypervolume > self.best else self.flat + 1
        self.best = max(self.best, hypervolume)

    def _decide(self) -> StepReport:
        """Decide an edge by perturbation, and let the weights get used to it."""
        assert self.perturbation is not None
        self.net.train()
        train, held_out = self.bilevel.begin_epoch()
        batches = list(itertools.islice(self.endless_validation(), self.config.judged))
        self.perturbation.decide(
            self.relaxation.probabilities(self.logits), lambda weights: self._mean_loss(weights, batches)
        )
        self.bilevel.forget()  # graphs, in which the edge was undecided
        for _ in range(self.config.tuning):
            for batch in self.problem.train_batches():
                self.bilevel.weight_step(batch)
        for batch in batches:
            self.look(batch, held_out)
        return self.over(train if self.config.tuning else held_out, held_out)

    @torch.no_grad()
    def _mean_loss(self, weights: Weights, batches: list[Batch]) -> float:
        """Over some batches, of the supernet whose options count with ``weights``."""
        tally = Tally(self.problem.device)
        for batch in batches:
            self.loss_under(weights, None, batch, tally)
        return tally.loss

    def loss(self, batch: Batch, tally: Tally | None) -> Tensor:
        """L: of the supernet under the relaxed choices, or under the decided ones."""
        if self.perturbation is not None and self.epoch >= self.config.epochs:
            decided = self.perturbation.applied(self.relaxation.probabilities(self.logits))
            return self.loss_under(decided, None, batch, tally)
        relaxed = self.relaxation(self.logits)
        return self.loss_under(relaxed.weights, relaxed.sampled, batch, tally)

    def cost_term(self) -> Tensor:
        """λ E[cost] / E[exact int8 cost] and the zero-one loss w_01 · L_01 of FairDARTS."""
        if not self.config.zero_one_weight:
            return super().cost_term()
        gates = [self.logits[name][:, choice.hidden :] for name, choice in self.choices.items() if choice.picks]
        return super().cost_term() + self.config.zero_one_weight * zero_one_loss(gates)

    # -- what follows from it ----------------------------------------------------------------------------------------

    def scores(self) -> Weights:
        """Log-probabilities, and nats of loss where perturbation decided."""
        scores = super().scores()
        return scores if self.perturbation is None else self.perturbation.scores(scores)

    @property
    def search_steps(self) -> int:
        if self.config.untrained:
            return 0
        return self.config.epochs + (self.perturbation.steps if self.perturbation is not None else 0)

    @property
    def searching(self) -> bool:
        return super().searching and not (self.config.patience and self.flat >= self.config.patience)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "perturbation": None if self.perturbation is None else self.perturbation.state_dict(),
            "watched": (self.best, self.flat),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best, self.flat = state["watched"]
        if self.perturbation is not None:
            self.perturbation.load_state_dict(state["perturbation"])
