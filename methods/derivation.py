"""From the scores of a search by gradient to architectures: the strongest options, and a spread over the cost.

A price p takes p · (relative cost) off the score of every option, the most expensive of its row counting 1. So prices are in
the unit of the scores: nats, where these are log-probabilities.
"""

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from spaces.space import Architecture, Choice, DifferentiableSpace

PRICES = 40  # of either sign
LOWEST_PRICE = 0.01  # of the highest


class Derivation:
    """``relative`` is what every option costs, as ``ExpectedCost.relative``; ``cost_of`` the cost of an architecture."""

    def __init__(
        self,
        space: DifferentiableSpace,
        choices: Mapping[str, Choice],
        relative: Mapping[str, Tensor],
        cost_of: Callable[[Architecture], float],
    ) -> None:
        self.space, self.choices, self.relative, self.cost_of = space, choices, relative, cost_of

    def strongest(self, scores: Mapping[str, Tensor], price: float = 0.0) -> Architecture:
        """The space's own derivation. A negative price subsidises larger operations, never multipliers of more power."""
        taxed = {}
        for name, rows in scores.items():
            tax = max(price, 0.0) if self.choices[name].multipliers else price
            taxed[name] = (rows - tax * self.relative[name]).cpu().numpy()
        return self.space.derive(taxed, self.choices)

    def spread(self, scores: Mapping[str, Tensor], count: int) -> list[Architecture]:
        """At most ``count`` different ones: the strongest, then those nearest to evenly spaced costs, highest first."""
        prices = np.geomspace(LOWEST_PRICE, 1.0, PRICES)
        derived: dict[str, Architecture] = {}
        for price in [0.0, *prices, *-prices]:
            architecture = self.strongest(scores, price)
            derived.setdefault(architecture.key, architecture)
        first, *rest = derived.values()
        cost = {a.key: self.cost_of(a) for a in derived.values()}
        picked = [first]
        for target in np.linspace(max(cost.values()), min(cost.values()), count - 1):
            left = [a for a in rest if a not in picked]
            if left:
                picked.append(min(left, key=lambda a: abs(cost[a.key] - target)))
        return picked
