"""Neighbours of a cell architecture: one source, operation or multiplier differs, and every node has as many edges."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from spaces.cells.architecture import CHOSEN_OPERATIONS, Cell, CellArchitecture, Edge
from spaces.cells.sites import CellSites
from spaces.errors import InputError

ATTEMPTS = 1000


def mutate(space: CellSites, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
    """See ``CellSpace.mutate``."""
    moves = (_mutate_source, _mutate_operation, _mutate_multiplier)
    for _ in range(ATTEMPTS):
        child = moves[int(rng.integers(len(moves)))](space, architecture, rng)
        if child.key != architecture.key:
            return child
    raise InputError("this architecture has no neighbour in the space")


def _mutate_edge(
    architecture: CellArchitecture,
    rng: np.random.Generator,
    change: Callable[[Cell, int, Edge, tuple[Edge, ...]], Edge],
) -> CellArchitecture:
    at_cell = int(rng.integers(len(architecture.cells)))
    cell = architecture.cells[at_cell]
    at_node = int(rng.integers(len(cell.nodes)))
    node = cell.nodes[at_node]
    at_edge = int(rng.integers(len(node)))
    others = (*node[:at_edge], *node[at_edge + 1 :])
    nodes = (*cell.nodes[:at_node], (change(cell, at_node, node[at_edge], others), *others), *cell.nodes[at_node + 1 :])
    cells = list(architecture.cells)
    cells[at_cell] = replace(cell, nodes=nodes)
    return replace(architecture, cells=tuple(cells))


def _mutate_source(space: CellSites, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
    def change(cell: Cell, node: int, edge: Edge, others: tuple[Edge, ...]) -> Edge:
        free = sorted(set(range(node + 2)) - {other.source for other in others})
        return replace(_awake(space, edge, architecture, cell, rng), source=int(rng.choice(free)))

    return _mutate_edge(architecture, rng, change)


def _mutate_operation(space: CellSites, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
    def change(cell: Cell, node: int, edge: Edge, others: tuple[Edge, ...]) -> Edge:  # noqa: ARG001
        return replace(_awake(space, edge, architecture, cell, rng), operation=str(rng.choice(CHOSEN_OPERATIONS)))

    return _mutate_edge(architecture, rng, change)


def _awake(space: CellSites, edge: Edge, architecture: CellArchitecture, cell: Cell, rng: np.random.Generator) -> Edge:
    """The edge with a multiplier, which a changed operation may need: the tied one, or a random one."""
    if edge.multiplier is not None:
        return edge
    tied = None if space.choice == "edge" else _tied(space, architecture, cell)
    return replace(edge, multiplier=tied or space.random_multiplier(rng))


def _tied(space: CellSites, architecture: CellArchitecture, cell: Cell) -> str | None:
    """The multiplier that an edge without one must take where they are shared by a cell or the network."""
    cells = architecture.cells if space.choice == "network" else (cell,)
    governed = [architecture.multiplier] if space.choice == "network" else []
    for cell in cells:
        governed += [cell.multiplier, *(other.multiplier for node in cell.nodes for other in node)]
    return next((name for name in governed if name), None)


def _mutate_multiplier(space: CellSites, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
    name = space.random_multiplier(rng)
    if space.choice == "network":
        return architecture.with_multiplier(name, space.scope)
    at = int(rng.integers(len(architecture.cells) + 1))
    if at == len(architecture.cells):
        return replace(architecture, multiplier=name)
    cell = architecture.cells[at]
    if space.choice == "edge":
        sites = [(n, e) for n, node in enumerate(cell.nodes) for e, edge in enumerate(node) if edge.multiplier]
        picked = int(rng.integers(len(sites) + 1))
        cell = replace(cell, multiplier=name) if picked == len(sites) else _with_edge(cell, *sites[picked], name)
    else:
        cell = cell.with_multiplier(name)
    return replace(architecture, cells=(*architecture.cells[:at], cell, *architecture.cells[at + 1 :]))


def _with_edge(cell: Cell, node: int, edge: int, multiplier: str) -> Cell:
    edges = list(cell.nodes[node])
    edges[edge] = replace(edges[edge], multiplier=multiplier)
    return replace(cell, nodes=(*cell.nodes[:node], tuple(edges), *cell.nodes[node + 1 :]))
