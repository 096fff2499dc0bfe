"""The bilevel step of DARTS (Liu, Simonyan, Yang, ICLR 2019, section 2.3), whatever is searched.

    min_α  L_val(w*(α), α) + penalty(α)    such that    w*(α) = argmin_w L_train(w, α)         (equations 3 and 4)

Both levels take one step per batch. Of first order, the weights are taken as they are; of second order, the choices look
one step of the weights ahead. On a GPU, steps that decide nothing on the host are replayed as graphs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spaces.graphed_step import GraphedStep, Recorder
from spaces.optimisers import load_optimiser

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)
SHIFT = 0.01  # ε ‖v‖ of the central difference (DARTS)


class Tally:
    """Sums of loss and errors on the device, and of how many images, read at the end."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)

    def begin(self) -> None:
        """Start from zero, in the same memory."""
        self._sums.zero_()

    def add(self, loss: Tensor, errors: Tensor) -> None:
        """The mean loss of a batch, and the error of each of its answers (N,)."""
        self._sums += torch.stack([loss * len(errors), errors.sum(), torch.full_like(loss, len(errors))])

    @property
    def loss(self) -> float:
        loss, _, images = self._sums.tolist()
        return loss / images

    @property
    def error(self) -> float:
        _, errors, images = self._sums.tolist()
        return errors / images


