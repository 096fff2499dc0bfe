"""GDAS: one operation of every edge is sampled in each step, and the gradient still reaches α.

Dong and Yang, CVPR 2019 (arXiv 1910.04465). It is ApproxDARTS with the straight-through Gumbel softmax (``relaxations.Gumbel``)
and the paper's settings. What the paper does not have is the cost in the loss, and multipliers.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from methods.approxdarts import ApproxDarts, ApproxDartsConfig


@dataclass(frozen=True)
class GdasConfig(ApproxDartsConfig):
    """Settings of GDAS; see ApproxDARTS for those that are not its own."""

    method: ClassVar[str] = "gdas"

    epochs: int = 250
    """Epochs of search."""
    relaxation: Literal["softmax", "sigmoid", "gumbel"] = "gumbel"
    """gumbel is what makes it GDAS."""


class Gdas(ApproxDarts):
    """See the module's docstring."""

    Config = GdasConfig
    presets: ClassVar[dict[str, ApproxDartsConfig]] = {
        "published": GdasConfig(energy_weight=0.0, proposals=1),
        # Ours: few epochs want a higher learning rate for α and β.
        "quick": GdasConfig(epochs=7, warmup=1, choice_lr=0.05, weight_lr=(0.03, 0.005)),
        "fast": GdasConfig(epochs=4, warmup=1, choice_lr=0.05, weight_lr=(0.1, 0.01), partial=4, proposals=4),
        "bench": GdasConfig(epochs=6, warmup=2, choice_lr=0.05, weight_lr=(0.1, 0.01), price=8.0, trained=20),
    }
