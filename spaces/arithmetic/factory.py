"""One place that decides in which arithmetic a layer computes."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.multipliers.multiplier import Multiplier


class LayerFactory(Protocol):
    """Makes the layers that multiply. ``kind`` is the row's kind in the cost table ("conv", "separable", "linear")."""

    def conv(self, inputs: int, outputs: int, kernel: int, *, kind: str = "conv", **arguments: Any) -> nn.Conv2d: ...

    def linear(self, inputs: int, outputs: int) -> nn.Module: ...


@dataclass(frozen=True)
class FixedLayers:
    """Layers of one multiplier in one of the ``ARITHMETICS``, by name.

    ``multiplier`` None means: fp32 in every arithmetic, since no multiplier governs them. The layers remember their
    multiplier and kind for the cost table, whatever arithmetic they compute in.
    """

    arithmetic: str
    multiplier: Multiplier | None

    def conv(self, inputs: int, outputs: int, kernel: int, *, kind: str = "conv", **arguments: Any) -> nn.Conv2d:
        if self.multiplier is None:
            layer = nn.Conv2d(inputs, outputs, kernel, **arguments)
        else:
            layer = ARITHMETICS[self.arithmetic].conv(self.multiplier, inputs, outputs, kernel, **arguments)
        layer.cost_kind, layer.cost_multiplier = kind, self.multiplier
        return layer

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        if self.multiplier is None:
            layer = nn.Linear(inputs, outputs)
        else:
            layer = ARITHMETICS[self.arithmetic].linear(self.multiplier, inputs, outputs)
        layer.cost_kind, layer.cost_multiplier = "linear", self.multiplier
        return layer


@dataclass(frozen=True)
class MixtureLayers:
    """Layers that mix the circuits of a library with the probabilities of ``choice``."""

    choice: MultiplierChoice

    def conv(self, inputs: int, outputs: int, kernel: int, *, kind: str = "conv", **arguments: Any) -> nn.Conv2d:  # noqa: ARG002
        return MultiplierMixture(inputs, outputs, kernel, choice=self.choice, **arguments)

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        return _PixelLinear(inputs, outputs, 1, choice=self.choice)


class _PixelLinear(MultiplierMixture):
    """A linear layer as a 1×1 convolution of a single pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in) → (N, out)."""
        return super().forward(x[:, :, None, None]).flatten(1)


class Sum(nn.Module):
    """The sum of feature maps: a module of its own, so that the cost table sees the additions."""

    def forward(self, *maps: Tensor) -> Tensor:
        total = maps[0]
        for other in maps[1:]:
            total = total + other
        return total
