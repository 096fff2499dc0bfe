"""Cost models that price every multiplication and addition: their constants are a subclass's."""

from typing import TYPE_CHECKING, ClassVar

from spaces.arithmetic.arithmetics import Arithmetic
from spaces.costs.model import Cost, CostModel
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier

if TYPE_CHECKING:
    from spaces.costs.trace import LayerCost


class OperationEnergies(CostModel):
    """Picojoules per operation; products of a multiplier cost in proportion to its power."""

    unit = "pJ"
    fp32_mult: ClassVar[float]
    fp32_add: ClassVar[float]
    int8_mult: ClassVar[float]
    int32_add: ClassVar[float]

    def quantised(self, row: "LayerCost") -> bool:
        """Whether this model counts the layer as computed on integers once the network is quantised."""
        return row.integer

    def once(self, row: "LayerCost", arithmetic: Arithmetic) -> Cost:
        ratio = 1.0
        if self.quantised(row) and row.multiplier is not None:
            ratio = arithmetic.product_ratio(row.multiplier)
        integer = self.quantised(row) and arithmetic.integer
        mult, add = (self.int8_mult, self.int32_add) if integer else (self.fp32_mult, self.fp32_add)
        return Cost({"multiplications": row.macs * mult * ratio, "additions": row.adds * add})

    def linear(self, row: "LayerCost") -> tuple[float, float]:
        cost = self.layer(row, "int8")
        if row.multiplier is None or not self.quantised(row):
            return 0.0, cost.total
        return cost.parts["multiplications"], cost.parts["additions"]

    def ratio(self, multiplier: Multiplier) -> float:
        return catalogue.power_ratio(multiplier)
