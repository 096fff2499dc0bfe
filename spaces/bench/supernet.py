"""The supernet of the bench space, and the expected cost of a network drawn from it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.factory import FixedLayers, MixtureLayers
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierChoices
from spaces.bench.architecture import SKIP, BenchArchitecture, BenchEdge, places
from spaces.bench.network import BenchNetwork, Convolution, build, build_operation
from spaces.costs.model import CostModel
from spaces.costs.trace import trace
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape
from spaces.space import Choice

ALPHA, BETA, EDGES = "alpha", "beta", "edges"


class MixedEdge(nn.Module):
    """An edge that is undecided: the weighted sum of its operations, or the sampled one alone."""

    def __init__(self, names: Sequence[str], channels: int, layers: MixtureLayers) -> None:
        super().__init__()
        self.operations = nn.ModuleList(build_operation(name, channels, layers, affine=False) for name in names)
        self.weights: Tensor | None = None  # (operations,), set before every pass
        self.sampled: int | None = None  # the only operation to compute, if any

    def forward(self, plain: Tensor, rectified: Tensor) -> Tensor:
        total: Tensor | None = None
        assert self.weights is not None
        for at, operation in enumerate(self.operations):
            if self.sampled in (None, at):
                x = rectified if isinstance(operation, Convolution) else plain
                weighted = operation(x) * self.weights[at]
                total = weighted if total is None else total + weighted
        assert total is not None
        return total


class MixedCell(nn.Module):
    """All edges of a cell, undecided; with ``partial`` K only 1/K of the channels goes through them, the others pass by."""

    def __init__(
        self, nodes: int, names: Sequence[str], channels: int, layers: Sequence[MixtureLayers], partial: int
    ) -> None:
        super().__init__()
        self.nodes, self.places, self.partial = nodes, places(nodes), partial
        self.computed = channels // partial
        self.edges = nn.ModuleList(MixedEdge(names, self.computed, each) for each in layers)

    def forward(self, x: Tensor) -> Tensor:
        states = [(x, F.relu(x))]
        for node in range(1, self.nodes):
            into = (at for at, (_, to) in enumerate(self.places) if to == node)
            total = sum(self._through(self.edges[at], *states[self.places[at][0]]) for at in into)
            states.append((total, F.relu(total)))
        return states[-1][0]

    def _through(self, edge: nn.Module, plain: Tensor, rectified: Tensor) -> Tensor:
        if self.partial == 1:
            return edge(plain, rectified)
        inside = edge(plain[:, : self.computed], rectified[:, : self.computed])
        mixed = torch.cat([inside, plain[:, self.computed :]], dim=1)
        return mixed.unflatten(1, (self.partial, -1)).transpose(1, 2).flatten(1, 2)  # shuffled, as in PC-DARTS


class BenchSupernet(BenchNetwork):
    """The whole space as one network; see ``spaces.space.Supernet``."""

    def __init__(
        self,
        library: Sequence[Multiplier],
        outer: Multiplier,
        nodes: int,
        shape: NetworkShape,
        choices: Mapping[str, Choice],
        partial: int,
    ) -> None:
        if partial < 1 or shape.channels % partial:
            raise InputError(f"partial channels 1/{partial} do not divide {shape.channels} channels")
        mixtures = MultiplierChoices(MultiplierChoice(library) for _ in range(choices[BETA].count))  # one per row of β
        names, position = choices[ALPHA].options, iter(range(shape.cells))

        def body(channels: int) -> MixedCell:
            rows = choices[BETA].rows[EDGES][next(position)]
            return MixedCell(nodes, names, channels, [MixtureLayers(mixtures[row]) for row in rows], partial)

        super().__init__(shape, body, FixedLayers("approximate", outer), affine=False)
        self.mixtures = mixtures
        self.operation_rows = choices[ALPHA].rows[EDGES].tolist()

    def choose(self, probabilities: Mapping[str, Tensor], sampled: Mapping[str, np.ndarray] | None = None) -> None:
        """See ``spaces.space.Supernet``."""
        self.mixtures.set_all(probabilities[BETA], self)
        picked = (sampled or {}).get(ALPHA)
        for cell, rows in zip(self.cells, self.operation_rows):
            for edge, row in zip(cell.edges, rows):
                edge.weights = probabilities[ALPHA][row]
                edge.sampled = None if picked is None else int(picked[row])


class ExpectedBenchCost:
    """E[cost per inference] for probabilities of operations α and multipliers β; see ``spaces.space.ExpectedCost``.

    A network costs what its edges cost and what is around them. The cost is linear in the multipliers' probabilities.
    """

    def __init__(
        self,
        library: Sequence[Multiplier],
        outer: Multiplier,
        nodes: int,
        shape: NetworkShape,
        choices: Mapping[str, Choice],
        model: CostModel,
        device: torch.device,
    ) -> None:
        self.model, self.shape, self.nodes = model, shape, nodes
        self.exact = catalogue.exact(library[0].signed)
        self.ratios = torch.tensor([model.ratio(each) for each in library], dtype=torch.float64, device=device)
        names = choices[ALPHA].options
        skipping = self._costs(SKIP)
        parts = np.array([self._costs(name) for name in names]) - skipping  # (operations, 1 + cells, 2)
        per_cell = torch.tensor(parts[:, 1:].transpose(1, 0, 2), device=device)  # (cells, operations, 2)
        self.scaled, self.fixed = per_cell.unbind(-1)
        around = skipping.sum(axis=0)
        self.around = float(around[0]) * model.ratio(outer) + float(around[1])
        self.exact_around = float(around.sum())
        self.rows = {name: torch.tensor(choices[name].rows[EDGES], device=device) for name in (ALPHA, BETA)}
        cost = torch.zeros(choices[ALPHA].count, len(names), dtype=torch.float64, device=device)
        every = (self.scaled + self.fixed).unsqueeze(1).expand(*self.rows[ALPHA].shape, -1)
        cost = cost.index_add(0, self.rows[ALPHA].flatten(), every.flatten(0, 1))
        relative = cost / cost.amax(dim=-1, keepdim=True)
        self.relative: Mapping[str, Tensor] = {ALPHA: relative, BETA: self.ratios.expand(choices[BETA].count, -1)}

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """A scalar in the model's unit."""
        power = (probabilities[BETA].double() @ self.ratios)[self.rows[BETA]]  # (cells, edges)
        chosen = probabilities[ALPHA].double()[self.rows[ALPHA]]  # (cells, edges, operations)
        costs = self.fixed.unsqueeze(1) + self.scaled.unsqueeze(1) * power.unsqueeze(-1)
        return (chosen * costs).sum() + self.around

    def exact_uniform(self) -> float:
        """With exact multipliers and uniform operations: the yardstick of the cost term (a constant)."""
        edges = self.rows[ALPHA].shape[1]
        return float((self.scaled + self.fixed).mean(dim=-1).sum()) * edges + self.exact_around

    def _costs(self, operation: str) -> np.ndarray:
        """(1 + cells, 2): of everything around the cells, and of each cell whose first edge alone does something.

        Divided, in exact int8, into what a multiplier scales and the rest.
        """
        first = BenchEdge(operation, self.exact.name)
        edges = (first, *[BenchEdge(SKIP)] * (len(places(self.nodes)) - 1))
        layers = FixedLayers("fp32", self.exact)
        with torch.device("meta"):
            network = build(BenchArchitecture(edges, self.exact.name), self.shape, lambda _: layers)
            rows = trace(network, self.shape.input_shape, integer=True)
        costs = np.zeros((1 + self.shape.cells, 2))
        for row in rows:
            parts = row.name.split(".")
            costs[1 + int(parts[1]) if parts[0] == "cells" else 0] += self.model.linear(row)
        return costs
