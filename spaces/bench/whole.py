"""All networks of a bench space by number, so that whatever is known of one can be computed for all at once."""

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spaces.bench.architecture import CONVOLUTIONS, SKIP, BenchArchitecture, BenchEdge, Program, Step, places
from spaces.errors import InputError
from spaces.shape import NetworkShape

if TYPE_CHECKING:
    from spaces.bench.space import BenchSpace
    from spaces.costs.model import CostModel
    from spaces.costs.trace import LayerCost


class Genes(NamedTuple):
    """Networks as arrays (networks, edges): operations as numbers of the space's, multipliers of its library's.

    Where nothing is multiplied the multiplier is 0.
    """

    operations: np.ndarray
    multipliers: np.ndarray


class WholeSpace:
    """The networks of a bench space that differ as they are written: those that differ in a multiplier that nothing uses are
    one. Each has a number, from 0 to ``count`` − 1.
    """

    def __init__(self, space: "BenchSpace") -> None:
        self.space = space
        self.edges = places(space.nodes)
        self._names = [multiplier.name for multiplier in space.library]
        self._convolves = np.array([name in CONVOLUTIONS for name in space.operations])
        sites = range(max(space.ties) + 1)
        self._edges_of = [[at for at, tied in enumerate(space.ties) if tied == site] for site in sites]
        self._options = [self._options_of(len(edges)) for edges in self._edges_of]
        self._digits = [{option: digit for digit, option in enumerate(options)} for options in self._options]
        self.sizes = tuple(map(len, self._options))
        self.count = math.prod(self.sizes)

    def _options_of(self, edges: int) -> list[tuple[tuple[int, ...], int]]:
        """What the edges of a site can be: their operations, and the multiplier that they share."""
        return [
            (operations, multiplier)
            for operations in itertools.product(range(len(self.space.operations)), repeat=edges)
            for multiplier in (range(len(self._names)) if self._convolves[list(operations)].any() else (0,))
        ]

    def number(self, architecture: BenchArchitecture) -> int:
        """Raises InputError for a network that is not of this space."""
        try:
            operations = [self.space.operations.index(edge.operation) for edge in architecture.edges]
            named = [self._names.index(edge.multiplier) if edge.multiplier else None for edge in architecture.edges]
            number = 0
            for edges, digits, size in zip(self._edges_of, self._digits, self.sizes):
                (multiplier,) = {used for at in edges if (used := named[at]) is not None} or {0}
                number = number * size + digits[tuple(operations[at] for at in edges), multiplier]
            if len(operations) != len(self.edges) or architecture.outer != self.space.outer.name:
                raise ValueError
        except (ValueError, KeyError, IndexError):
            raise InputError(f"{architecture.key[:8]} is no network of this bench space: {self.space.config}") from None
        return number

    def genes(self, numbers: np.ndarray) -> Genes:
        """Of the networks of these numbers."""
        operations = np.zeros((len(numbers), len(self.edges)), np.int8)
        multipliers = np.zeros_like(operations)
        for digits, edges, options in zip(np.unravel_index(numbers, self.sizes), self._edges_of, self._options):
            chosen = np.array([each for each, _ in options], np.int8)[digits]
            operations[:, edges] = chosen
            shared = np.array([each for _, each in options], np.int8)[digits]
            multipliers[:, edges] = np.where(self._convolves[chosen], shared[:, None], 0)
        return Genes(operations, multipliers)

    def architecture(self, number: int) -> BenchArchitecture:
        """The network of a number."""
        operations, multipliers = (row[0].tolist() for row in self.genes(np.array([number])))
        edges = (
            BenchEdge(self.space.operations[operation], self._names[multiplier])
            for operation, multiplier in zip(operations, multipliers)
        )
        return BenchArchitecture(tuple(edges), self.space.outer.name)

    def costs(self, shape: NetworkShape, model: "CostModel") -> np.ndarray:
        """(count,): the cost of every network, as ``BenchSpace.costs`` and the model have it of each."""
        genes = self.genes(np.arange(self.count))
        parts = PartCosts(self.space, shape, model, most=2 ** max(self.space.nodes - 2, 0))
        ratios = np.array([model.ratio(multiplier) for multiplier in self.space.library])
        scaled, fixed = parts.operations.T
        power = ratios[genes.multipliers]
        total = parts.around + (scaled[genes.operations] * power + fixed[genes.operations]).sum(axis=1)
        for summed in self._sums(genes.operations):
            total += parts.sums[summed]
        return total

    def _sums(self, operations: np.ndarray) -> list[np.ndarray]:
        """Of all sums that a cell may compute: over how many maps it goes, 1 where there is none to compute."""
        skip = self.space.operations.index(SKIP)
        maps = np.zeros((self.space.nodes, len(operations), 1 + len(self.edges)), np.int8)  # that a node is the sum of
        maps[0, :, 0] = 1
        read = np.zeros((self.space.nodes, len(operations)), bool)  # by a step
        for at, (source, node) in enumerate(self.edges):
            skips = operations[:, at] == skip
            maps[node] += maps[source] * skips[:, None]
            maps[node, :, 1 + at] += ~skips
            read[source] |= ~skips
        found = [maps[-1].sum(axis=1)]  # the output's, which is computed apart
        for node in range(1, self.space.nodes - 1):
            again = np.zeros(len(operations), bool)
            for earlier in range(node):
                again |= read[earlier] & (maps[earlier] == maps[node]).all(axis=1)
            found.append(np.where(read[node] & ~again, maps[node].sum(axis=1), 1))
        return found


class PartCosts:
    """What the parts of a network cost under a model, from the trace of one network that has them all.

    ``operations`` (operations, 2): in all cells, divided as ``CostModel.linear`` does; ``sums`` (1 + most,): of so many maps
    in all cells; ``around``: the rest.
    """

    def __init__(self, space: "BenchSpace", shape: NetworkShape, model: "CostModel", most: int) -> None:
        self.space, self.shape, self.model = space, shape, model
        self.operations = np.zeros((len(space.operations), 2))
        self.sums = np.zeros(1 + most)
        self.around = 0.0
        outer = model.ratio(space.outer)
        steps = [Step(name, space.outer.name, (0,)) for name in space.operations if name != SKIP]
        counts = range(2, most + 1)
        steps += [Step(steps[0].operation, space.outer.name, (0,) * count) for count in counts]
        names = [step.operation for step in steps[: -len(counts) or None]]
        for row in self._rows(Program(tuple(steps), (0,))):
            parts = row.name.split(".")
            linear = np.array(model.linear(row))
            if parts[0] != "cells":
                self.around += float(linear[0]) * outer + float(linear[1])
            elif parts[2] == "sums":
                self.sums[len(steps[int(parts[3])].reads)] += linear.sum()
            elif int(parts[3]) < len(names):
                self.operations[space.operations.index(names[int(parts[3])])] += linear

    def _rows(self, program: Program) -> "list[LayerCost]":
        import torch

        from spaces.arithmetic.factory import FixedLayers
        from spaces.bench.network import BenchNetwork, FixedCell
        from spaces.costs.trace import trace

        layers = FixedLayers("fp32", self.space.outer)
        with torch.device("meta"):
            network = BenchNetwork(
                self.shape, lambda channels: FixedCell(program, channels, lambda _: layers, True), layers
            )
            return trace(network, self.shape.input_shape, integer=True)
