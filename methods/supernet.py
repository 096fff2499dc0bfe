"""What searches over a supernet share: the choices with their logits, the network of all options, its loss and its cost.

A subclass says when which of them learn: that is the method. Derivation, reports and the state are here.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.bilevel import Batch, Bilevel, Tally
from methods.derivation import Derivation
from methods.drawn import DrawnNetworks
from methods.method import Problem, StepReport
from methods.relaxations import RELAXATIONS, Weights, mean_shares, relative_entropy
from methods.supernet_settings import SupernetConfig
from spaces.arithmetic.precision import mixtures_in_fp32
from spaces.errors import InputError
from spaces.graphed_step import recorder_of
from spaces.multipliers.multiplier import error_metrics
from spaces.optimisers import learning_rate, set_learning_rate
from spaces.registry import differentiable
from spaces.space import Architecture, Choice, DifferentiableSpace, Keep


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
            prior = {name: self._prior(choice) for name, choice in self.choices.items()}
            noises = {name: 1e-3 if choice.multipliers else noise for name, choice in self.choices.items()}
            logits = {name: rows + noises[name] * torch.randn(rows.shape) for name, rows in prior.items()}
        self.net.to(device=device, memory_format=torch.channels_last)
        self.prior = {name: rows.to(device) for name, rows in prior.items()}  # where decay pulls the logits
        self.logits = {name: nn.Parameter(rows.to(device)) for name, rows in logits.items()}
        for name, choice in self.choices.items():  # a single option leaves nothing to choose
            self.logits[name].requires_grad_(len(choice.options) > choice.hidden + 1)
        temperature = {"temperature": config.temperature} if config.relaxation == "gumbel" else {}
        self.relaxation = RELAXATIONS[config.relaxation](self.choices, problem.generator, **temperature)
        self.cost = self.space.expected_cost(problem.shape, self.choices, problem.cost_model, device)
        self.exact_cost = self.cost.exact_uniform()
        self.derivation = Derivation(self.space, self.choices, self.cost.relative, problem.cost_of, self.keep())
        self.bilevel = self._bilevel(config)
        self.own = DrawnNetworks(problem, config.trained, config.proposals, self._draw) if config.trained else None

    def offered(self) -> dict[str, Choice]:
        """What is to be decided."""
        return self.space.choices(self.problem.shape)

    def keep(self) -> Keep | None:
        """Which inputs of nodes stay when networks are derived; None for as many as the space's networks have."""
        return None

    def _prior(self, choice: Choice) -> Tensor:
        """The mean of the first logits (rows, options): multipliers are as likely as they are exact."""
        if not choice.multipliers:
            return torch.zeros(choice.count, len(choice.options))
        errors = [error_metrics(multiplier).mre_pct / 100 for multiplier in self.problem.space.library]
        return torch.tensor([-self.config.multiplier_prior * error for error in errors]).repeat(choice.count, 1)

    # -- the course of a search --------------------------------------------------------------------------------------

    def step(self) -> StepReport:
        """An epoch of the supernet's search, and after it the training of networks that it makes likely."""
        if self.searching:
            return self.search_step()
        assert self.own is not None
        report = self.own.step()
        return replace(report, step=self.epoch + report.step, total=self.epoch + report.total)

    @abstractmethod
    def search_step(self) -> StepReport:
        """One epoch of the supernet's search."""

    @property
    @abstractmethod
    def search_steps(self) -> int:
        """Of the supernet's search."""

    @property
    def searching(self) -> bool:
        """Whether the supernet's search is not over yet."""
        return self.epoch < self.search_steps

    @property
    def finished(self) -> bool:
        return not self.searching and (self.own is None or self.own.finished)

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
        choices = torch.optim.Adam(learning, config.choice_lr, config.choice_betas, capturable=graphs)
        held, buffers = lambda: self.relaxation.held(self.logits), list(self.net.buffers())
        levels = (self.loss, self.penalty, weights, choices)
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

    def penalty(self) -> Tensor:
        """What is added to the loss of α and β: the cost, and half of the decay times ‖logits − prior‖².

        The decay of an optimiser pulls logits to zero. Where a batch says little of a multiplier, Adam makes a whole step of
        it all the same, and the prior would be gone after a few dozens of them.
        """
        apart = sum((rows - self.prior[name]).square().sum() for name, rows in self.logits.items())
        return self.cost_term() + 0.5 * self.config.choice_decay * apart

    def cost_term(self) -> Tensor:
        """λ E[cost] / E[exact int8 cost]."""
        expected = self.cost(self.relaxation.probabilities(self.logits))
        return self.config.energy_weight * expected / self.exact_cost

    def endless_validation(self) -> Iterator[Batch]:
        while True:
            yield from self.problem.validation_batches()

    # -- derivation, reports and state -------------------------------------------------------------------------------

    def proposals(self) -> list[Architecture]:
        """The best of what was trained; else the published derivation and others, with the cost taxed or subsidised."""
        return (self.own.proposals() if self.own is not None else []) or self.derived()

    def derived(self) -> list[Architecture]:
        """What the scores make of the supernet alone."""
        return self.derivation.spread(self.scores(), self.config.proposals, self.config.price)

    def _draw(self, noise: float) -> Architecture:
        return self.derivation.drawn(self.scores(), self.problem.rng, self.config.price, noise)

    def signals(self) -> dict[str, dict[str, float]]:
        """What is believed of the proposals: how unlikely α and β make them, and their loss in the supernet."""
        proposals, scores = self.proposals(), self.scores()
        unlikely = {}
        for each in proposals:
            chosen = self.space.chosen(each, self.choices)
            unlikely[each.key] = -sum(float((rows * scores[name].cpu().numpy()).sum()) for name, rows in chosen.items())
        losses = {each.key: tally.loss for each, tally in zip(proposals, self.in_supernet(proposals))}
        return {"alpha": unlikely, "supernet loss": losses}

    @torch.no_grad()
    def in_supernet(self, architectures: Sequence[Architecture]) -> list[Tally]:
        """How each does with the supernet's weights, on the same batches of validation images."""
        was_training, device = self.net.training, self.problem.device
        self.net.train()  # normalised by the batch: the running statistics are those of the mixture
        batches = list(itertools.islice(self.endless_validation(), self.config.judged))
        undecided = self.relaxation.probabilities(self.logits)
        tallies = []
        for architecture in architectures:
            weights, sampled, tally = dict(undecided), {}, Tally(device)
            for name, rows in self.space.chosen(architecture, self.choices).items():
                chosen = torch.from_numpy(rows).to(undecided[name])
                if self.choices[name].picks:
                    weights[name], sampled[name] = chosen, rows[:, self.choices[name].hidden :].argmax(axis=1)
                    sampled[name] += self.choices[name].hidden
                else:  # a multiplier that governs nothing is mixed as before
                    weights[name] = torch.where(chosen.any(dim=1, keepdim=True), chosen, undecided[name])
            for batch in batches:
                self.loss_under(weights, sampled, batch, tally)
            tallies.append(tally)
        self.net.train(was_training)
        return tallies

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
            total=self.search_steps + (self.own.total if self.own is not None else 0),
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

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "logits": {name: rows.detach() for name, rows in self.logits.items()},
            "weight_optimiser": self.bilevel.weight_optimiser.state_dict(),
            "choice_optimiser": self.bilevel.choice_optimiser.state_dict(),
            "own": None if self.own is None else self.own.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.net.load_state_dict(state["net"])
        with torch.no_grad():
            for name, rows in self.logits.items():
                rows.copy_(state["logits"][name])
        self.bilevel.load(state["weight_optimiser"], state["choice_optimiser"])
        if self.own is not None:
            self.own.load_state_dict(state["own"])
