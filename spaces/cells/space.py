"""The cells of DARTS: an operation and a multiplier on every edge, two cells or one for each position.

Nothing here imports torch before a network is built.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from spaces.cells import published
from spaces.cells.architecture import CHOSEN_OPERATIONS, OPERATION_NAMES, SCOPES, Cell, CellArchitecture
from spaces.cells.architecture import Edge as CellEdge
from spaces.cells.choices import cell_choices, cell_shares, chosen, derive
from spaces.cells.decisions import CELLS, decided, decisions, names, site_name
from spaces.cells.mutation import mutate
from spaces.cells.sites import CellConfig, CellSites
from spaces.multipliers.catalogue import power_ratio
from spaces.shape import NetworkShape
from spaces.space import Choice, DifferentiableSpace, Edge, Keep

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from spaces.cells.expected import ExpectedCellCost
    from spaces.cells.network import CellNetwork
    from spaces.cells.supernet import CellSupernet
    from spaces.costs.model import CostModel
    from spaces.costs.trace import LayerCost


class CellSpace(CellSites, DifferentiableSpace):
    """DARTS cells whose multipliers come from ``library``."""

    name = "cells"
    Config = CellConfig
    small = CellConfig(nodes=1)
    architecture_type = CellArchitecture
    scopes = SCOPES
    operation_names = OPERATION_NAMES
    cell_by_cell = True
    published: ClassVar[Mapping[str, CellArchitecture]] = published.ARCHITECTURES

    @classmethod
    def config_of(cls, architecture: CellArchitecture) -> CellConfig:
        return CellConfig(len(architecture.cells[0].nodes))

    @classmethod
    def from_literature(cls, data: object) -> CellArchitecture | None:
        return published.from_literature(data).architecture() if published.is_genotype(data) else None

    @classmethod
    def edges(cls, architecture: CellArchitecture) -> list[Edge]:
        nodes = range(len(architecture.cells[0].nodes))
        names = ["input c(k−2)", "input c(k−1)", *(f"node {number}" for number in nodes)]
        return [
            Edge(
                f"cell {at} ({'reduction' if cell.reduction else 'normal'}), node {number}",
                names[edge.source],
                str(edge.operation),
                str(edge.multiplier or ""),
            )
            for at, cell in enumerate(architecture.cells)
            for number, node in enumerate(cell.nodes)
            for edge in node
        ]

    @classmethod
    def draw(cls, architecture: CellArchitecture) -> "Figure":
        from spaces.cells.drawing import draw  # matplotlib takes a second to import

        return draw(architecture)

    # -- sampling and mutation ---------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> CellArchitecture:
        """A uniform draw: for each node two different sources, an operation for each, a multiplier for each site."""
        taken = {site_name(site): self.random_multiplier(rng) for site in self.sites}
        for cell in CELLS:
            for node in range(self.nodes):
                sources = sorted(int(s) for s in rng.choice(node + 2, size=2, replace=False))
                operations = (str(operation) for operation in rng.choice(CHOSEN_OPERATIONS, size=2))
                taken |= zip(names(cell, node), (" ".join(map(str, sources)), *operations))
        return decided(self, taken)

    def decisions(self) -> dict[str, tuple[str, ...]]:
        return decisions(self)

    def decided(self, taken: Mapping[str, str]) -> CellArchitecture:
        return decided(self, taken)

    def reference(self) -> CellArchitecture:
        """Of two edges per node the one that costs most: 5×5 separable convolutions on the circuit of the highest power."""
        multiplier = max(self.library, key=power_ratio).name
        nodes = tuple(
            tuple(CellEdge(source, "sep_conv_5x5", multiplier) for source in range(2)) for _ in range(self.nodes)
        )
        return CellArchitecture(tuple(Cell(nodes, kind, multiplier) for kind in (False, True)), multiplier, self.scope)

    def mutate(self, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
        """A neighbour with another key: one source, operation or multiplier differs (all tied ones, if they are tied).

        Raises InputError where the space has a single architecture only.
        """
        return mutate(self, architecture, rng)

    # -- searching by gradient ---------------------------------------------------------------------------------------

    def choices(self, shape: NetworkShape) -> dict[str, Choice]:
        """α: the operations of every edge, shared by the cells of one type. β: the multiplier of every site."""
        return cell_choices(self, shape)

    def shares(self, shape: NetworkShape) -> dict[str, Choice]:
        """γ: how the inputs of every node are weighed, by the cells of one type alike."""
        return cell_shares(self, shape)

    def supernet(self, shape: NetworkShape, choices: Mapping[str, Choice], partial: int = 1) -> "CellSupernet":
        from spaces.cells.supernet import CellSupernet

        return CellSupernet(self, shape, choices, partial)

    def expected_cost(
        self, shape: NetworkShape, choices: Mapping[str, Choice], model: "CostModel", device: "torch.device"
    ) -> "ExpectedCellCost":
        from spaces.cells.expected import ExpectedCellCost

        return ExpectedCellCost(self, shape, choices, model, device)

    def derive(
        self, scores: Mapping[str, np.ndarray], choices: Mapping[str, Choice], keep: Keep | None = None
    ) -> CellArchitecture:
        """As DARTS derives it: per node the two edges whose best operations score highest, unless ``keep`` says otherwise."""
        return derive(self, scores, choices, keep)

    def chosen(self, architecture: CellArchitecture, choices: Mapping[str, Choice]) -> dict[str, np.ndarray]:
        return chosen(self, architecture, choices)

    def diagnostics(self, architecture: CellArchitecture) -> dict[str, float]:
        """How many edges skip, which is how DARTS collapses: in the normal and in the reduction cells."""
        return {
            f"skips_{name}": sum(
                edge.operation == "skip_connect"
                for cell in architecture.cells
                if cell.reduction is reduction
                for node in cell.nodes
                for edge in node
            )
            for name, reduction in (("normal", False), ("reduction", True))
        }

    # -- building ----------------------------------------------------------------------------------------------------

    def from_json(self, data: Any) -> CellArchitecture:
        return CellArchitecture.from_json(data)

    def build(
        self,
        architecture: CellArchitecture,
        shape: NetworkShape,
        arithmetic: str = "approximate",
        searching: bool = False,
    ) -> "CellNetwork":
        """``searching`` normalises as the supernet does. Raises InputError also for an image that is too small."""
        from spaces.cells.building import build

        return build(self, architecture, shape, arithmetic, searching)

    def costs(self, architecture: CellArchitecture, shape: NetworkShape) -> "list[LayerCost]":
        from spaces.cells.building import costs

        return costs(self, architecture, shape)

    def inherited(self, child: CellArchitecture, parent: CellArchitecture, shape: NetworkShape) -> dict[str, str]:
        """Edges between the same nodes with the same operation, whatever their multiplier, and all outside the cells."""
        from spaces.cells.building import inherited

        return inherited(child, parent, shape)