class Bilevel:
    """Alternating steps of the choices α and the weights w.

    ``loss(batch, tally)`` runs the supernet and adds to the tally, if there is one; ``penalty()`` is a function of the
    choices alone. ``clip`` is the largest norm of the weights' gradient. ``held()`` keeps what the loss samples as it is.
    With a ``recorder``, steps become graphs; ``buffers`` are what a pass of the supernet changes. Within ``smooth()`` the
    loss is one whose gradient a small shift of the weights changes little; see ``second_order_gradient``.
    """

    def __init__(
        self,
        loss: Callable[[Batch, Tally | None], Tensor],
        penalty: Callable[[], Tensor],
        weight_optimiser: torch.optim.SGD,
        choice_optimiser: torch.optim.Optimizer,
        clip: float,
        order: Literal[1, 2] = 1,
        held: Callable[[], AbstractContextManager[Any]] = nullcontext,
        recorder: Recorder | None = None,
        buffers: Sequence[Tensor] = (),
        smooth: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.loss, self.penalty, self.clip, self.order, self.held = loss, penalty, clip, order, held
        self.smooth = smooth
        self.weight_optimiser, self.choice_optimiser = weight_optimiser, choice_optimiser
        self.weights, self.choices = _tensors(weight_optimiser), _tensors(choice_optimiser)
        device = self.weights[0].device
        self.train, self.held_out = Tally(device), Tally(device)  # of the batches of training and of validation
        self._choose = GraphedStep(self._choice_step, [*self.choices, *self.weights, *buffers], recorder)
        self._learn = GraphedStep(self._weight_step, [*self.weights, *buffers], recorder)

    def begin_epoch(self) -> tuple[Tally, Tally]:
        """The tallies of training and validation, at zero."""
        self.train.begin()
        self.held_out.begin()
        return self.train, self.held_out

    def choice_step(self, train: Batch, validation: Batch) -> None:
        """α ← α − ∇_α (L_val + penalty)."""
        self._choose(*validation, *(train if self.order == 2 else ()))

    def weight_step(self, batch: Batch) -> None:
        """w ← w − ∇_w L_train."""
        self._learn(*batch)

    def load(self, weight_optimiser: dict[str, Any], choice_optimiser: dict[str, Any]) -> None:
        """The optimisers' states; graphs, which know the old ones by their addresses, are recorded anew."""
        load_optimiser(self.weight_optimiser, weight_optimiser)
        load_optimiser(self.choice_optimiser, choice_optimiser)
        self.forget()

    def forget(self) -> None:
        """Record graphs anew: the loss has become another function of its tensors, or has other tensors."""
        self._choose.forget()
        self._learn.forget()

    def _choice_step(self, *tensors: Tensor) -> None:
        validation, train = (tensors[0], tensors[1]), tensors[2:]
        if self.order == 2:
            gradients = second_order_gradient(
                lambda batch: self.loss(batch, None),
                self.weights,
                self.choices,
                (train[0], train[1]),
                validation,
                self._virtual_step,
                self.weight_optimiser.param_groups[0]["lr"],
                self.held,
                self.smooth,
            )
            with torch.no_grad():
                self.loss(validation, self.held_out)
        else:
            with only(self.choices, self.weights):
                gradients = _gradients(self.loss(validation, self.held_out), self.choices)
        penalties = _gradients(self.penalty(), self.choices)
        for choice, gradient, extra in zip(self.choices, gradients, penalties):
            choice.grad = gradient + extra
        self.choice_optimiser.step()

    def _weight_step(self, images: Tensor, labels: Tensor) -> None:
        self.weight_optimiser.zero_grad()
        with only(self.weights, self.choices):
            self.loss((images, labels), self.train).backward()
        nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.weight_optimiser.step()

    def _virtual_step(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Where SGD with momentum and weight decay would move the weights: w' − w."""
        moves, settings = [], self.weight_optimiser.param_groups[0]
        for weight, gradient in zip(self.weights, gradients):
            momentum = self.weight_optimiser.state[weight].get("momentum_buffer")
            direction = gradient + settings["weight_decay"] * weight
            if momentum is not None:
                direction = direction + settings["momentum"] * momentum
            moves.append(-settings["lr"] * direction)
        return moves


def second_order_gradient(
    loss: Callable[[Batch], Tensor],
    weights: list[Tensor],
    choices: list[Tensor],
    train: Batch,
    validation: Batch,
    virtual_step: Callable[[Sequence[Tensor]], list[Tensor]],
    lr: float | Tensor,
    held: Callable[[], AbstractContextManager[Any]] = nullcontext,
    smooth: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Tensor]:
    """∇_α L_val(w', α) with w' = w + ``virtual_step``(∇_w L_train(w, α)), by equations 7 and 8.

    The mixed second derivative is a central difference over w ± ε v with v = ∇_w' L_val and ε = 0.01 / ‖v‖, divided by
    2 ε. The weights are restored exactly. With momentum in the virtual step, ∂w'/∂α is still −lr ∇²_{α,w} L_train.

    Those two passes run within ``smooth()``. On weights of 8 bits a shift that is far below a code changes a few codes or
    none, and what is divided by 2 ε is noise: it grows as 1 / ε. So there quantised layers have to compute in fp32.
    """
    with held():
        kept = [weight.detach().clone() for weight in weights]
        with only(weights, choices):
            moves = virtual_step(torch.autograd.grad(loss(train), weights, allow_unused=True, materialize_grads=True))
        _assign(weights, [w + m.detach() for w, m in zip(kept, moves)])
        both = torch.autograd.grad(loss(validation), [*choices, *weights], allow_unused=True, materialize_grads=True)
        direct, v = both[: len(choices)], both[len(choices) :]
        epsilon = SHIFT / torch.sqrt(sum(part.square().sum() for part in v)).clamp_min(1e-12)
        ends = []
        for sign in (1, -1):
            _assign(weights, [w + sign * epsilon * part for w, part in zip(kept, v)])
            with only(choices, weights), smooth():
                ends.append(torch.autograd.grad(loss(train), choices, allow_unused=True, materialize_grads=True))
        _assign(weights, kept)
    return [d - lr * (plus - minus) / (2 * epsilon) for d, plus, minus in zip(direct, *ends)]


def _gradients(of: Tensor, choices: list[Tensor]) -> list[Tensor]:
    """Zero for what it does not depend on: multipliers of a pass whose sampled operations multiply nothing."""
    return list(torch.autograd.grad(of, choices, allow_unused=True, materialize_grads=True))


@torch.no_grad()
def _assign(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values):
        weight.copy_(value)


@contextmanager
def only(learning: list[Tensor], still: list[Tensor]) -> Iterator[None]:
    """Gradients for ``learning`` alone: what is not asked for is not computed."""
    for tensors, flag in ((learning, True), (still, False)):
        for tensor in tensors:
            tensor.requires_grad_(flag)
    try:
        yield
    finally:
        for tensor in still:
            tensor.requires_grad_(True)


def _tensors(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [tensor for group in optimiser.param_groups for tensor in group["params"]]
