"""Cell spaces and what holds for their cells."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import strategies as st

from spaces.cells.architecture import OPERATION_NAMES, Cell, CellArchitecture, Edge
from spaces.cells.building import expand_cells
from spaces.cells.sites import CellConfig
from spaces.cells.space import CellSpace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape

NAMES = ("mul8s_1KV8", "mul8s_1KVL", "mul8s_1L2D")
LIBRARY = catalogue.library(NAMES)
EXACT, ROUGH, CHEAP = NAMES
SHAPE = NetworkShape(channels=2, cells=3, classes=5, input_shape=(3, 8, 8))
CHOICES, SCOPES = ("edge", "cell", "network"), ("all", "separable")
every_space = pytest.mark.parametrize(
    ("choice", "scope"), list(itertools.product(CHOICES, SCOPES)), ids=lambda value: value
)
seeds = st.integers(0, 2**32 - 1)


def space_of(choice: str = "edge", scope: str = "all", nodes: int = 4) -> CellSpace:
    return CellSpace(LIBRARY, CellConfig(nodes), scope=scope, choice=choice)


def edges_of(cell: Cell) -> list[Edge]:
    return [edge for node in cell.nodes for edge in node]


def multipliers_of(cell: Cell) -> set[str]:
    """The circuits that govern something in a cell."""
    return {name for name in [cell.multiplier, *(edge.multiplier for edge in edges_of(cell))] if name is not None}


def assert_ties(architecture: CellArchitecture, choice: str) -> None:
    if choice == "cell":
        assert all(len(multipliers_of(cell)) <= 1 for cell in architecture.cells)
    if choice == "network":
        everywhere = set().union(*map(multipliers_of, architecture.cells), {architecture.multiplier} - {None})
        assert len(everywhere) <= 1


def assert_valid(architecture: CellArchitecture, nodes: int) -> None:
    """The rules of the space, written out again."""
    for cell in architecture.cells:
        assert len(cell.nodes) == nodes
        for index, (first, second) in enumerate(cell.nodes):
            assert 0 <= first.source < second.source < index + 2
            for edge in (first, second):
                assert edge.operation in OPERATION_NAMES and edge.operation != "none"
                halved_skip = edge.operation == "skip_connect" and cell.reduction and edge.source < 2
                governed = "conv" in edge.operation or (architecture.scope == "all" and halved_skip)
                assert (edge.multiplier in NAMES) if governed else (edge.multiplier is None)
        assert (cell.multiplier in NAMES) if architecture.scope == "all" else (cell.multiplier is None)
    assert (architecture.multiplier in NAMES) if architecture.scope == "all" else (architecture.multiplier is None)


def uneven(architecture: CellArchitecture) -> CellArchitecture:
    """With one edge in the first node and three in the second of every cell, and with the multipliers that it has."""
    cells = []
    for cell in architecture.cells:
        (first, _), second, *others = cell.nodes
        (free,) = {0, 1, 2} - {edge.source for edge in second}
        name = min(multipliers_of(cell), default=None)
        added = Edge(free, "dil_conv_3x3" if name else "avg_pool_3x3", name)
        cells.append(replace(cell, nodes=((first,), (*second, added), *others)))
    return replace(architecture, cells=tuple(cells))


def per_position(architecture: CellArchitecture, depth: int) -> CellArchitecture:
    return replace(architecture, cells=tuple(expand_cells(architecture.cells, depth)))
