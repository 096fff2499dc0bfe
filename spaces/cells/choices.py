"""What is to be decided in the cell space, and how scores become an architecture."""

from collections.abc import Mapping

import numpy as np

from spaces.cells.architecture import OPERATION_NAMES, Cell, CellArchitecture, Edge
from spaces.cells.sites import CellSites, check_shape, kinds
from spaces.shape import NetworkShape
from spaces.space import Choice, Keep

ALPHA, BETA, GAMMA = "alpha", "beta", "gamma"  # the names of the choices: operations, multipliers, shares of inputs
EDGES, PROJECTIONS, OUTSIDE = "edges", "projections", "outside"  # places: in cells, before them, stem and classifier
NODES = "nodes"  # likewise, of cells


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


def cell_shares(space: CellSites, shape: NetworkShape) -> dict[str, Choice]:
    """See ``CellSpace.shares``. Place: nodes (depth, nodes). The first options are a node's inputs; it ignores the others."""
    check_shape(shape)
    inputs = ("c(k−2)", "c(k−1)", *(f"node {number}" for number in range(space.nodes - 1)))
    rows = np.arange(2 * space.nodes).reshape(2, space.nodes)[kinds(shape.cells)]
    groups = {"normal": slice(0, space.nodes), "reduction": slice(space.nodes, 2 * space.nodes)}
    return {GAMMA: Choice(inputs, {NODES: rows}, shares=True, groups=groups)}


def two_best(best: np.ndarray) -> np.ndarray:
    """The inputs that a node keeps in DARTS, of the scores of the best operation on each."""
    return np.argsort(-best, kind="stable")[:2]


def derive(
    space: CellSites, scores: Mapping[str, np.ndarray], choices: Mapping[str, Choice], keep: Keep | None = None
) -> CellArchitecture:
    """See ``CellSpace.derive``: a pair of cells where all positions of a type read the same rows, else a cell for each.

    Where inputs have shares, their scores, which are logarithms, add to those of the operations.
    """
    multipliers = [space.library[int(row.argmax())].name for row in scores[BETA]]
    alpha, beta = choices[ALPHA].rows, choices[BETA].rows
    kind = kinds(len(alpha[EDGES]))

    def cell(position: int) -> Cell:
        found = scores[ALPHA][alpha[EDGES][position]][:, choices[ALPHA].hidden :]
        nodes = []
        for node in range(space.nodes):
            into = [index for index, (target, _) in enumerate(space.edge_places) if target == node]
            best = found[into].max(axis=1)
            if GAMMA in choices:
                best = best + scores[GAMMA][choices[GAMMA].rows[NODES][position, node]][: len(into)]
            nodes.append(
                tuple(
                    Edge(
                        space.edge_places[index][1],
                        OPERATION_NAMES[choices[ALPHA].hidden + int(found[index].argmax())],
                        multipliers[beta[EDGES][position, index]],
                    )
                    for index in (into[at] for at in (keep or two_best)(best))
                )
            )
        outer = multipliers[beta[PROJECTIONS][position]] if PROJECTIONS in beta else None
        return Cell(tuple(nodes), bool(kind[position]), outer)

    shared = all(len(np.unique(rows[kind == k], axis=0)) == 1 for rows in _by_position(choices) for k in (0, 1))
    positions = [int(np.argmax(kind == k)) for k in (0, 1)] if shared else range(len(kind))
    outside = multipliers[int(beta[OUTSIDE][0])] if OUTSIDE in beta else None
    return CellArchitecture(tuple(cell(position) for position in positions), outside, space.scope)


def chosen(space: CellSites, architecture: CellArchitecture, choices: Mapping[str, Choice]) -> dict[str, np.ndarray]:
    """See ``DifferentiableSpace.chosen``."""
    found = {
        name: np.zeros((choice.count, len(choice.options))) for name, choice in choices.items() if not choice.shares
    }
    rows = choices[BETA].rows

    def mark(name: str, row: int, option: str | None) -> None:
        if option:
            found[name][row, choices[name].options.index(option)] = 1

    kind = kinds(len(choices[ALPHA].rows[EDGES]))
    shared = len(architecture.cells) == 2 < len(kind)
    for position, which in enumerate(kind):
        cell = architecture.cells[which if shared else position]
        for node, edges in enumerate(cell.nodes):
            for edge in edges:
                at = space.edge_places.index((node, edge.source))
                mark(ALPHA, choices[ALPHA].rows[EDGES][position, at], edge.operation)
                mark(BETA, rows[EDGES][position, at], edge.multiplier)
        if PROJECTIONS in rows:
            mark(BETA, rows[PROJECTIONS][position], cell.multiplier)
    if OUTSIDE in rows:
        mark(BETA, rows[OUTSIDE][0], architecture.multiplier)
    return found


def _by_position(choices: Mapping[str, Choice]) -> list[np.ndarray]:
    return [rows for choice in choices.values() for place, rows in choice.rows.items() if place != OUTSIDE]
