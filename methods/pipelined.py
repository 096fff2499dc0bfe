"""Pipelined search: first the weights, whatever the choices; then the choices, with the weights as they are.

Hu, Xie, Liu, Cui, Geng, Liu, Meng, ICASSP 2021 (arXiv 2007.08818), and TASLP 30, 2022 (arXiv 2201.03943), where it searches
TDNNs for speech. Learning both at once ties weights to choices that are not made yet; here they take turns once:

1. The weights w learn on the training part. In every step each place computes one option, drawn uniformly.
2. w and the statistics of batch normalisation stay as they are. The logits α and β learn on the validation part, by softmax or
   by the gumbel softmax whose temperature falls:   min_{α,β}  L_val(w, α, β) + η E[cost] / E[cost in exact int8]
3. The architectures of the highest products of probabilities are derived.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from methods.bilevel import Batch, Tally
from methods.method import Problem, StepReport
from methods.relaxations import Uniform
from methods.supernet import SupernetSearch
from methods.supernet_settings import SupernetConfig
from spaces.errors import InputError
from spaces.space import Architecture


@dataclass(frozen=True)
class PipelinedConfig(SupernetConfig):
    """Settings of the pipelined search. ``energy_weight`` is the papers' η."""

    method: ClassVar[str] = "pipelined"

    weight_epochs: int = 50
    """Epochs of the weights under uniformly drawn options."""
    choice_epochs: int = 3
    """Epochs of α and β after them."""
    relaxation: Literal["softmax", "sigmoid", "gumbel"] = "gumbel"
    """Of the second stage."""
    temperature: tuple[float, float] = (1.0, 0.03)
    """First and last temperature of the gumbel relaxation, falling linearly."""
    derivation: Literal["likeliest", "spread"] = "likeliest"
    """Architectures to propose: those of the highest products of probabilities, or the first of them and then those that
    are the strongest with the cost taxed or subsidised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.weight_epochs, self.choice_epochs) < 1:
            raise InputError("pipelined needs at least one epoch of the weights and one of the choices")


class Pipelined(SupernetSearch):
    """See the module's docstring. Works on every space that is differentiable."""

    Config = PipelinedConfig
    config: PipelinedConfig
    presets: ClassVar[dict[str, PipelinedConfig]] = {
        "published": PipelinedConfig(energy_weight=0.1),
        # Ours: few epochs, a higher learning rate for α and β, and proposals for a front.
        "quick": PipelinedConfig(weight_epochs=6, choice_lr=0.05, weight_lr=(0.03, 0.005), derivation="spread"),
        "fast": PipelinedConfig(
            weight_epochs=4, choice_epochs=2, choice_lr=0.05, weight_lr=(0.1, 0.01), proposals=4, derivation="spread"
        ),
        "bench": PipelinedConfig(
            weight_epochs=6,
            choice_epochs=2,
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            price=8.0,
            trained=20,
            derivation="spread",
        ),
    }

    def __init__(self, problem: Problem, config: PipelinedConfig) -> None:
        super().__init__(problem, config)
        self.uniform = Uniform(self.choices, problem.generator)

    @property
    def samples(self) -> bool:
        return True  # in the first stage

    @property
    def learns_weights(self) -> bool:
        """Whether this is the first stage."""
        return self.epoch < self.config.weight_epochs

    def search_step(self) -> StepReport:
        """One epoch of the weights, or of the choices."""
        train, held_out = self.begin_epoch(self.config.weight_epochs)
        self.net.train(self.learns_weights)
        if self.learns_weights:
            for batch in self.problem.train_batches():
                self.bilevel.weight_step(batch)
            self.look(next(self.endless_validation()), held_out)
            return self.over(train, held_out)
        self.relaxation.progress = (self.epoch - self.config.weight_epochs) / max(1, self.config.choice_epochs - 1)
        for batch in self.problem.validation_batches():
            self.bilevel.choice_step(batch, batch)
        self.relaxation.forget()
        return self.over(held_out, held_out)

    def loss(self, batch: Batch, tally: Tally | None) -> Tensor:
        relaxed = (self.uniform if self.learns_weights else self.relaxation)(self.logits)
        return self.loss_under(relaxed.weights, relaxed.sampled, batch, tally)

    @property
    def search_steps(self) -> int:
        return self.config.weight_epochs + self.config.choice_epochs

    def derived(self) -> list[Architecture]:
        if self.config.derivation == "spread":
            return super().derived()
        return self.derivation.likeliest(self.scores(), self.config.proposals)
