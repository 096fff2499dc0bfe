"""How a cell architecture becomes a network, what that costs, and which weights a child's network can start from."""

from dataclasses import replace

import torch

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import Cell, CellArchitecture
from spaces.cells.network import CellNetwork, DropPath, FixedCell
from spaces.cells.sites import CellSites, check_shape, reduction_positions
from spaces.costs.trace import LayerCost, trace
from spaces.errors import InputError
from spaces.shape import NetworkShape


def build(
    space: CellSites, architecture: CellArchitecture, shape: NetworkShape, arithmetic: str, searching: bool
) -> CellNetwork:
    """See ``CellSpace.build``."""
    ARITHMETICS[arithmetic]  # an unknown one is refused, whether or not anything is governed
    check_shape(shape)
    cells = expand_cells(architecture.cells, shape.cells)
    drop = DropPath()

    def layers(name: str | None) -> FixedLayers:
        return FixedLayers(arithmetic, None if name is None else space.multiplier(name))

    def body(position: int, channels: int) -> FixedCell:
        return FixedCell(cells[position], channels, layers, drop, searching)

    def outer(position: int | None) -> FixedLayers:
        return layers(architecture.multiplier if position is None else cells[position].multiplier)

    network = CellNetwork(shape, len(cells[0].nodes), body, outer, searching)
    network.drop_path = drop
    return network


def costs(space: CellSites, architecture: CellArchitecture, shape: NetworkShape) -> list[LayerCost]:
    """The cost rows of one inference, traced on the ``meta`` device: no arithmetic is done."""
    with torch.device("meta"):
        network = build(space, architecture, replace(shape, auxiliary=False), "fp32", searching=False)
        return trace(network, shape.input_shape, integer=architecture.scope == "all")


def inherited(child: CellArchitecture, parent: CellArchitecture, shape: NetworkShape) -> dict[str, str]:
    """See ``CellSpace.inherited``."""
    modules = {name: name for name in ("stem", "classifier")}
    both = zip(expand_cells(child.cells, shape.cells), expand_cells(parent.cells, shape.cells))
    for position, (mine, theirs) in enumerate(both):
        cell = f"cells.{position}"
        modules |= {f"{cell}.{part}": f"{cell}.{part}" for part in ("project_first", "project_second")}
        known = {place: f"{cell}.body.operations.{at}" for place, at in _edge_places(theirs)}
        for place, at in _edge_places(mine):
            if place in known:
                modules[f"{cell}.body.operations.{at}"] = known[place]
    return modules


def expand_cells(cells: tuple[Cell, ...], depth: int) -> list[Cell]:
    """One cell per position: the pair (normal, reduction) repeated, or the given list if it has one per position."""
    positions = [position in reduction_positions(depth) for position in range(depth)]
    if [cell.reduction for cell in cells] == [False, True]:
        return [cells[1] if reduction else cells[0] for reduction in positions]
    if [cell.reduction for cell in cells] != positions:
        raise InputError(
            f"{len(cells)} cells do not fit a network of {depth}: give (normal, reduction), or {depth} cells with "
            f"reductions at {' and '.join(map(str, reduction_positions(depth)))}"
        )
    return list(cells)


def _edge_places(cell: Cell) -> list[tuple[tuple[int, int, str], str]]:
    """Of every edge: its node, source and operation, and where the network keeps its module."""
    return [
        ((at_node, edge.source, edge.operation), f"{at_node}.{at_edge}")
        for at_node, node in enumerate(cell.nodes)
        for at_edge, edge in enumerate(node)
    ]
