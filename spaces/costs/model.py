"""What a cost model is: it turns the rows of a network (``spaces.costs.trace``) into one number with a unit and a split."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from spaces.arithmetic.arithmetics import ARITHMETICS, Arithmetic
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier

if TYPE_CHECKING:  # models can be named and described without torch
    from spaces.costs.trace import LayerCost


@dataclass(frozen=True)
class Cost:
    """Amounts in a model's unit by what causes them. What stands ``apart`` is shown, but is not part of the total."""

    parts: Mapping[str, float] = field(default_factory=dict)
    apart: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.parts.values(), start=0.0)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(_summed(self.parts, other.parts), _summed(self.apart, other.apart))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*({name: times * amount for name, amount in part.items()} for part in (self.parts, self.apart)))


def _summed(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


class CostModel(ABC):
    """Costs of one inference, layer by layer. A new model says how it is called and what one layer costs (``once``).

    Where the cost of a layer is linear in the cost of its products, ``linear`` and ``ratio`` say how, and a search can
    follow its gradient: the expected cost of a layer that has multiplier m with probability β_m is
    fixed + scaled · Σ_m β_m ratio(m). Without them, a layer costs the same whatever its multiplier.
    """

    name: ClassVar[str]
    unit: ClassVar[str]  # of the total and of all parts, such as "pJ", "MAC" or "B"
    source: ClassVar[str]  # where its constants come from
    leaves_out: ClassVar[str]  # what else an inference costs
    measured: ClassVar[bool] = False  # needs a measurement on a device: does not follow from the rows alone

    @abstractmethod
    def once(self, row: "LayerCost", arithmetic: Arithmetic) -> Cost:
        """What one execution of the layer costs. Raises InputError where that is not known."""

    def layer(self, row: "LayerCost", arithmetic: str) -> Cost:
        """What a layer costs per inference, on average: once, times its share of executions."""
        return self.once(row, ARITHMETICS[arithmetic]) * row.share

    def network(self, rows: Iterable["LayerCost"], arithmetic: str) -> Cost:
        """What one inference through all rows costs. Raises InputError where that is no amount of anything."""
        cost = sum((self.layer(row, arithmetic) for row in rows), start=Cost())
        if not 0 <= cost.total < math.inf:
            raise InputError(f"the cost model '{self.name}' gives {cost.total} {self.unit} in {arithmetic}; repair it")
        return cost

    def linear(self, row: "LayerCost") -> tuple[float, float]:
        """(scaled, fixed): what a layer costs in exact int8, divided into what a multiplier's ratio scales and the rest."""
        return 0.0, self.layer(row, "int8").total

    def ratio(self, multiplier: Multiplier) -> float:  # noqa: ARG002
        """The cost of the multiplier's product, divided by that of an exact one of the same signedness."""
        return 1.0
