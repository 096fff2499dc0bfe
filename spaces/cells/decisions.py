"""A cell architecture as independent decisions: two sources of every node and what is done to them, and multipliers.

Cells whose nodes have one edge, or more than two, are not among them.
"""

import itertools
from collections.abc import Mapping

from spaces.cells.architecture import CHOSEN_OPERATIONS, Cell, CellArchitecture, Edge
from spaces.cells.sites import CellSites

CELLS = ("normal", "reduction")


def decisions(space: CellSites) -> dict[str, tuple[str, ...]]:
    """See ``CellSpace.decisions``."""
    found: dict[str, tuple[str, ...]] = {}
    for cell in CELLS:
        for node in range(space.nodes):
            pairs = itertools.combinations(range(node + 2), 2)
            sources, first, second = names(cell, node)
            found |= {sources: tuple(f"{a} {b}" for a, b in pairs), first: CHOSEN_OPERATIONS, second: CHOSEN_OPERATIONS}
    library = tuple(multiplier.name for multiplier in space.library)
    return found | dict.fromkeys(map(site_name, space.sites), library)


def names(cell: str, node: int) -> tuple[str, str, str]:
    """Of the decisions on a node: its sources, and the operations on the first and on the second of them."""
    where = f"{cell} cell, node {node}"
    return f"{where}, sources", f"{where}, first operation", f"{where}, second operation"


def site_name(site: str) -> str:
    """Of the decision on a site's multiplier."""
    return f"multiplier, {site}"


def decided(space: CellSites, taken: Mapping[str, str]) -> CellArchitecture:
    """See ``CellSpace.decided``."""
    ties = space.ties
    multipliers = [taken[site_name(site)] for site in space.sites]
    cells = []
    for kind, cell in enumerate(CELLS):
        nodes = []
        for node in range(space.nodes):
            pair, *operations = (taken[name] for name in names(cell, node))
            edges = (
                Edge(source, operation, multipliers[ties.edges[kind, space.edge_places.index((node, source))]])
                for source, operation in zip(map(int, pair.split()), operations)
            )
            nodes.append(tuple(edges))
        cells.append(Cell(tuple(nodes), bool(kind), None if ties.cells is None else multipliers[ties.cells[kind]]))
    return CellArchitecture(tuple(cells), None if ties.network is None else multipliers[ties.network], space.scope)
