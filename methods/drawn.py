"""Networks that a supernet's search makes likely, trained one batch after the other: what its last word is tried on."""

import functools
from collections.abc import Callable

from methods.archive import ArchiveSearch
from methods.method import Problem
from spaces.space import Architecture

BATCH = 4  # so that a few workers are kept busy
NOISE = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # probabilities are flattened where they give nothing new


class DrawnNetworks(ArchiveSearch):
    """Trains what ``draw(noise)`` gives, and proposes the front of it."""

    def __init__(self, problem: Problem, samples: int, proposals: int, draw: Callable[[float], Architecture]) -> None:
        super().__init__(problem, samples, proposals, BATCH)
        self._draw_one = draw

    def candidates(self, count: int) -> list[Architecture]:
        for noise in NOISE:
            if found := self.new(functools.partial(self._draw_one, noise), count):
                return found
        return []
