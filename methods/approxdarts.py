"""ApproxDARTS: differentiable search of cells whose convolutions run on approximate multipliers.

Pinos, Sekanina, Mrazek, IJCNN 2024 (arXiv 2404.08002), on DARTS (Liu, Simonyan, Yang, ICLR 2019). With one circuit in
the library this is the published setting; with several, each site's circuit is searched with the operations, through
probabilities β over the library. The supernet's weights learn on the training part, α and β on the validation part.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.method import Problem, StepReport
from spaces.cells.architecture import OPERATION_NAMES
from spaces.cells.expected import ExpectedEnergy
from spaces.cells.space import CellSpace
from spaces.cells.supernet import CellSupernet
from spaces.errors import InputError
from spaces.multipliers.multiplier import error_metrics
from spaces.space import Architecture


@dataclass(frozen=True)
class ApproxDartsConfig:
    """Settings of ApproxDARTS; the defaults are the published ones of DARTS where it has them."""

    epochs: int = 50
    """Epochs of search."""
    warmup: int = 0
    """First epochs in which only the weights learn."""
    order: Literal[1, 2] = 1
    """Order of the bilevel gradient: 1 takes the weights as they are, 2 looks one step ahead."""
    relaxation: Literal["softmax", "gumbel"] = "softmax"
    """softmax mixes all operations of an edge; gumbel samples one per step (GDAS, Dong & Yang, CVPR 2019)."""
    temperature: tuple[float, float] = (10.0, 0.1)
    """First and last temperature of the gumbel relaxation, falling linearly."""
    energy_weight: float = 0.2
    """λ: the loss of α and β is cross-entropy + λ · E[energy] / E[exact int8 energy]."""
    partial: int = 1
    """1/K of the channels goes through the operations (PC-DARTS); 1 is all of them."""
    multiplier_prior: float = 2.0
    """β starts at −prior · (mean relative error of the circuit), so that useless ones are not tried at length."""
    proposals: int = 6
    """Architectures to derive from one search, spread along the energy axis."""
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
        if min(self.weight_decay, self.choice_decay) < 0 or self.clip <= 0 or self.partial < 1:
            raise InputError("approxdarts needs weight decays ≥ 0, a positive clip and partial ≥ 1")
        if min(self.energy_weight, self.multiplier_prior) < 0:
            raise InputError("approxdarts needs an energy weight and a circuit prior that are not negative")


class ApproxDarts:
    """See the module's docstring. Works on the cell space."""

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
        if not isinstance(problem.space, CellSpace):
            raise InputError(f"approxdarts searches the space 'cells', not '{problem.space.name}'")
        if problem.evaluation_limit is not None:
            raise InputError("approxdarts trains no candidates of its own; give its budget in device time or steps")
        self.problem, self.config = problem, config
        space, device = problem.space, problem.device
        self.samples_ahead = device.type != "cpu"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.init_seed())
            self.net = CellSupernet(space, problem.shape, config.partial)
            # The noise of DARTS breaks ties.
            alpha = 1e-3 * torch.randn(2, len(space.edges), len(OPERATION_NAMES))
            prior = torch.tensor([-config.multiplier_prior * error_metrics(m).mre_pct / 100 for m in space.library])
            beta = prior + 1e-3 * torch.randn(space.sites.count, len(space.library))
        self.net.to(device=device, memory_format=torch.channels_last)
        self.alpha = nn.Parameter(alpha.to(device))
        self.beta = nn.Parameter(beta.to(device))
        self.weights = list(self.net.parameters())
        self.beta.requires_grad_(len(space.library) > 1)  # a single circuit leaves nothing to choose
        self.choices = [choice for choice in (self.alpha, self.beta) if choice.requires_grad]
        # Not fused: torch's fused SGD fails where weights get their first gradients at different steps, as sampled ones do.
        self.weight_optimiser = torch.optim.SGD(
            self.weights, config.weight_lr[0], config.weight_momentum, weight_decay=config.weight_decay, foreach=True
        )
        self.choice_optimiser = torch.optim.Adam(
            self.choices, config.choice_lr, config.choice_betas, weight_decay=config.choice_decay
        )
        self.energy = ExpectedEnergy(space, problem.shape, problem.cost_model, device)
        self.exact_energy = self.energy.exact_uniform()
        self.epoch = 0

    # -- one epoch of the bilevel optimisation -----------------------------------------------------------------------

    def step(self) -> StepReport:
        """One epoch: for every batch a step of α and β on validation, then a step of the weights on training."""
        lr = self._cosine(*self.config.weight_lr)
        for group in self.weight_optimiser.param_groups:
            group["lr"] = lr
        self.net.train()
        train, held_out = _Tally(self.problem.device), _Tally(self.problem.device)
        validation = self._endless_validation()
        for batch in self.problem.train_batches():
            if self.epoch >= self.config.warmup:
                self._choice_step(batch, next(validation), lr, held_out)
            self._weight_step(batch, train)
        if held_out.images == 0:  # a warm-up epoch: look at one batch all the same
            with torch.no_grad():
                self._loss(next(validation), held_out)
        self.epoch += 1
        self._ahead = None  # a checkpoint need not hold it
        if not math.isfinite(train.loss):
            weights, choices = self.config.weight_lr[0], self.config.choice_lr
            raise InputError(
                "the supernet diverged (its loss is not finite): lower --approxdarts.weight-lr or --approxdarts.choice-lr, "
                f"whichever is high (now {weights:g} and {choices:g})"
            )
        return self._report(train, held_out)

    def _choice_step(
        self, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], lr: float, tally: "_Tally"
    ) -> None:
        if self.config.order == 2:
            gradients = second_order_gradient(
                self._loss,
                self.weights,
                self.choices,
                train,
                validation,
                lambda gradients: self._virtual_step(gradients, lr),
                lr,
                self._frozen_sampling,
            )
            with torch.no_grad():
                self._loss(validation, tally)
        else:
            with _only(self.choices, self.weights):
                gradients = torch.autograd.grad(self._loss(validation, tally), self.choices)
        energy = torch.autograd.grad(self._energy_term(), self.choices)
        for choice, gradient, extra in zip(self.choices, gradients, energy):
            choice.grad = gradient + extra
        self.choice_optimiser.step()

    def _weight_step(self, batch: tuple[Tensor, Tensor], tally: "_Tally") -> None:
        self.weight_optimiser.zero_grad()
        with _only(self.weights, self.choices):
            self._loss(batch, tally).backward()
        nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        self.weight_optimiser.step()

    def _loss(self, batch: tuple[Tensor, Tensor], tally: "_Tally | None" = None) -> Tensor:
        images, labels = batch
        self.net.choose(*self._relaxed())
        logits = self.net(images)
        loss = self.problem.loss(logits, labels)
        if tally is not None:
            tally.add(loss.detach(), self.problem.errors(logits.detach(), labels))
        return loss

    # -- the relaxation ----------------------------------------------------------------------------------------------

    def _relaxed(self) -> tuple[Tensor, Tensor, np.ndarray | None]:
        """Weights of the operations, probabilities of the circuits, and the sampled operations, if any.

        The gumbel relaxation samples operations only: the mixture of circuits costs one convolution, and its gradient
        for every β is exact.
        """
        multipliers = self.beta.softmax(dim=-1)
        if self.config.relaxation == "softmax":
            return self.alpha.softmax(dim=-1), multipliers, None
        sample = self._held_sample or self._next_sample()
        soft = self._soft(sample.noise)
        hard = torch.zeros_like(soft).scatter_(-1, sample.picked, 1.0)
        weights = F.pad(hard + soft - soft.detach(), (1, 0))
        return weights, multipliers, 1 + sample.on_host().squeeze(-1).numpy()

    def _soft(self, noise: Tensor) -> Tensor:
        """Operations but "none", which is never sampled, as it would cut the network: (2, E, chosen operations)."""
        done = self.epoch / max(1, self.config.epochs - 1)
        first, last = self.config.temperature
        temperature = first + (last - first) * min(1.0, done)
        return ((self.alpha[..., 1:].log_softmax(dim=-1) + noise) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def _draw_sample(self) -> "_Sample":
        shape = (*self.alpha.shape[:-1], self.alpha.shape[-1] - 1)
        uniform = torch.rand(shape, generator=self.problem.generator, device=self.alpha.device)
        noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        return _Sample(noise, self._soft(noise).argmax(dim=-1, keepdim=True))

    def _next_sample(self) -> "_Sample":
        """A sample by α as it is; on a GPU by α as it was before the last pass.

        Which operations to launch is decided on the host. Drawn a pass ahead, a sample is there when it is needed, and the
        host need not wait for the pass that the GPU is busy with. The first one of an epoch is waited for.
        """
        if not self.samples_ahead:
            return self._draw_sample()
        sample = self._ahead or self._draw_sample()
        self._ahead = self._draw_sample()
        return sample

    _held_sample: "_Sample | None" = None
    _ahead: "_Sample | None" = None

    @contextmanager
    def _frozen_sampling(self) -> Iterator[None]:
        """One sample of operations for all passes of a second-order step, which must see the same function."""
        if self.config.relaxation == "gumbel":
            self._held_sample = self._next_sample()
        try:
            yield
        finally:
            self._held_sample = None

    def _energy_term(self) -> Tensor:
        energy = self.energy(self.alpha.softmax(dim=-1), self.beta.softmax(dim=-1))
        return self.config.energy_weight * energy / self.exact_energy

    def _virtual_step(self, gradients: Sequence[Tensor], lr: float) -> list[Tensor]:
        """Where SGD with momentum and weight decay would move the weights: w' − w."""
        moves = []
        for weight, gradient in zip(self.weights, gradients):
            momentum = self.weight_optimiser.state[weight].get("momentum_buffer")
            direction = gradient + self.config.weight_decay * weight
            if momentum is not None:
                direction = direction + self.config.weight_momentum * momentum
            moves.append(-lr * direction)
        return moves

    # -- derivation --------------------------------------------------------------------------------------------------

    def proposals(self) -> list[Architecture]:
        """Derived by the strongest log-probabilities, and again with energy taxed or subsidised.

        The first is the published derivation. A price p takes p · (relative energy) off the log-probability of every
        choice, in nats for the dearest. Prices go from −1 to 1; a negative one subsidises larger operations, never
        hungrier circuits. Of all architectures that these yield, those nearest to evenly spaced energies follow.
        """
        prices = np.geomspace(0.01, 1.0, 40)
        derived: dict[str, Architecture] = {}
        for price in [0.0, *prices, *-prices]:
            architecture = self._derive(price)
            derived.setdefault(architecture.key, architecture)
        first, *rest = derived.values()
        return [first, *self._spread(first, rest)]

    def _derive(self, price: float) -> Architecture:
        operations = self.alpha.detach().log_softmax(dim=-1).double()
        multipliers = self.beta.detach().log_softmax(dim=-1).double()
        return self.problem.space.derive(
            (operations - price * F.pad(self.energy.relative_costs(), (1, 0))).cpu().numpy(),
            (multipliers - max(price, 0.0) * self.energy.ratios).cpu().numpy(),
        )

    def _spread(self, first: Architecture, rest: list[Architecture]) -> list[Architecture]:
        energy = {a.key: self.problem.cost_of(a) for a in [first, *rest]}
        picked: list[Architecture] = []
        for target in np.linspace(max(energy.values()), min(energy.values()), self.config.proposals - 1):
            left = [a for a in rest if a not in picked]
            if left:
                picked.append(min(left, key=lambda a: abs(energy[a.key] - target)))
        return picked

    # -- reports and state -------------------------------------------------------------------------------------------

    def _report(self, train: "_Tally", held_out: "_Tally") -> StepReport:
        derived = self._derive(0.0)
        skips = [
            [edge.operation for node in cell.nodes for edge in node].count("skip_connect") for cell in derived.cells
        ]
        with torch.no_grad():
            expected = float(self.energy(self.alpha.softmax(dim=-1), self.beta.softmax(dim=-1)))
        return StepReport(
            step=self.epoch,
            total=self.config.epochs,
            validation_error=held_out.error,
            cost=self.problem.cost_of(derived),
            diagnostics={
                "train_loss": train.loss,
                "train_error": train.error,
                "alpha_entropy": _relative_entropy(self.alpha),
                "beta_entropy": _relative_entropy(self.beta),
                "skips_normal": skips[0],
                "skips_reduction": skips[1],
                "expected_cost": expected,
                **self._mean_choices(),
            },
        )

    def _mean_choices(self) -> dict[str, float]:
        """The mean probability of every operation over the edges of a cell, and of every circuit over its sites."""
        normal, reduction = self.alpha.detach().softmax(dim=-1).mean(dim=1)
        multipliers = self.beta.detach().softmax(dim=-1).mean(dim=0)
        names = [multiplier.name for multiplier in self.problem.space.library]
        groups = (("alpha/normal", OPERATION_NAMES, normal), ("alpha/reduction", OPERATION_NAMES, reduction))
        return {
            f"{group}/{name}": share
            for group, labels, shares in (*groups, ("beta", names, multipliers))
            for name, share in zip(labels, shares.tolist())
        }

    def _endless_validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.problem.validation_batches()

    def _cosine(self, first: float, last: float) -> float:
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * self.epoch / self.config.epochs))

    @property
    def finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "alpha": self.alpha.detach(),
            "beta": self.beta.detach(),
            "weight_optimiser": self.weight_optimiser.state_dict(),
            "choice_optimiser": self.choice_optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.net.load_state_dict(state["net"])
        with torch.no_grad():
            self.alpha.copy_(state["alpha"])
            self.beta.copy_(state["beta"])
        self.weight_optimiser.load_state_dict(state["weight_optimiser"])
        self.choice_optimiser.load_state_dict(state["choice_optimiser"])


