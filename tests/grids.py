"""Small grids, genotypes by hand, and what a test is repeated over."""

import numpy as np
import pytest
from hypothesis import strategies as st

from spaces.grid.architecture import GridArchitecture, GridNode
from spaces.grid.space import GridSpace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape

NAMES = ("mul8s_1KV8", "mul8s_1KVL", "mul8s_1L2D")
LIBRARY = catalogue.library(NAMES)
EXACT, ROUGH, CHEAP = NAMES
SHAPE = NetworkShape(channels=2, cells=1, classes=5, input_shape=(3, 8, 8))
GRIDS = [(1, 1, 1), (1, 5, 5), (1, 5, 1), *((3, 8, levels_back) for levels_back in range(1, 9)), (5, 30, 10)]
seeds = st.integers(0, 2**32 - 1)
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "{}x{}, {} back".format(*grid))
both_choices = pytest.mark.parametrize("choice", ["edge", "network"])


def gene(function: str, *sources: int, multiplier: str = ROUGH) -> GridNode:
    return GridNode(function, multiplier, (sources[0], sources[-1]))


def architecture_of(*nodes: GridNode, rows: int = 1, output: int = 0, multiplier: str = EXACT) -> GridArchitecture:
    """Every node may read all columns before its own; the last node is the output unless another is named."""
    columns = len(nodes) // rows
    return GridArchitecture(rows, columns, columns, nodes, output or len(nodes), multiplier)


def a_residual_merge() -> GridArchitecture:
    """A convolution and a pooled residual block, added. Node 2 leads nowhere."""
    return architecture_of(
        gene("conv_3x3_16", 0),
        gene("concat", 0, 1),
        gene("res_3x3_32", 0),
        gene("max_pool", 3),
        gene("sum", 1, 4),
    )


def multipliers_of(architecture: GridArchitecture) -> set[str]:
    return {architecture.multiplier, *(node.multiplier for node in architecture.nodes)}


def random_walk(space: GridSpace, rng: np.random.Generator, samples: int, steps: int) -> list[GridArchitecture]:
    """Samples, each with a chain of mutants."""
    found = []
    for _ in range(samples):
        found.append(space.sample(rng))
        for _ in range(steps):
            found.append(space.mutate(found[-1], rng))
    return found


def used_genes(architecture: GridArchitecture) -> dict[int, tuple[int, ...]]:
    """1 + the index of every node with a path to the output → the sources that it reads."""
    found: dict[int, tuple[int, ...]] = {}

    def visit(node: int) -> None:
        if node:
            genes = architecture.nodes[node - 1]
            found[node] = genes.sources if genes.function in ("sum", "concat") else genes.sources[:1]
            for source in found[node]:
                visit(source)

    visit(architecture.output)
    return found
