"""The energy of multiplications alone, as ApproxDARTS counts it."""

from typing import TYPE_CHECKING

from spaces.costs.operations import OperationEnergies

if TYPE_CHECKING:
    from spaces.costs.trace import LayerCost


class ApproxDartsEnergy(OperationEnergies):
    """Only the depthwise and pointwise convolutions of sep_conv and dil_conv are 8-bit, whatever else is quantised."""

    name = "approxdarts"
    source = (
        "Pinos, Sekanina, Mrazek, IJCNN 2024 (arXiv 2404.08002): multiplications only, 8-bit in the depthwise and "
        "pointwise convolutions of sep_conv and dil_conv"
    )
    leaves_out = "additions, memory traffic, and that other layers may be quantised"
    fp32_mult, fp32_add, int8_mult, int32_add = 3.7, 0.0, 0.391, 0.0

    def quantised(self, row: "LayerCost") -> bool:
        return row.integer and row.kind == "separable"


APPROXDARTS = ApproxDartsEnergy()
