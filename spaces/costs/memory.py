"""The energy of moving weights and activations, and of nothing else."""

from typing import TYPE_CHECKING

from spaces.arithmetic.arithmetics import Arithmetic
from spaces.costs.model import Cost, CostModel

if TYPE_CHECKING:
    from spaces.costs.trace import LayerCost

PJ_PER_BYTE = 20 / 8


class MemoryTraffic(CostModel):
    """Each weight and each input and output activation of a layer is moved once, in the width that the layer computes in."""

    name, unit = "memory", "pJ"
    source = (
        "20 pJ per 64-bit access of a 32 KB SRAM (Horowitz, ISSCC 2014), each weight and each input and output activation "
        "of a layer moved once"
    )
    leaves_out = "all operations, what a cache saves, and off-chip memory"

    def once(self, row: "LayerCost", arithmetic: Arithmetic) -> Cost:
        size = arithmetic.bits / 8 if row.integer else 4  # bytes
        return Cost({"weights": row.params * size * PJ_PER_BYTE, "activations": row.activations * size * PJ_PER_BYTE})


MEMORY = MemoryTraffic()
