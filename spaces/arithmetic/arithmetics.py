"""Arithmetics by name: how the layers that a multiplier governs compute, and how cost models count them.

A new arithmetic is one class in one file and one line in ``ARITHMETICS``, or an entry point in the group
``approxnas.arithmetics`` of another package. torch is imported when layers are made, so that names can be listed without it.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.plugins import Registry

if TYPE_CHECKING:
    from torch import nn


class Arithmetic(ABC):
    """How governed layers compute. Layers that no multiplier governs compute in fp32 in every arithmetic.

    A layer has the parameters of the ``nn.Conv2d`` or ``nn.Linear`` that it replaces, so that the same architecture
    starts from the same weights in every arithmetic.
    """

    integer: ClassVar[bool] = True  # products and sums of integers, as cost models count them; else of fp32 numbers
    bits: ClassVar[int] = 8  # of a weight or an activation that is moved

    @abstractmethod
    def conv(self, multiplier: Multiplier, *arguments: Any, **named: Any) -> "nn.Conv2d":
        """A convolution that ``multiplier`` governs, with the arguments of ``nn.Conv2d``."""

    @abstractmethod
    def linear(self, multiplier: Multiplier, inputs: int, outputs: int) -> "nn.Linear":
        """A linear layer that ``multiplier`` governs."""

    def product_ratio(self, multiplier: Multiplier) -> float:  # noqa: ARG002
        """The cost of a product, divided by that of an exact int8 one (of an fp32 one where not ``integer``)."""
        return 1.0

    def converted(self, network: "nn.Module") -> "nn.Module":
        """What is tested and deployed, from the trained network: itself, unless it is quantised after training."""
        return network


class Fp32(Arithmetic):
    """Floating point of 32 bits, whatever governs a layer."""

    integer, bits = False, 32

    def conv(self, multiplier: Multiplier, *arguments: Any, **named: Any) -> "nn.Conv2d":  # noqa: ARG002
        from torch import nn

        return nn.Conv2d(*arguments, **named)

    def linear(self, multiplier: Multiplier, inputs: int, outputs: int) -> "nn.Linear":  # noqa: ARG002
        from torch import nn

        return nn.Linear(inputs, outputs)


class Approximate(Arithmetic):
    """8-bit codes, whose products come from the multiplier that governs the layer."""

    def conv(self, multiplier: Multiplier, *arguments: Any, **named: Any) -> "nn.Conv2d":
        from spaces.arithmetic.layers import ApproxConv2d

        return ApproxConv2d(*arguments, multiplier=multiplier, **named)

    def linear(self, multiplier: Multiplier, inputs: int, outputs: int) -> "nn.Linear":
        from spaces.arithmetic.layers import ApproxLinear

        return ApproxLinear(inputs, outputs, multiplier=multiplier)

    def product_ratio(self, multiplier: Multiplier) -> float:
        return catalogue.power_ratio(multiplier)


class Int8(Approximate):
    """8-bit codes and exact products, in codes of the signedness that the governing multiplier asks for."""

    def conv(self, multiplier: Multiplier, *arguments: Any, **named: Any) -> "nn.Conv2d":
        return super().conv(catalogue.exact(multiplier.signed), *arguments, **named)

    def linear(self, multiplier: Multiplier, inputs: int, outputs: int) -> "nn.Linear":
        return super().linear(catalogue.exact(multiplier.signed), inputs, outputs)

    def product_ratio(self, multiplier: Multiplier) -> float:  # noqa: ARG002
        return 1.0


FP32, INT8, APPROXIMATE = Fp32(), Int8(), Approximate()

ARITHMETICS: Registry[Arithmetic] = Registry(
    "arithmetic",
    "approxnas.arithmetics",
    {
        "fp32": "spaces.arithmetic.arithmetics:FP32",
        "int8": "spaces.arithmetic.arithmetics:INT8",
        "approximate": "spaces.arithmetic.arithmetics:APPROXIMATE",
    },
)
