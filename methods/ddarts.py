"""D-DARTS: every cell of the supernet decides for itself, and answers for what it contributes.

Heuillet, Tabia, Arioui, Youcef-Toumi (arXiv 2108.09306). No two cells share α, and operations have gates of their own (sigmoid,
after FairDARTS). The loss of cell c, of which α^c follows the gradient, is

    L_c = L_val + w_01 · L_01(α^c) + w_AB · L_AB^c,      L_01(α) = −mean (σ(α) − ½)²

    MC_c = L_val with random gates in cell c − L_val,      L_AB^c = −(MC_c − mean MC) / mean MC

L_val is common, and what is added knows α^c alone, so that one gradient of the sum of everything is every cell's own; and Adam
works number by number, so that one for all is one for each. L_AB as it stands has no gradient: in the released code it is a
constant. ``ablation`` says what is done: "constant" computes it and changes nothing, as that code does; "credit" weighs the
gates of the cell by it, w_AB · L_AB^c · mean log σ(α^c), which opens those of cells that contribute more than the mean.

A node need not keep two edges: ``parsing`` "sparse" keeps those of the two whose best gate reaches a threshold, and "edge" all
of which it does. There an edge of the released code can have two operations, and a node no edge at all, which is then left out;
here an edge has its best operation, and a node without an open gate the best edge, so that no network is cut.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.bilevel import Batch, Tally
from methods.method import Problem, StepReport
from methods.relaxations import zero_one_loss
from methods.supernet import SupernetSearch
from methods.supernet_settings import SupernetConfig
from spaces.errors import InputError
from spaces.registry import cell_by_cell
from spaces.space import Choice, Keep


@dataclass(frozen=True)
class DDartsConfig(SupernetConfig):
    """Settings of D-DARTS; the defaults are those of its released code where it has them."""

    method: ClassVar[str] = "ddarts"

    epochs: int = 50
    """Epochs of search."""
    ablation: Literal["none", "constant", "credit"] = "credit"
    """What becomes of a cell's contribution: nothing, a constant in the loss, or a weight of the cell's gates."""
    zero_one_weight: float = 9.0
    """w_01, of the loss that drives gates to 0 or 1."""
    ablation_weight: float = 0.7
    """w_AB, of the ablation loss."""
    parsing: Literal["darts", "sparse", "edge"] = "darts"
    """Edges that a node keeps: the two best; of these, or of all, those whose best gate reaches the threshold."""
    threshold: float = 0.85
    """Of the gates, where an edge is kept by it. Prices on the cost lower and raise gates, and so the number of edges."""
    relaxation: Literal["softmax", "sigmoid", "gumbel"] = "sigmoid"
    """sigmoid is what makes it D-DARTS."""
    weight_lr: tuple[float, float] = (0.005, 0.001)
    """First and last learning rate of the weights (SGD, cosine)."""
    choice_lr: float = 3e-3
    """Learning rate of α and β (Adam)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or min(self.zero_one_weight, self.ablation_weight) < 0:
            raise InputError("ddarts needs at least one epoch, and weights of its losses that are not negative")
        if not 0 < self.threshold < 1:
            raise InputError(
                f"ddarts keeps edges whose gates reach a threshold between 0 and 1, not {self.threshold:g}"
            )


