"""Settings that every search over a supernet has."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spaces.errors import InputError


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
    price: float = 1.0
    """The highest price at which they are derived: nats by which the most expensive option of a place is worse than a free
    one."""
    trained: int = 0
    """Networks to draw from α and β at random prices after the search, and to train; the best of them are proposed. Under a
    budget of time or work, as many as it leaves room for. 0 proposes what is derived."""
    judged: int = 4
    """Batches of validation images on which the supernet compares options or networks."""
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
    """Weight decay of α and β: α decays to zero, β to where it begins."""

    def __post_init__(self) -> None:
        name = self.method
        if min(self.proposals, self.judged) < 1 or self.trained < 0 or self.price <= 0:
            raise InputError(f"{name} needs a proposal, a batch to judge by, a positive price, and trained ≥ 0")
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
