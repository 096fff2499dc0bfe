"""The space of cell architectures: what can be chosen where, how to draw it, how to build it, what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import (
    CHOSEN_OPERATIONS,
    OPERATION_NAMES,
    SCOPES,
    Cell,
    CellArchitecture,
    Edge,
)
from spaces.cells.network import CellNetwork, DropPath, FixedCell, reduction_positions
from spaces.costs.trace import LayerCost, trace
from spaces.errors import InputError, suggest
from spaces.multipliers.catalogue import power_ratio
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

CHOICES = ("edge", "cell", "network")


@dataclass(frozen=True)
class Sites:
    """Rows of the matrix of multiplier probabilities: which row governs an edge, a cell's projections, the rest."""

    edges: np.ndarray  # (2, E): normal, reduction
    cells: tuple[int, int] | None  # None where nothing outside the edges is governed (scope "separable")
    network: int | None
    count: int


class CellSpace:
    """DARTS cells of ``nodes`` nodes whose multipliers come from ``library``.

    ``choice`` says how finely circuits are chosen: per "edge", per "cell" or one for the whole "network". ``scope`` says
    what they govern (see ``CellArchitecture``).
    """

    name = "cells"

    def __init__(self, library: Sequence[Multiplier], nodes: int = 4, scope: str = "all", choice: str = "edge") -> None:
        if scope not in SCOPES:
            raise suggest(scope, SCOPES, "scope")
        if choice not in CHOICES:
            raise suggest(choice, CHOICES, "multiplier choice")
        if nodes < 1:
            raise InputError(f"a cell needs at least one node, not {nodes}")
        self.library = tuple(library)
        self.nodes, self.scope, self.choice = nodes, scope, choice
        self._multipliers = {multiplier.name: multiplier for multiplier in library}
        # Edges in the order of DARTS: node by node, each from all its possible sources.
        self.edges = [(node, source) for node in range(nodes) for source in range(node + 2)]

    # -- drawing ---------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> CellArchitecture:
        """A uniform draw: for each node two different sources, an operation for each, a multiplier for each site."""
        sites = self._draw_multipliers(rng)
        cells = []
        for kind in range(2):
            nodes = []
            for node in range(self.nodes):
                sources = sorted(int(s) for s in rng.choice(node + 2, size=2, replace=False))
                operations = rng.choice(CHOSEN_OPERATIONS, size=2)
                nodes.append(
                    tuple(
                        Edge(source, str(operation), sites[self.sites.edges[kind, self.edges.index((node, source))]])
                        for source, operation in zip(sources, operations)
                    )
                )
            cells.append(
                Cell(tuple(nodes), bool(kind), self._outer(sites, self.sites.cells and self.sites.cells[kind]))
            )
        return CellArchitecture(tuple(cells), self._outer(sites, self.sites.network), self.scope)

    def reference(self) -> CellArchitecture:
        """The architecture that costs most: 5×5 separable convolutions everywhere, on the hungriest circuit."""
        multiplier = max(self.library, key=power_ratio).name
        nodes = tuple(tuple(Edge(source, "sep_conv_5x5", multiplier) for source in range(2)) for _ in range(self.nodes))
        return CellArchitecture(tuple(Cell(nodes, kind, multiplier) for kind in (False, True)), multiplier, self.scope)

    def mutate(self, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
        """A neighbour with another key: one source, operation or multiplier differs (all tied ones, if they are tied).

        Raises InputError where the space has a single architecture only.
        """
        for _ in range(1000):
            moves = [self._mutate_source, self._mutate_operation, self._mutate_multiplier]
            child = moves[int(rng.integers(len(moves)))](architecture, rng)
            if child.key != architecture.key:
                return child
        raise InputError("this architecture has no neighbour in the space")

    def _mutate_edge(self, architecture: CellArchitecture, rng: np.random.Generator, change) -> CellArchitecture:
        at_cell = int(rng.integers(len(architecture.cells)))
        cell = architecture.cells[at_cell]
        at_node, at_edge = int(rng.integers(len(cell.nodes))), int(rng.integers(2))
        node = list(cell.nodes[at_node])
        node[at_edge] = change(cell, at_node, node[at_edge], node[1 - at_edge])
        nodes = (*cell.nodes[:at_node], tuple(node), *cell.nodes[at_node + 1 :])
        cells = list(architecture.cells)
        cells[at_cell] = replace(cell, nodes=nodes)
        return replace(architecture, cells=tuple(cells))

    def _mutate_source(self, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
        def change(cell: Cell, node: int, edge: Edge, other: Edge) -> Edge:
            free = [source for source in range(node + 2) if source != other.source]
            return replace(self._awake(edge, architecture, cell, rng), source=int(rng.choice(free)))

        return self._mutate_edge(architecture, rng, change)

    def _mutate_operation(self, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
        def change(cell: Cell, node: int, edge: Edge, other: Edge) -> Edge:  # noqa: ARG001
            return replace(self._awake(edge, architecture, cell, rng), operation=str(rng.choice(CHOSEN_OPERATIONS)))

        return self._mutate_edge(architecture, rng, change)

    def _awake(self, edge: Edge, architecture: CellArchitecture, cell: Cell, rng: np.random.Generator) -> Edge:
        """The edge with a multiplier, which a changed operation may need: the tied one, or a random one."""
        if edge.multiplier is not None:
            return edge
        tied = None if self.choice == "edge" else self._tied(architecture, cell)
        return replace(edge, multiplier=tied or self._random_multiplier(rng))

    def _tied(self, architecture: CellArchitecture, cell: Cell) -> str | None:
        """The circuit that an edge without one must take where circuits are shared by a cell or the network."""
        cells = architecture.cells if self.choice == "network" else (cell,)
        governed = [architecture.multiplier] if self.choice == "network" else []
        for cell in cells:
            governed += [cell.multiplier, *(other.multiplier for node in cell.nodes for other in node)]
        return next((name for name in governed if name), None)

    def _mutate_multiplier(self, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
        name = self._random_multiplier(rng)
        if self.choice == "network":
            return architecture.with_multiplier(name, self.scope)
        at = int(rng.integers(len(architecture.cells) + 1))
        if at == len(architecture.cells):
            return replace(architecture, multiplier=name)
        cell = architecture.cells[at]
        if self.choice == "edge":
            sites = [(n, e) for n, node in enumerate(cell.nodes) for e in range(2) if node[e].multiplier]
            picked = int(rng.integers(len(sites) + 1))
            cell = replace(cell, multiplier=name) if picked == len(sites) else _with_edge(cell, *sites[picked], name)
        else:
            cell = cell.with_multiplier(name)
        return replace(architecture, cells=(*architecture.cells[:at], cell, *architecture.cells[at + 1 :]))

    def _random_multiplier(self, rng: np.random.Generator) -> str:
        return self.library[int(rng.integers(len(self.library)))].name

    def _draw_multipliers(self, rng: np.random.Generator) -> list[str]:
        return [self._random_multiplier(rng) for _ in range(self.sites.count)]

    def _outer(self, sites: Sequence[str], row: int | None) -> str | None:
        return None if row is None else sites[row]

    # -- choosing from scores --------------------------------------------------------------------------------------

    @cached_property
    def sites(self) -> Sites:
        """Where multipliers are chosen, and which choices are tied together."""
        count = len(self.edges)
        outside = self.scope == "all"
        if self.choice == "network":
            zeros = np.zeros((2, count), dtype=int)
            return Sites(zeros, (0, 0) if outside else None, 0 if outside else None, 1)
        if self.choice == "cell":
            rows = np.repeat([[0], [1]], count, axis=1)
            return Sites(rows, (0, 1) if outside else None, 2 if outside else None, 3 if outside else 2)
        rows = np.arange(2 * count).reshape(2, count)
        if not outside:
            return Sites(rows, None, None, 2 * count)
        return Sites(rows, (2 * count, 2 * count + 1), 2 * count + 2, 2 * count + 3)

    def derive(self, operation_scores: np.ndarray, multiplier_scores: np.ndarray) -> CellArchitecture:
        """The architecture of the highest scores, as DARTS derives it: per node the two strongest edges.

        ``operation_scores`` (2, E, operations) in the order of OPERATION_NAMES, "none" never chosen; an edge is as
        strong as its best operation. ``circuit_scores`` (sites, M).
        """
        multipliers = [self.library[int(row.argmax())].name for row in multiplier_scores]
        cells = []
        for kind in range(2):
            scores = operation_scores[kind][:, 1:]
            nodes = []
            for node in range(self.nodes):
                into = [index for index, (target, _) in enumerate(self.edges) if target == node]
                kept = sorted(into, key=lambda index: -scores[index].max())[:2]
                nodes.append(
                    tuple(
                        Edge(
                            self.edges[index][1],
                            OPERATION_NAMES[1 + int(scores[index].argmax())],
                            multipliers[self.sites.edges[kind, index]],
                        )
                        for index in kept
                    )
                )
            cells.append(
                Cell(tuple(nodes), bool(kind), self._outer(multipliers, self.sites.cells and self.sites.cells[kind]))
            )
        return CellArchitecture(tuple(cells), self._outer(multipliers, self.sites.network), self.scope)

    # -- building --------------------------------------------------------------------------------------------------

    def from_json(self, data: object) -> CellArchitecture:
        return CellArchitecture.from_json(data)

    def build(
        self,
        architecture: CellArchitecture,
        shape: NetworkShape,
        arithmetic: str = "approximate",
        searching: bool = False,
    ) -> CellNetwork:
        """The stand-alone network in one of the ``ARITHMETICS``.

        ``searching`` normalises as the supernet does. Raises InputError for a circuit outside the library and for an
        image too small for two reductions.
        """
        ARITHMETICS[arithmetic]  # an unknown one is refused, whether or not anything is governed
        check_shape(shape)
        cells = expand_cells(architecture.cells, shape.cells)
        drop = DropPath()

        def layers(name: str | None) -> FixedLayers:
            return FixedLayers(arithmetic, None if name is None else self._multiplier(name))

        def body(position: int, channels: int) -> FixedCell:
            return FixedCell(cells[position], channels, layers, drop, searching)

        def outer(position: int | None) -> FixedLayers:
            return layers(architecture.multiplier if position is None else cells[position].multiplier)

        network = CellNetwork(shape, len(cells[0].nodes), body, outer, searching)
        network.drop_path = drop
        return network

    def costs(self, architecture: CellArchitecture, shape: NetworkShape) -> list[LayerCost]:
        """The cost rows of one inference, traced on the ``meta`` device: no arithmetic is done."""
        with torch.device("meta"):
            network = self.build(architecture, replace(shape, auxiliary=False), "fp32")
            return trace(network, shape.input_shape, integer=architecture.scope == "all")

    def inherited(self, child: CellArchitecture, parent: CellArchitecture, shape: NetworkShape) -> dict[str, str]:
        """Modules of the child's network → modules of the parent's whose weights they can start from.

        Those are the edges between the same nodes with the same operation, whatever their circuit, and all that is
        outside the cells' bodies.
        """
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

    def draw(self, architecture: CellArchitecture, path: Path) -> None:
        """Raises InputError for a suffix other than .svg, .pdf or .png."""
        from spaces.cells.drawing import save  # matplotlib takes a second to import

        save(architecture, path)

    def _multiplier(self, name: str) -> Multiplier:
        if name not in self._multipliers:
            raise suggest(name, self._multipliers, "multiplier in this library")
        return self._multipliers[name]


def check_shape(shape: NetworkShape) -> None:
    """Raises InputError for a shape that no cell network can have."""
    if shape.cells < 3:
        raise InputError(f"a cell network needs at least 3 cells (reductions at 1/3 and 2/3), not {shape.cells}")
    if shape.channels < 2 or shape.channels % 2:
        raise InputError(f"the initial channels must be an even number of at least 2, not {shape.channels}")
    size = shape.input_shape[1:]
    if min(size) < 4:
        raise InputError(f"images must be at least 4×4 pixels to be halved twice, not {size}")


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


def _with_edge(cell: Cell, node: int, edge: int, multiplier: str) -> Cell:
    edges = list(cell.nodes[node])
    edges[edge] = replace(edges[edge], multiplier=multiplier)
    return replace(cell, nodes=(*cell.nodes[:node], tuple(edges), *cell.nodes[node + 1 :]))


def _edge_places(cell: Cell) -> list[tuple[tuple[int, int, str], str]]:
    """Of every edge: its node, source and operation, and where the network keeps its module."""
    return [
        ((at_node, edge.source, edge.operation), f"{at_node}.{at_edge}")
        for at_node, node in enumerate(cell.nodes)
        for at_edge, edge in enumerate(node)
    ]
