"""Which options of a trained supernet stay, decided by what its loss becomes when one of them is taken away.

Wang, Cheng, Chen, Tang and Hsieh, Rethinking Architecture Selection in Differentiable NAS, ICLR 2021 (arXiv 2108.04392),
algorithm 1: the size of α says how fast a supernet converged with an option, not how much it needs it. One row of a choice
after the other, in random order, keeps the option without which the loss is highest; in between the weights may be trained
on. In the end each row is weighed by the loss without it, from which a space tells which edges stay. Ours: the loss on some
batches instead of the accuracy on all, which is smoother; multipliers are left to their probabilities.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.relaxations import Weights
from spaces.space import Choice


class Perturbation:
    """``decide`` until ``finished``. The ``rng`` draws the order of the rows, once."""

    def __init__(self, choices: Mapping[str, Choice], rng: np.random.Generator) -> None:
        self.choices = choices
        rows = [(name, row) for name, choice in choices.items() if choice.picks for row in range(choice.count)]
        self.order = [rows[index] for index in rng.permutation(len(rows))]
        # The loss without each option, and without the one that is kept; 0 where it is not known yet
        shapes = {name: (choice.count, len(choice.options)) for name, choice in choices.items() if choice.picks}
        self.losses = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        self.needed = {name: torch.zeros(shape[:1], dtype=torch.float64) for name, shape in shapes.items()}
        self.done = 0

    @property
    def steps(self) -> int:
        """One for every row, and one for what they are needed for."""
        return len(self.order) + 1

    @property
    def finished(self) -> bool:
        return self.done >= self.steps

    def decide(self, weights: Weights, loss: Callable[[Weights], float]) -> None:
        """The next row; after the last one, how much each is needed. ``loss`` is the supernet's under given weights."""
        weights = self.applied(weights)
        if self.done < len(self.order):
            name, row = self.order[self.done]
            for option in range(self.choices[name].hidden, len(self.choices[name].options)):
                self.losses[name][row, option] = loss(_without(weights, name, row, option))
        else:
            for name, row in self.order:
                self.needed[name][row] = loss(_without(weights, name, row, self._kept(name, row)))
        self.done += 1

    def applied(self, weights: Weights) -> dict[str, Tensor]:
        """``weights`` with 1 for the option that a decided row keeps and 0 for its others; differentiable."""
        changed = dict(weights)
        for name, row in self.order[: self.done]:
            changed[name] = changed[name].clone()
            changed[name][row] = 0.0
            changed[name][row, self._kept(name, row)] = 1.0
        return changed

    def scores(self, undecided: Weights) -> dict[str, Tensor]:
        """For ``Space.derive``, float64: in a decided row nats of loss, in the others the scores that are given.

        A row's best score is what its removal costs, as soon as that is known.
        """
        scores = dict(undecided)
        for name, row in self.order[: self.done]:
            values, hidden = scores[name].clone(), self.choices[name].hidden
            best, losses = values[row].max(), self.losses[name][row, hidden:].to(values.device)
            best = self.needed[name][row].to(values.device) if self.finished else best
            values[row, hidden:] = best + losses - losses.max()
            scores[name] = values
        return scores

    def _kept(self, name: str, row: int) -> int:
        hidden = self.choices[name].hidden
        return hidden + int(self.losses[name][row, hidden:].argmax())

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "done": self.done, "losses": self.losses, "needed": self.needed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = [(name, row) for name, row in state["order"]]
        self.done, self.losses, self.needed = state["done"], state["losses"], state["needed"]


def _without(weights: Weights, name: str, row: int, option: int) -> dict[str, Tensor]:
    changed = weights[name].clone()
    changed[row, option] = 0.0
    return {**weights, name: changed}
