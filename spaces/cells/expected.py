"""The expected energy of a network drawn from the supernet's probabilities, as a differentiable function of them."""

from typing import Any

import torch
from torch import Tensor

from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import CHOSEN_OPERATIONS, Cell, CellArchitecture, Edge, stride_of
from spaces.cells.network import reduction_positions
from spaces.cells.operations import build_operation
from spaces.cells.space import CellSpace
from spaces.costs.model import CostModel
from spaces.costs.trace import trace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape


class ExpectedEnergy:
    """E[pJ per inference] for probabilities of operations and circuits.

    A derived network keeps two of a node's edges and never the operation "none", so an edge into a node with n sources
    counts with probability 2/n, and operations in proportion among the others. Energy is linear in the circuits'
    probabilities: a governed multiplication costs Σ_m β_m P_m / P_exact of an exact one.
    """

    def __init__(self, space: CellSpace, shape: NetworkShape, model: CostModel, device: torch.device) -> None:
        self.space, self.model = space, model
        sites = space.sites
        count = len(space.edges)
        # pJ of exact int8 multiplications that a circuit scales, and of everything else, by kind, edge and operation
        self.scaled = torch.zeros(2, count, len(CHOSEN_OPERATIONS), dtype=torch.float64)
        self.fixed = torch.zeros_like(self.scaled)
        self.outer_scaled = torch.zeros(sites.count, dtype=torch.float64)
        self.outer_fixed = 0.0
        self._add_edges(shape)
        self._add_outer(shape)
        nodes = torch.tensor([node for node, _ in space.edges], dtype=torch.float64)
        self.kept = (2 / (nodes + 2)).to(device)
        self.ratios = torch.tensor([model.ratio(m) for m in space.library], dtype=torch.float64).to(device)
        self.rows = torch.tensor(sites.edges, device=device)
        self.scaled, self.fixed = self.scaled.to(device), self.fixed.to(device)
        self.outer_scaled = self.outer_scaled.to(device)

    def __call__(self, operations: Tensor, multipliers: Tensor) -> Tensor:
        """Scalar pJ from probabilities of operations (2, E, all operations) and of circuits (sites, M)."""
        power = multipliers.double() @ self.ratios
        chosen = operations[..., 1:].double()
        chosen = chosen / chosen.sum(dim=-1, keepdim=True)
        edge = (chosen * (self.fixed + self.scaled * power[self.rows].unsqueeze(-1))).sum(dim=-1)
        return (edge * self.kept).sum() + (self.outer_scaled * power).sum() + self.outer_fixed

    def exact_uniform(self) -> float:
        """E[pJ] with exact int8 circuits and uniform operations: the yardstick of the energy term (a constant)."""
        edge = (self.fixed + self.scaled).mean(dim=-1)
        return float((edge * self.kept).sum() + self.outer_scaled.sum() + self.outer_fixed)

    def relative_costs(self) -> Tensor:
        """Exact int8 energy of every operation (2, E, chosen operations) relative to the dearest on the same edge."""
        cost = self.fixed + self.scaled
        return cost / cost.amax(dim=-1, keepdim=True)

    def _add_edges(self, shape: NetworkShape) -> None:
        everything = self.space.scope == "all"
        exact = catalogue.exact(self.space.library[0].signed)
        costs: dict[tuple[Any, ...], tuple[float, float]] = {}
        channels, size = shape.channels, shape.input_shape[1:]
        for position in range(shape.cells):
            kind = int(position in reduction_positions(shape.cells))
            channels *= 1 + kind
            for index, (_, source) in enumerate(self.space.edges):
                stride = stride_of(source, bool(kind))
                inner = tuple((side + 1) // 2 for side in size) if kind and stride == 1 else size
                for at, name in enumerate(CHOSEN_OPERATIONS):
                    case = (name, channels, stride, inner)
                    if case not in costs:
                        governed = everything or name.startswith(("sep", "dil"))
                        layers = FixedLayers("fp32", exact if governed else None)
                        costs[case] = self._operation_cost(name, channels, stride, inner, layers)
                    self.scaled[kind, index, at] += costs[case][0]
                    self.fixed[kind, index, at] += costs[case][1]
            if kind:
                size = tuple((side + 1) // 2 for side in size)

    def _operation_cost(self, name, channels, stride, size, layers) -> tuple[float, float]:
        with torch.device("meta"):
            # A parameter of its own, so that an operation without weights can be traced as well.
            module = torch.nn.Sequential(build_operation(name, channels, stride, layers))
            module.register_parameter("anchor", torch.nn.Parameter(torch.empty(0)))
            rows = trace(module, (channels, *size), integer=self.space.scope == "all")
        parts = [self.model.linear(row) for row in rows]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def _add_outer(self, shape: NetworkShape) -> None:
        """Stem, projections, sums and classifier, traced from a network whose edges are skipped."""
        space, sites = self.space, self.space.sites
        multiplier = catalogue.exact(space.library[0].signed)
        probe, exact = CellSpace([multiplier], space.nodes, space.scope), multiplier.name
        nodes = tuple(tuple(Edge(source, "skip_connect", exact) for source in range(2)) for _ in range(space.nodes))
        cells = tuple(Cell(nodes, reduction, exact) for reduction in (False, True))
        for row in probe.costs(CellArchitecture(cells, exact, space.scope), shape):
            if ".body.operations." in row.name:
                continue
            scaled, fixed = self.model.linear(row)
            self.outer_fixed += fixed
            if scaled:
                position = int(row.name.split(".")[1]) if row.name.startswith("cells.") else None
                in_reduction = position in reduction_positions(shape.cells)
                site = sites.network if position is None else sites.cells[int(in_reduction)]
                self.outer_scaled[site] += scaled
