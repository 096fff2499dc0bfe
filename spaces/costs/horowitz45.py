"""The energy of all multiplications and additions, by Horowitz's figures of 45 nm."""

from typing import TYPE_CHECKING

from spaces.arithmetic.arithmetics import Arithmetic
from spaces.costs.memory import MEMORY
from spaces.costs.model import Cost
from spaces.costs.operations import OperationEnergies

if TYPE_CHECKING:
    from spaces.costs.trace import LayerCost


class Horowitz45(OperationEnergies):
    """Operations of all layers; memory traffic stands apart."""

    name = "horowitz45"
    source = f"Horowitz, ISSCC 2014, 45 nm: operations; memory, apart: {MEMORY.source}"
    leaves_out = "memory traffic, requantisation, the divisions of average pooling, control"
    fp32_mult, fp32_add, int8_mult, int32_add = 3.7, 0.9, 0.2, 0.1

    def once(self, row: "LayerCost", arithmetic: Arithmetic) -> Cost:
        return Cost(super().once(row, arithmetic).parts, {"memory": MEMORY.once(row, arithmetic).total})


HOROWITZ45 = Horowitz45()
