"""From the scores of a search by gradient to architectures: the strongest options, and a spread over the cost.

A price p takes p · (relative cost) off the score of every option, the most expensive of its row counting 1. So prices are in
the unit of the scores: nats, where these are log-probabilities.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spaces.space import Architecture, Choice, DifferentiableSpace, Keep

PRICES = 40  # of either sign
LOWEST_PRICE = 0.01  # of the highest
LIKELIEST = 2000  # selections to look at for the likeliest architectures: many differ where it makes no difference


class Derivation:
    """``relative`` is what every option costs, as ``ExpectedCost.relative``; ``cost_of`` the cost of an architecture.

    ``keep`` says which inputs of nodes stay; see ``DifferentiableSpace.derive``. It sees scores after prices and noise.
    """

    def __init__(
        self,
        space: DifferentiableSpace,
        choices: Mapping[str, Choice],
        relative: Mapping[str, Tensor],
        cost_of: Callable[[Architecture], float],
        keep: Keep | None = None,
    ) -> None:
        self.space, self.choices, self.relative, self.cost_of = space, choices, relative, cost_of
        self.derive = space.derive if keep is None else partial(space.derive, keep=keep)

    def strongest(self, scores: Mapping[str, Tensor], price: float = 0.0) -> Architecture:
        """What the space derives. A negative price subsidises larger operations, never multipliers of more power."""
        taxed = {}
        for name, rows in scores.items():
            tax = max(price, 0.0) if self.choices[name].multipliers else price
            taxed[name] = (rows - tax * self.relative[name]).cpu().numpy()
        return self.derive(taxed, self.choices)

    def drawn(
        self, scores: Mapping[str, Tensor], rng: np.random.Generator, highest: float, noise: float = 1.0
    ) -> Architecture:
        """One of those that the scores, as log-probabilities, and a random price of either sign make likely.

        Gumbel noise added, the strongest option is one drawn by its probability; more ``noise`` flattens probabilities.
        """
        price = rng.choice((-1.0, 1.0)) * highest * LOWEST_PRICE ** rng.random()
        noisy = {
            name: rows + noise * torch.from_numpy(rng.gumbel(size=rows.shape)).to(rows) for name, rows in scores.items()
        }
        return self.strongest(noisy, price)

    def spread(self, scores: Mapping[str, Tensor], count: int, highest: float) -> list[Architecture]:
        """At most ``count`` different ones: the strongest, then those nearest to evenly spaced costs, highest first.

        Prices go up to ``highest``.
        """
        prices = np.geomspace(LOWEST_PRICE * highest, highest, PRICES)
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

    def likeliest(self, scores: Mapping[str, Tensor], count: int) -> list[Architecture]:
        """At most ``count`` different ones: those of the highest sums of scores over all rows, in their order."""
        derived: dict[str, Architecture] = {}
        plain = {name: rows.cpu().numpy() for name, rows in scores.items()}
        rows = [
            (name, row) for name, choice in self.choices.items() if not choice.shares for row in range(choice.count)
        ]
        orders = [np.argsort(-plain[name][row, self.choices[name].hidden :], kind="stable") for name, row in rows]
        sums = [plain[name][row, self.choices[name].hidden :][order] for (name, row), order in zip(rows, orders)]
        for _, ranks in zip(range(LIKELIEST), best_selections(sums)):
            taken = {name: table.copy() for name, table in plain.items()}
            for at, rank in ranks.items():  # what is better is taken away
                name, row = rows[at]
                taken[name][row, self.choices[name].hidden + orders[at][:rank]] = -np.inf
            architecture = self.derive(taken, self.choices)
            derived.setdefault(architecture.key, architecture)
            if len(derived) == count:
                break
        return list(derived.values())


def best_selections(rows: list[np.ndarray]) -> Iterator[dict[int, int]]:
    """One value of each row, which falls: selections as {row: rank} of what is not the first, by falling sums of values.

    Rows are looked at by what their second value loses. From a selection whose last changed row is j one goes on by the
    next value of row j, or the second of row j + 1, or by that in the place of row j's second: so each comes once.
    """
    losses = [row[0] - row for row in rows]
    order = sorted((at for at in range(len(rows)) if len(rows[at]) > 1), key=lambda at: losses[at][1])
    yield {}
    heap: list[tuple[float, int, int, dict[int, int]]] = []  # loss, number, j, selection
    number = 0

    def push(j: int, ranks: dict[int, int]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(heap, (float(sum(losses[at][rank] for at, rank in ranks.items())), number, j, ranks))

    if order:
        push(0, {order[0]: 1})
    while heap:
        _, _, j, ranks = heapq.heappop(heap)
        yield ranks
        at = order[j]
        if ranks[at] + 1 < len(rows[at]):
            push(j, {**ranks, at: ranks[at] + 1})
        if j + 1 < len(order):
            push(j + 1, {**ranks, order[j + 1]: 1})
            if ranks[at] == 1:
                push(j + 1, {**{k: rank for k, rank in ranks.items() if k != at}, order[j + 1]: 1})
