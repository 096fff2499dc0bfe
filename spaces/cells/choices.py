"""What is to be decided in the cell space, and how scores become an architecture."""

from collections.abc import Mapping

import numpy as np

from spaces.cells.architecture import OPERATION_NAMES, Cell, CellArchitecture, Edge
from spaces.cells.sites import CellSites, check_shape, kinds
from spaces.shape import NetworkShape
from spaces.space import Choice

ALPHA, BETA = "alpha", "beta"  # the names of the choices: operations, multipliers
EDGES, PROJECTIONS, OUTSIDE = "edges", "projections", "outside"  # places: in cells, before them, stem and classifier


def cell_choices(space: CellSites, shape: NetworkShape) -> dict[str, Choice]:
    """See ``CellSpace.choices``. Places: edges (depth, E), projections (depth,), outside (1,)."""
    check_shape(shape)
    ties, count, kind = space.ties, len(space.edge_places), kinds(shape.cells)
    operations = np.arange(2 * count).reshape(2, count)[kind]
    governed = {EDGES: ties.edges[kind]}
    if ties.cells is not None:
        governed |= {PROJECTIONS: np.array(ties.cells)[kind], OUTSIDE: np.array([ties.network])}
    groups = {"normal": slice(0, count), "reduction": slice(count, 2 * count)}
    library = tuple(multiplier.name for multiplier in space.library)
    return {
        ALPHA: Choice(OPERATION_NAMES, {EDGES: operations}, hidden=1, groups=groups),
        BETA: Choice(library, governed, multipliers=True),
    }


def derive(space: CellSites, scores: Mapping[str, np.ndarray], choices: Mapping[str, Choice]) -> CellArchitecture:
    """See ``CellSpace.derive``: a pair of cells where all positions of a type read the same rows, else a cell for each."""
    multipliers = [space.library[int(row.argmax())].name for row in scores[BETA]]
    alpha, beta = choices[ALPHA].rows, choices[BETA].rows
    kind = kinds(len(alpha[EDGES]))

    def cell(position: int) -> Cell:
        found = scores[ALPHA][alpha[EDGES][position]][:, choices[ALPHA].hidden :]
        nodes = []
        for node in range(space.nodes):
            into = [index for index, (target, _) in enumerate(space.edge_places) if target == node]
            kept = sorted(into, key=lambda index: -found[index].max())[:2]
            nodes.append(
                tuple(
                    Edge(
                        space.edge_places[index][1],
                        OPERATION_NAMES[choices[ALPHA].hidden + int(found[index].argmax())],
                        multipliers[beta[EDGES][position, index]],
                    )
                    for index in kept
                )
            )
        outer = multipliers[beta[PROJECTIONS][position]] if PROJECTIONS in beta else None
        return Cell(tuple(nodes), bool(kind[position]), outer)

    shared = all(len(np.unique(rows[kind == k], axis=0)) == 1 for rows in _by_position(choices) for k in (0, 1))
    positions = [int(np.argmax(kind == k)) for k in (0, 1)] if shared else range(len(kind))
    outside = multipliers[int(beta[OUTSIDE][0])] if OUTSIDE in beta else None
    return CellArchitecture(tuple(cell(position) for position in positions), outside, space.scope)


def _by_position(choices: Mapping[str, Choice]) -> list[np.ndarray]:
    return [rows for choice in choices.values() for place, rows in choice.rows.items() if place != OUTSIDE]
