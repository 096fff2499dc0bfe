"""What an accelerator of 45 nm pays: operations of all layers, and what stands around them."""

import math
from typing import TYPE_CHECKING

from spaces.arithmetic.arithmetics import Arithmetic
from spaces.costs.horowitz45 import HOROWITZ45
from spaces.costs.memory import MEMORY
from spaces.costs.model import Cost
from spaces.costs.operations import OperationEnergies

if TYPE_CHECKING:
    from spaces.costs.trace import LayerCost

INT32_MULT = 3.1  # pJ


class System45(OperationEnergies):
    """``horowitz45``, and requantisation, divisions and memory traffic in the total.

    Every output of a layer whose products are quantised takes a 32-bit multiplication to become a code of the next layer;
    the addition that goes with it is that of the bias or of the folded batch normalisation, which is counted as such. An
    average is divided by a multiplication, too, in the width that the layer computes in.
    """

    name = "system45"
    source = f"{HOROWITZ45.source}; a 32-bit multiplication per requantised output and per average: 3.1 pJ, likewise"
    leaves_out = "control, what a cache saves, off-chip memory, and whatever stands idle"
    fp32_mult, fp32_add = HOROWITZ45.fp32_mult, HOROWITZ45.fp32_add
    int8_mult, int32_add = HOROWITZ45.int8_mult, HOROWITZ45.int32_add

    def once(self, row: "LayerCost", arithmetic: Arithmetic) -> Cost:
        integer = self.quantised(row) and arithmetic.integer
        output = row.geometry.output if integer and row.multiplier is not None else ()
        requantised = math.prod(output) if output else 0
        around = {
            "requantisation": requantised * INT32_MULT,
            "divisions": row.averages * (INT32_MULT if integer else self.fp32_mult),
            "memory": MEMORY.once(row, arithmetic).total,
        }
        return super().once(row, arithmetic) + Cost(around)

    def linear(self, row: "LayerCost") -> tuple[float, float]:
        scaled, _ = super().linear(row)
        return scaled, self.layer(row, "int8").total - scaled


SYSTEM45 = System45()
