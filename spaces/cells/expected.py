"""The expected cost of a network drawn from the supernet's probabilities, as a differentiable function of them."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import CHOSEN_OPERATIONS, Cell, CellArchitecture, Edge, is_separable, stride_of
from spaces.cells.building import costs
from spaces.cells.choices import ALPHA, BETA, EDGES, OUTSIDE, PROJECTIONS
from spaces.cells.operations import build_operation
from spaces.cells.sites import CellSites, reduction_positions
from spaces.costs.model import CostModel
from spaces.costs.trace import trace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape
from spaces.space import Choice


class ExpectedCellCost:
    """E[cost per inference] for probabilities of operations α and multipliers β; see ``spaces.space.ExpectedCost``.

    A derived network keeps two of a node's edges and never the operation "none", so an edge into a node with n sources
    counts with probability 2/n, and operations in proportion among the others. It stays the expectation of two edges where a
    derivation keeps more or fewer. The cost is linear in the multipliers' probabilities: a governed multiplication costs
    Σ_m β_m P_m / P_exact of an exact one.
    """

    def __init__(
        self,
        space: CellSites,
        shape: NetworkShape,
        choices: Mapping[str, Choice],
        model: CostModel,
        device: torch.device,
    ) -> None:
        self.space, self.model, self.rows = space, model, {name: choice.rows for name, choice in choices.items()}
        # What decides alike costs alike: rows of α and of β, and the node, of every kind of edge.
        keys = [(*self._rows_at(position, edge), edge) for position in range(shape.cells) for edge in self._edges]
        self.cases = {case: number for number, case in enumerate(dict.fromkeys(map(self._case, keys)))}
        # Exact int8 multiplications that a multiplier scales, and everything else, by case and operation
        self.scaled = torch.zeros(len(self.cases), len(CHOSEN_OPERATIONS), dtype=torch.float64)
        self.fixed = torch.zeros_like(self.scaled)
        self.outer_scaled = torch.zeros(choices[BETA].count, dtype=torch.float64)
        self.outer_fixed = 0.0
        self._add_edges(shape)
        self._add_outer(shape)
        alpha, beta, nodes = (torch.tensor(column, device=device) for column in zip(*self.cases))
        self.alpha, self.beta, self.kept = alpha, beta, 2 / (nodes.double() + 2)
        self.ratios = torch.tensor([model.ratio(m) for m in space.library], dtype=torch.float64).to(device)
        self.scaled, self.fixed = self.scaled.to(device), self.fixed.to(device)
        self.outer_scaled = self.outer_scaled.to(device)
        cost = torch.zeros(choices[ALPHA].count, len(CHOSEN_OPERATIONS), dtype=torch.float64, device=device)
        cost = cost.index_add(0, alpha, self.fixed + self.scaled)
        relative = F.pad(cost / cost.amax(dim=-1, keepdim=True), (1, 0))  # "none" costs nothing
        known = {ALPHA: relative, BETA: self.ratios.expand(choices[BETA].count, -1)}
        free = {  # shares of inputs, which cost the same whatever they are
            name: torch.zeros(choice.count, len(choice.options), device=device)
            for name, choice in choices.items()
            if choice.shares
        }
        self.relative: Mapping[str, Tensor] = {**known, **free}

    @property
    def _edges(self) -> range:
        return range(len(self.space.edge_places))

    def _rows_at(self, position: int, edge: int) -> tuple[int, int]:
        return int(self.rows[ALPHA][EDGES][position, edge]), int(self.rows[BETA][EDGES][position, edge])

    def _case(self, key: tuple[int, int, int]) -> tuple[int, int, int]:
        alpha, beta, edge = key
        return alpha, beta, self.space.edge_places[edge][0]

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """A scalar in the model's unit."""
        power = probabilities[BETA].double() @ self.ratios
        chosen = probabilities[ALPHA][..., 1:].double()
        chosen = (chosen / chosen.sum(dim=-1, keepdim=True))[self.alpha]
        edge = (chosen * (self.fixed + self.scaled * power[self.beta].unsqueeze(-1))).sum(dim=-1)
        return (edge * self.kept).sum() + (self.outer_scaled * power).sum() + self.outer_fixed

    def exact_uniform(self) -> float:
        """With exact multipliers and uniform operations: the yardstick of the cost term (a constant)."""
        edge = (self.fixed + self.scaled).mean(dim=-1)
        return float((edge * self.kept).sum() + self.outer_scaled.sum() + self.outer_fixed)

    def _add_edges(self, shape: NetworkShape) -> None:
        everything = self.space.scope == "all"
        exact = catalogue.exact(self.space.library[0].signed)
        known: dict[tuple[object, ...], tuple[float, float]] = {}
        channels, size = shape.channels, shape.input_shape[1:]
        for position in range(shape.cells):
            reduction = position in reduction_positions(shape.cells)
            channels *= 1 + reduction
            for index, (node, source) in enumerate(self.space.edge_places):
                stride = stride_of(source, reduction)
                inner = tuple((side + 1) // 2 for side in size) if reduction and stride == 1 else size
                case = self.cases[(*self._rows_at(position, index), node)]
                for at, name in enumerate(CHOSEN_OPERATIONS):
                    key = (name, channels, stride, inner)
                    if key not in known:
                        layers = FixedLayers("fp32", exact if everything or is_separable(name) else None)
                        known[key] = self._operation_cost(name, channels, stride, inner, layers)
                    self.scaled[case, at] += known[key][0]
                    self.fixed[case, at] += known[key][1]
            if reduction:
                size = tuple((side + 1) // 2 for side in size)

    def _operation_cost(
        self, name: str, channels: int, stride: int, size: tuple[int, ...], layers: FixedLayers
    ) -> tuple[float, float]:
        with torch.device("meta"):
            # A parameter of its own, so that an operation without weights can be traced as well.
            module = torch.nn.Sequential(build_operation(name, channels, stride, layers))
            module.register_parameter("anchor", torch.nn.Parameter(torch.empty(0)))
            rows = trace(module, (channels, *size), integer=self.space.scope == "all")
        parts = [self.model.linear(row) for row in rows]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def _add_outer(self, shape: NetworkShape) -> None:
        """Stem, projections, sums and classifier, traced from a network whose edges are skipped."""
        multiplier = catalogue.exact(self.space.library[0].signed)
        probe = type(self.space)([multiplier], self.space.config, self.space.scope)
        node = tuple(Edge(source, "skip_connect", multiplier.name) for source in range(2))
        cells = tuple(Cell((node,) * self.space.nodes, reduction, multiplier.name) for reduction in (False, True))
        skipping = CellArchitecture(cells, multiplier.name, self.space.scope)
        for row in costs(probe, skipping, shape):
            if ".body.operations." in row.name:
                continue
            scaled, fixed = self.model.linear(row)
            self.outer_fixed += fixed
            if scaled:
                outer = self.rows[BETA]
                inside = row.name.startswith("cells.")
                site = outer[PROJECTIONS][int(row.name.split(".")[1])] if inside else outer[OUTSIDE][0]
                self.outer_scaled[int(site)] += scaled
