"""PC-DARTS: a part of the channels goes through the operations, and the inputs of a node are weighed against each other.

Xu, Xie, Zhang, Chen, Qi, Tian and Xiong, ICLR 2020 (arXiv 1907.05737). An edge that operates on 1/K of its channels takes 1/K
of the memory and time. As what it then learns about operations is noisier, each node also has logits γ over its inputs (edge
normalisation), by which edges are summed and, with the best operation's, chosen:

    node j = Σ_i  softmax_i(γ_·j) · mixed_ij(x_i)          kept: the two edges of the largest  γ_ij · max_o α^o_ij

α, β and γ rest for the first epochs, in which the weights learn. The rest is ApproxDARTS of first order.
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.approxdarts import ApproxDarts, ApproxDartsConfig
from spaces.errors import InputError
from spaces.registry import sharing
from spaces.space import Choice


@dataclass(frozen=True)
class PcDartsConfig(ApproxDartsConfig):
    """Settings of PC-DARTS; see ApproxDARTS for those that are not its own."""

    method: ClassVar[str] = "pcdarts"

    partial: int = 4
    """K: 1/K of the channels goes through the operations."""
    warmup: int = 15
    """First epochs in which only the weights learn."""
    weight_lr: tuple[float, float] = (0.1, 0.0)
    """First and last learning rate of the weights (SGD, cosine)."""
    choice_lr: float = 6e-4
    """Learning rate of α, β and γ (Adam)."""


class PcDarts(ApproxDarts):
    """See the module's docstring. Works on every differentiable space whose inputs of nodes can be weighed."""

    Config = PcDartsConfig
    presets: ClassVar[dict[str, ApproxDartsConfig]] = {
        "published": PcDartsConfig(energy_weight=0.0, proposals=1),
        # Ours: as great a part of few epochs for the weights alone, and a higher learning rate for α, β and γ.
        "quick": PcDartsConfig(epochs=7, warmup=2, choice_lr=0.05, weight_lr=(0.1, 0.005)),
        "fast": PcDartsConfig(epochs=4, warmup=1, choice_lr=0.05, weight_lr=(0.1, 0.01), proposals=4),
    }

    def offered(self) -> dict[str, Choice]:
        shares = self.space.shares(self.problem.shape)
        if not shares:
            known = " or ".join(sharing())
            raise InputError(
                f"pcdarts weighs the inputs of nodes, which '{self.space.name}' has none of; search {known}"
            )
        return {**super().offered(), **shares}
