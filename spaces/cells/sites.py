"""Where decisions are made in a cell space: its edges, the places with a multiplier of their own, its reduction cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spaces.cells.architecture import SCOPES
from spaces.errors import InputError, suggest
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

CHOICES = ("edge", "cell", "network")


@dataclass(frozen=True)
class CellConfig:
    """Settings of the cell space."""

    nodes: int = 4
    """Nodes per cell."""

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 64:
            raise InputError(f"a cell needs between 1 and 64 nodes, not {self.nodes}")


@dataclass(frozen=True)
class Ties:
    """Which row of the multipliers' choice governs an edge, the projections of a cell, and the rest, by type of cell."""

    edges: np.ndarray  # (2, E): normal, reduction
    cells: tuple[int, int] | None  # None where nothing outside the edges is governed (scope "separable")
    network: int | None
    count: int

    def names(self, edge_places: list[tuple[int, int]]) -> tuple[str, ...]:
        """Of every row: what it governs, or the first of it."""
        found: dict[int, str] = {}
        for kind, cell in enumerate(("normal", "reduction")):
            for row, (node, source) in zip(self.edges[kind].tolist(), edge_places):
                found.setdefault(row, f"{cell} cell, node {node} from {source}")
            if self.cells:
                found.setdefault(self.cells[kind], f"{cell} cell, projections")
        if self.network is not None:
            found.setdefault(self.network, "stem and classifier")
        return tuple(found[row] for row in range(self.count))


def tie(edges: int, scope: str, choice: str) -> Ties:
    """Rows for cells of so many ``edges`` where multipliers are chosen per edge, cell or network."""
    outside = scope == "all"
    if choice == "network":
        zeros = np.zeros((2, edges), dtype=int)
        return Ties(zeros, (0, 0) if outside else None, 0 if outside else None, 1)
    if choice == "cell":
        rows = np.repeat([[0], [1]], edges, axis=1)
        return Ties(rows, (0, 1) if outside else None, 2 if outside else None, 3 if outside else 2)
    rows = np.arange(2 * edges).reshape(2, edges)
    if not outside:
        return Ties(rows, None, None, 2 * edges)
    return Ties(rows, (2 * edges, 2 * edges + 1), 2 * edges + 2, 2 * edges + 3)


class CellSites:
    """The settings of a cell space, and what can be chosen where under them.

    ``choice`` says how finely multipliers are chosen: per "edge", per "cell" or one for the whole "network". ``scope``
    says what they govern (see ``CellArchitecture``).
    """

    def __init__(
        self,
        library: Sequence[Multiplier],
        config: CellConfig = CellConfig(),  # frozen
        scope: str = "all",
        choice: str = "edge",
    ) -> None:
        if scope not in SCOPES:
            raise suggest(scope, SCOPES, "scope")
        if choice not in CHOICES:
            raise suggest(choice, CHOICES, "multiplier choice")
        self.library = tuple(library)
        self.config, self.scope, self.choice = config, scope, choice
        self.nodes = config.nodes
        self._multipliers = {multiplier.name: multiplier for multiplier in library}
        # Edges in the order of DARTS: node by node, each from all its possible sources.
        self.edge_places = [(node, source) for node in range(self.nodes) for source in range(node + 2)]

    @cached_property
    def ties(self) -> Ties:
        """Where multipliers are chosen, and which choices are tied together."""
        return tie(len(self.edge_places), self.scope, self.choice)

    @property
    def sites(self) -> tuple[str, ...]:
        return self.ties.names(self.edge_places)

    def random_multiplier(self, rng: np.random.Generator) -> str:
        """A uniform draw from the library."""
        return self.library[int(rng.integers(len(self.library)))].name

    def multiplier(self, name: str) -> Multiplier:
        """The one of that name in the library. Raises InputError where there is none."""
        if name not in self._multipliers:
            raise suggest(name, self._multipliers, "multiplier in this library")
        return self._multipliers[name]


def reduction_positions(depth: int) -> tuple[int, int]:
    """The reduction cells sit at 1/3 and 2/3 of the depth."""
    return depth // 3, 2 * depth // 3


def kinds(depth: int) -> np.ndarray:
    """Of every position of a network: 0 for a normal cell, 1 for a reduction cell."""
    return np.array([int(position in reduction_positions(depth)) for position in range(depth)])


def check_shape(shape: NetworkShape) -> None:
    """Raises InputError for a shape that no cell network can have."""
    if shape.cells < 3:
        raise InputError(f"a cell network needs at least 3 cells (reductions at 1/3 and 2/3), not {shape.cells}")
    if shape.channels < 2 or shape.channels % 2:
        raise InputError(f"the initial channels must be an even number of at least 2, not {shape.channels}")
    size = shape.input_shape[1:]
    if min(size) < 4:
        raise InputError(f"images must be at least 4×4 pixels to be halved twice, not {size}")
