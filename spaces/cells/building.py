"""How a cell architecture becomes a network, what that costs, and which weights a child's network can start from."""

import itertools
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
    """One cell per position: the pair (normal, reduction) repeated, or the given list if it has one per position.

    A list for less depth is repeated part by part: reduction cells end the first and the second part of a network, and
    the normal cells of each part come again and again in the deeper one's (D-DARTS, arXiv 2108.09306). A part that has
    none takes those of the part before it.
    """
    positions = _kinds(depth)
    given = [cell.reduction for cell in cells]
    if given == [False, True]:
        return [cells[1] if reduction else cells[0] for reduction in positions]
    if given == positions:
        return list(cells)
    if not 3 <= len(cells) <= depth or given != _kinds(len(cells)):
        raise InputError(
            f"{len(cells)} cells do not fit a network of {depth}: give (normal, reduction), or {depth} cells with "
            f"reductions at {' and '.join(map(str, reduction_positions(depth)))}, or fewer likewise"
        )
    first, second = reduction_positions(len(cells))
    parts = [cells[:first], cells[first + 1 : second], cells[second + 1 :]]
    for at in (1, 2):
        parts[at] = parts[at] or parts[at - 1]
    reductions, normals = iter((cells[first], cells[second])), itertools.cycle(parts[0])
    found, rest = [], iter(parts[1:])
    for reduction in positions:
        found.append(next(reductions if reduction else normals))
        if reduction:
            normals = itertools.cycle(next(rest))
    return found


def _kinds(depth: int) -> list[bool]:
    """Of every position whether it is a reduction cell."""
    return [position in reduction_positions(depth) for position in range(depth)]


def _edge_places(cell: Cell) -> list[tuple[tuple[int, int, str], str]]:
    """Of every edge: its node, source and operation, and where the network keeps its module."""
    return [
        ((at_node, edge.source, edge.operation), f"{at_node}.{at_edge}")
        for at_node, node in enumerate(cell.nodes)
        for at_edge, edge in enumerate(node)
    ]