class _Sample:
    """A sampled operation for every edge: the Gumbel noise (2, E, chosen operations) and the picked ones (2, E, 1)."""

    def __init__(self, noise: Tensor, picked: Tensor) -> None:
        self.noise, self.picked, self._copied = noise, picked, None
        self._seen = picked
        if picked.device.type == "cuda":
            self._seen = torch.empty(picked.shape, dtype=picked.dtype, pin_memory=True)
            self._seen.copy_(picked, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(picked.device))

    def on_host(self) -> Tensor:
        """What was picked. Waits for the copy, not for what was launched after it."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._seen


class _Tally:
    """Sums of loss and errors on the device, read once."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, device=device)
        self.images = 0

    def add(self, loss: Tensor, errors: Tensor) -> None:
        self._sums += torch.stack([loss * len(errors), errors.sum()])
        self.images += len(errors)

    @property
    def loss(self) -> float:
        return float(self._sums[0]) / self.images

    @property
    def error(self) -> float:
        return float(self._sums[1]) / self.images


def second_order_gradient(
    loss: Callable[[tuple[Tensor, Tensor]], Tensor],
    weights: list[Tensor],
    choices: list[Tensor],
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    virtual_step: Callable[[Sequence[Tensor]], list[Tensor]],
    lr: float,
    same_sample: Callable[..., Any],
) -> list[Tensor]:
    """∇_α L_val(w', α) with w' = w + ``virtual_step``(∇_w L_train(w, α)), by DARTS, section 2.3 and equation 8.

    The mixed second derivative is a central difference over w ± ε v with v = ∇_w' L_val and ε = 0.01 / ‖v‖, divided by
    2 ε. The weights are restored exactly. With momentum in the virtual step, ∂w'/∂α is still −lr ∇²_{α,w} L_train.
    """
    with same_sample():
        kept = [weight.detach().clone() for weight in weights]
        with _only(weights, choices):
            moves = virtual_step(torch.autograd.grad(loss(train), weights, allow_unused=True, materialize_grads=True))
        _assign(weights, [w + m.detach() for w, m in zip(kept, moves)])
        both = torch.autograd.grad(loss(validation), [*choices, *weights], allow_unused=True, materialize_grads=True)
        direct, v = both[: len(choices)], both[len(choices) :]
        epsilon = 0.01 / torch.sqrt(sum(part.square().sum() for part in v)).clamp_min(1e-12)
        ends = []
        for sign in (1, -1):
            _assign(weights, [w + sign * epsilon * part for w, part in zip(kept, v)])
            with _only(choices, weights):
                ends.append(torch.autograd.grad(loss(train), choices, allow_unused=True, materialize_grads=True))
        _assign(weights, kept)
    return [d - lr * (plus - minus) / (2 * epsilon) for d, plus, minus in zip(direct, *ends)]


@torch.no_grad()
def _assign(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values):
        weight.copy_(value)


@contextmanager
def _only(learning: list[Tensor], still: list[Tensor]) -> Iterator[None]:
    """Gradients for ``learning`` alone: what is not asked for is not computed."""
    for tensors, flag in ((learning, True), (still, False)):
        for tensor in tensors:
            tensor.requires_grad_(flag)
    try:
        yield
    finally:
        for tensor in still:
            tensor.requires_grad_(True)


def _relative_entropy(logits: Tensor) -> float:
    """Mean entropy of the softmax over the last axis, as a share of the largest possible; 1 is undecided."""
    if logits.shape[-1] == 1:
        return 0.0
    log = logits.detach().log_softmax(dim=-1)
    return float(-(log.exp() * log).sum(dim=-1).mean()) / math.log(logits.shape[-1])
