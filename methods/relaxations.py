"""How the logits of a choice become the weights with which its options count in a supernet.

A choice among multipliers is always mixed by softmax, but for ``Uniform``: the mixture costs one convolution, and its
gradient for every probability is exact. Shares always are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.space import Choice

Logits = Mapping[str, Tensor]  # (rows, options) of every choice
Weights = Mapping[str, Tensor]  # likewise, with which its options count


@dataclass(frozen=True)
class Relaxed:
    """What ``Supernet.choose`` takes."""

    weights: dict[str, Tensor]
    sampled: dict[str, np.ndarray] | None = None


class Softmax:
    """All options at once, by their probabilities (DARTS, equation 2)."""

    samples = False  # whether which operations run is decided anew for every pass, on the host

    def __init__(self, choices: Mapping[str, Choice], generator: torch.Generator) -> None:
        self.choices, self.generator = choices, generator
        self.progress = 0.0  # share of the search that is done, 0..1

    def __call__(self, logits: Logits) -> Relaxed:
        """The weights of one pass; differentiable."""
        return Relaxed(self.probabilities(logits))

    def probabilities(self, logits: Logits) -> dict[str, Tensor]:
        """How much every option counts on average: what an expected cost is computed from; differentiable."""
        return {name: rows.softmax(dim=-1) for name, rows in logits.items()}

    def scores(self, logits: Logits) -> dict[str, Tensor]:
        """Their logarithms, by which architectures are derived; float64."""
        return {name: rows.detach().log_softmax(dim=-1).double() for name, rows in logits.items()}

    @contextmanager
    def held(self, logits: Logits) -> Iterator[None]:  # noqa: ARG002
        """What is sampled stays the same inside: the passes of a second-order step must see one function."""
        yield

    def forget(self) -> None:
        """An epoch is over: what was drawn ahead is not needed, and a checkpoint need not hold it."""


class Sigmoid(Softmax):
    """Every option for itself, so that none grows at the others' expense (FairDARTS, Chu et al., ECCV 2020)."""

    def probabilities(self, logits: Logits) -> dict[str, Tensor]:
        mixed = super().probabilities(logits)
        return mixed | {n: rows.sigmoid() for n, rows in logits.items() if self.choices[n].picks}

    def scores(self, logits: Logits) -> dict[str, Tensor]:
        mixed = super().scores(logits)
        own = {n: F.logsigmoid(r.detach()).double() for n, r in logits.items() if self.choices[n].picks}
        return mixed | own


class Uniform(Softmax):
    """One option of every row, each as likely, whatever the logits (single path one-shot, Guo et al., ECCV 2020)."""

    samples = True

    def __call__(self, logits: Logits) -> Relaxed:
        weights, sampled = {}, {}
        for name, rows in logits.items():
            hidden, options = self.choices[name].hidden, rows.shape[1]
            if self.choices[name].shares:
                weights[name] = torch.full_like(rows, 1 / options)
                continue
            picked = torch.randint(hidden, options, (len(rows),), generator=self.generator, device=rows.device)
            weights[name] = F.one_hot(picked, options).to(rows.dtype)
            if not self.choices[name].multipliers:
                sampled[name] = picked.cpu().numpy()
        return Relaxed(weights, sampled)


class Gumbel(Softmax):
    """One option of every row, drawn by its probability, with a gradient (GDAS, Dong & Yang, CVPR 2019).

    The ``temperature`` falls linearly from its first value to its last. Hidden options are never drawn: "none" would cut
    the network.
    """

    samples = True

    def __init__(
        self,
        choices: Mapping[str, Choice],
        generator: torch.Generator,
        temperature: tuple[float, float] = (10.0, 0.1),
    ) -> None:
        super().__init__(choices, generator)
        self.temperature = temperature
        self.ahead = generator.device.type != "cpu"
        self._held: dict[str, Sample] | None = None
        self._next: dict[str, Sample] | None = None

    def __call__(self, logits: Logits) -> Relaxed:
        weights = {name: rows.softmax(dim=-1) for name, rows in logits.items() if not self.choices[name].picks}
        sampled = {}
        for name, sample in (self._held or self._draw(logits)).items():
            hidden = self.choices[name].hidden
            soft = self._soft(name, logits[name], sample.noise)
            hard = torch.zeros_like(soft).scatter_(-1, sample.picked, 1.0)
            weights[name] = F.pad(hard + soft - soft.detach(), (hidden, 0))
            sampled[name] = hidden + sample.on_host().squeeze(-1).numpy()
        return Relaxed(weights, sampled)

    def _soft(self, name: str, rows: Tensor, noise: Tensor) -> Tensor:
        first, last = self.temperature
        temperature = first + (last - first) * min(1.0, self.progress)
        chosen = rows[:, self.choices[name].hidden :]
        return ((chosen.log_softmax(dim=-1) + noise) / temperature).softmax(dim=-1)

    def _draw(self, logits: Logits) -> "dict[str, Sample]":
        """A sample by the logits as they are; on a GPU by the logits as they were before the last pass.

        Which operations to launch is decided on the host. Drawn a pass ahead, a sample is there when it is needed, and the
        host need not wait for the pass that the GPU is busy with. The first one of an epoch is waited for.
        """
        if not self.ahead:
            return self._sample(logits)
        sample = self._next or self._sample(logits)
        self._next = self._sample(logits)
        return sample

    @torch.no_grad()
    def _sample(self, logits: Logits) -> "dict[str, Sample]":
        drawn = {}
        for name, rows in logits.items():
            if self.choices[name].picks:
                shape = (len(rows), rows.shape[1] - self.choices[name].hidden)
                uniform = torch.rand(shape, generator=self.generator, device=rows.device)
                noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
                drawn[name] = Sample(noise, self._soft(name, rows, noise).argmax(dim=-1, keepdim=True))
        return drawn

    @contextmanager
    def held(self, logits: Logits) -> Iterator[None]:
        self._held = self._draw(logits)
        try:
            yield
        finally:
            self._held = None

    def forget(self) -> None:
        self._next = None


class Sample:
    """An option for every row: the Gumbel noise (rows, options) and the picked ones (rows, 1), hidden ones not counted."""

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


def zero_one_loss(logits: Sequence[Tensor]) -> Tensor:
    """L_01 = −mean (σ(α) − ½)², which is lowest where every gate is open or shut (FairDARTS, Chu et al., ECCV 2020)."""
    return -(torch.cat([rows.flatten() for rows in logits]).sigmoid() - 0.5).square().mean()


RELAXATIONS = {"softmax": Softmax, "sigmoid": Sigmoid, "gumbel": Gumbel, "uniform": Uniform}


def relative_entropy(logits: Tensor) -> float:
    """Mean entropy of the softmax over the last axis, as a share of the largest possible; 1 is undecided."""
    if logits.shape[-1] == 1:
        return 0.0
    log = logits.detach().log_softmax(dim=-1)
    return float(-(log.exp() * log).sum(dim=-1).mean()) / math.log(logits.shape[-1])


def mean_shares(choices: Mapping[str, Choice], logits: Logits) -> dict[str, float]:
    """The mean probability of every option over the rows of a group, as in alpha/normal/skip_connect."""
    means: dict[str, float] = {}
    for name, choice in choices.items():
        shares = logits[name].detach().softmax(dim=-1)
        for group, rows in (choice.groups or {"": slice(None)}).items():
            label = f"{name}/{group}/" if group else f"{name}/"
            means |= zip((label + option for option in choice.options), shares[rows].mean(dim=0).tolist())
    return means