class DDarts(SupernetSearch):
    """See the module's docstring. Works on differentiable spaces whose cells need not be alike."""

    Config = DDartsConfig
    config: DDartsConfig
    presets: ClassVar[dict[str, DDartsConfig]] = {
        "published": DDartsConfig(ablation="constant", parsing="sparse", energy_weight=0.0, proposals=1),
        # Ours: few epochs want higher learning rates, and gates that are not closed before they are tried.
        "quick": DDartsConfig(epochs=5, choice_lr=0.05, weight_lr=(0.03, 0.005), zero_one_weight=1.0),
        "fast": DDartsConfig(
            epochs=3, choice_lr=0.05, weight_lr=(0.1, 0.01), zero_one_weight=1.0, partial=4, proposals=4
        ),
    }

    def __init__(self, problem: Problem, config: DDartsConfig) -> None:
        super().__init__(problem, config)
        self.losses = torch.zeros(problem.shape.cells, device=problem.device)  # L_AB of every cell

    def offered(self) -> dict[str, Choice]:
        if not self.space.cell_by_cell:
            known = " or ".join(cell_by_cell())
            raise InputError(f"ddarts lets cells differ, which those of '{self.space.name}' cannot; search {known}")
        return {name: choice.untied() if choice.picks else choice for name, choice in super().offered().items()}

    def keep(self) -> Keep | None:
        return None if self.config.parsing == "darts" else self.parsed

    def parsed(self, best: np.ndarray) -> np.ndarray:
        """The inputs that a node keeps, best first, of the logarithms (inputs,) of the best gate on each."""
        order = np.argsort(-best, kind="stable")
        considered = order[:2] if self.config.parsing == "sparse" else order
        open_ = considered[best[considered] >= math.log(self.config.threshold)]
        return open_ if len(open_) else order[:1]

    # -- learning ----------------------------------------------------------------------------------------------------

    def search_step(self) -> StepReport:
        """One epoch: for every batch the cells' contributions, a step of all α and β, then one of the weights."""
        self.net.train()
        train, held_out = self.begin_epoch(self.config.epochs)
        self.relaxation.progress = self.epoch / max(1, self.config.epochs - 1)
        validation = self.endless_validation()
        for batch in self.problem.train_batches():
            judging = next(validation)
            if self.config.ablation != "none":
                self.losses.copy_(self.ablation_losses(judging))
            self.bilevel.choice_step(batch, judging)
            self.bilevel.weight_step(batch)
        self.relaxation.forget()
        return self.over(train, held_out)

    def loss(self, batch: Batch, tally: Tally | None) -> Tensor:
        relaxed = self.relaxation(self.logits)
        return self.loss_under(relaxed.weights, relaxed.sampled, batch, tally)

    def cost_term(self) -> Tensor:
        """λ E[cost] / E[exact int8 cost] and what every cell's own loss adds."""
        return super().cost_term() + sum(self.own_loss(cell) for cell in range(len(self.losses)))

    def own_loss(self, cell: int) -> Tensor:
        """w_01 L_01 + w_AB L_AB of a cell, a function of its α alone."""
        own = self.own_logits(cell)
        contribution = self.losses[cell] * (F.logsigmoid(own).mean() if self.config.ablation == "credit" else 1.0)
        return self.config.zero_one_weight * zero_one_loss([own]) + self.config.ablation_weight * contribution

    def own_logits(self, cell: int) -> Tensor:
        """α of a cell, one number after the other, without what is hidden."""
        found = [self.logits[name][rows][:, self.choices[name].hidden :] for name, rows in self.rows_of(cell).items()]
        return torch.cat([rows.flatten() for rows in found])

    def rows_of(self, cell: int) -> dict[str, list[int]]:
        """The rows that the cell at this position decides by, of every choice."""
        return {
            name: [row for rows in choice.rows.values() for row in rows[cell].flatten().tolist()]
            for name, choice in self.choices.items()
            if choice.picks
        }

    @torch.no_grad()
    def ablation_losses(self, batch: Batch) -> Tensor:
        """L_AB of every cell on a batch: by a pass for each, in which its gates are random, and one without."""
        relaxed = self.relaxation(self.logits)
        whole = self.loss_under(relaxed.weights, relaxed.sampled, batch, None)
        without = []
        for cell in range(len(self.losses)):
            weights = dict(relaxed.weights)
            for name, rows in self.rows_of(cell).items():
                shape = (len(rows), weights[name].shape[1])
                gates = torch.rand(shape, generator=self.problem.generator, device=self.problem.device)
                weights[name] = weights[name].clone()
                weights[name][rows] = gates
            without.append(self.loss_under(weights, relaxed.sampled, batch, None))
        contributions = torch.stack(without) - whole
        mean = contributions.mean()
        return torch.where(mean == 0, torch.zeros_like(contributions), -(contributions - mean) / mean)

    @property
    def search_steps(self) -> int:
        return self.config.epochs
