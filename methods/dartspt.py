"""DARTS-PT: a supernet is trained as by DARTS, but what stays is what its loss needs, not what α says.

Wang, Cheng, Chen, Tang and Hsieh, Rethinking Architecture Selection in Differentiable NAS, ICLR 2021 (arXiv 2108.04392). It is
ApproxDARTS with selection by ``methods.perturbation``, and the settings of DARTS.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from methods.approxdarts import ApproxDarts, ApproxDartsConfig


@dataclass(frozen=True)
class DartsPtConfig(ApproxDartsConfig):
    """Settings of DARTS-PT; see ApproxDARTS for those that are not its own."""

    method: ClassVar[str] = "dartspt"

    selection: Literal["probability", "perturbation"] = "perturbation"
    """perturbation is what makes it DARTS-PT."""


class DartsPt(ApproxDarts):
    """See the module's docstring."""

    Config = DartsPtConfig
    presets: ClassVar[dict[str, ApproxDartsConfig]] = {
        "published": DartsPtConfig(energy_weight=0.0, proposals=1),
        # Ours: one operation per edge and step, few epochs, and none between two decisions.
        "quick": DartsPtConfig(
            epochs=5, relaxation="gumbel", temperature=(3.0, 0.5), choice_lr=0.05, weight_lr=(0.03, 0.005), tuning=0
        ),
        "fast": DartsPtConfig(
            epochs=3,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            tuning=0,
            partial=4,
            proposals=4,
        ),
        "bench": DartsPtConfig(
            epochs=6,
            warmup=2,
            relaxation="gumbel",
            temperature=(3.0, 0.5),
            choice_lr=0.05,
            weight_lr=(0.1, 0.01),
            tuning=0,
            price=8.0,
            trained=20,
        ),
    }
