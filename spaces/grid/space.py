"""Cartesian genetic programs: a grid of blocks, each with a multiplier, wired freely.

How genotypes are sampled and mutated. Nothing here imports torch before a network is built.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from spaces.errors import InputError, suggest
from spaces.grid.architecture import (
    BLOCKS,
    FUNCTIONS,
    IMAGE,
    GridArchitecture,
    GridNode,
    arity,
    check_grid,
    check_scope,
    outputs_of,
    sources_of,
)
from spaces.multipliers.catalogue import power_ratio
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape
from spaces.space import Edge, Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spaces.costs.trace import LayerCost
    from spaces.grid.network import GridNetwork

CHOICES = ("edge", "network")
MUTATION_RATE = 0.05  # probability of every gene to be drawn anew, as in CGP-CNN
LARGEST = (64, 256)  # rows, columns
_ATTEMPTS = 1000


@dataclass(frozen=True)
class GridConfig:
    """Settings of the grid space; the defaults are those of CGP-CNN."""

    rows: int = 5
    """Rows of the grid."""
    columns: int = 30
    """Columns of the grid."""
    levels_back: int = 10
    """Columns back from which a node may read."""

    def __post_init__(self) -> None:
        check_grid(self.rows, self.columns, self.levels_back)
        if self.rows > LARGEST[0] or self.columns > LARGEST[1]:
            raise InputError(
                f"a grid has at most {LARGEST[0]} rows and {LARGEST[1]} columns, not {self.rows}×{self.columns}"
            )


class GridSpace(Space):
    """Convolutional networks on a grid of ``rows`` × ``columns`` nodes, with multipliers from ``library``.

    ``choice`` says how finely multipliers are chosen: one for every node (called "edge", as in cells), or one for the
    whole "network". They always govern every convolution and the classifier.
    """

    name = "grid"
    Config = GridConfig
    small = GridConfig(rows=2, columns=6, levels_back=3)
    architecture_type = GridArchitecture
    scopes = ("all",)
    operation_names = FUNCTIONS

    def __init__(
        self,
        library: Sequence[Multiplier],
        config: GridConfig = GridConfig(),  # frozen
        scope: str = "all",
        choice: str = "edge",
    ) -> None:
        if choice not in CHOICES:
            raise InputError(f"multipliers of a grid are chosen per edge (node) or network, not per {choice}")
        check_scope(scope)
        self.library = tuple(library)
        self.config, self.scope, self.choice = config, scope, choice
        self.rows, self.columns, self.levels_back = config.rows, config.columns, config.levels_back
        self._multipliers = {multiplier.name: multiplier for multiplier in library}

    @classmethod
    def config_of(cls, architecture: GridArchitecture) -> GridConfig:
        return GridConfig(architecture.rows, architecture.columns, architecture.levels_back)

    @classmethod
    def edges(cls, architecture: GridArchitecture) -> list[Edge]:
        return [
            Edge(
                f"node {number}",
                ", ".join("image" if source == IMAGE else f"node {source}" for source in node.sources),
                node.function,
                node.multiplier or "",
            )
            for number, node in enumerate(architecture.active, 1)
        ]

    @classmethod
    def draw(cls, architecture: GridArchitecture) -> "Figure":
        from spaces.grid.drawing import draw  # matplotlib takes a second to import

        return draw(architecture)

    @cached_property
    def sites(self) -> tuple[str, ...]:
        if self.choice == "network":
            return ("network",)
        return (*(f"node {index}" for index in range(1, 1 + self.rows * self.columns)), "classifier")

    # -- sampling and mutation ---------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> GridArchitecture:
        """A uniform draw of every gene."""
        tied = self._draw_multiplier(rng) if self.choice == "network" else None
        nodes = tuple(
            GridNode(
                self._function(rng),
                tied or self._draw_multiplier(rng),
                (self._source(index, rng), self._source(index, rng)),
            )
            for index in range(self.rows * self.columns)
        )
        return self._architecture(nodes, self._output(rng), tied or self._draw_multiplier(rng))

    def decisions(self) -> dict[str, tuple[str, ...]]:
        library = tuple(multiplier.name for multiplier in self.library)
        found = {f"multiplier, {site}": library for site in self.sites}
        for index in range(self.rows * self.columns):
            sources = tuple(map(str, sources_of(index // self.rows, self.rows, self.levels_back)))
            found |= {f"node {1 + index}, function": FUNCTIONS}
            found |= {f"node {1 + index}, {which} source": sources for which in ("first", "second")}
        return found | {"output": tuple(map(str, outputs_of(self.rows, self.columns, self.levels_back)))}

    def decided(self, taken: Mapping[str, str]) -> GridArchitecture:
        tied = taken.get("multiplier, network")
        nodes = tuple(
            GridNode(
                taken[f"{node}, function"],
                tied or taken[f"multiplier, {node}"],
                (int(taken[f"{node}, first source"]), int(taken[f"{node}, second source"])),
            )
            for node in (f"node {1 + index}" for index in range(self.rows * self.columns))
        )
        return self._architecture(nodes, int(taken["output"]), tied or taken["multiplier, classifier"])

    def mutate(self, architecture: GridArchitecture, rng: np.random.Generator) -> GridArchitecture:
        """A neighbour with another key: genes are drawn anew at ``MUTATION_RATE`` until an active one has changed.

        Raises InputError where none is found.
        """
        child = architecture
        for _ in range(_ATTEMPTS):
            child = self._redraw(child, rng, active=True)
            if child.key != architecture.key:
                return child
        raise InputError("this architecture has no neighbour in the space")

    def drift(self, architecture: GridArchitecture, rng: np.random.Generator) -> GridArchitecture:
        """The same network with other inactive genes, drawn anew at ``MUTATION_RATE``: what later mutations switch on."""
        return self._redraw(architecture, rng, active=False)

    def _redraw(self, architecture: GridArchitecture, rng: np.random.Generator, active: bool) -> GridArchitecture:
        """Every gene drawn anew with ``MUTATION_RATE``; where ``active`` is false, only those that do not matter."""
        used = {node.position for node in architecture.active}
        hit = rng.random((len(architecture.nodes), 4)) < MUTATION_RATE
        nodes = list(architecture.nodes)
        for index in np.flatnonzero(hit.any(axis=1)).tolist():
            old, change = nodes[index], hit[index]
            if not active and index in used:  # its function and what that reads are the network itself
                change = change & [False, old.function not in BLOCKS, False, arity(old.function) == 1]
            function = self._function(rng) if change[0] else old.function
            multiplier = self._draw_multiplier(rng) if change[1] and self.choice == "edge" else old.multiplier
            first, second = (self._source(index, rng) if hit_ else s for s, hit_ in zip(old.sources, change[2:]))
            nodes[index] = GridNode(function, multiplier, (first, second))
        output, last = architecture.output, architecture.multiplier
        redrawn = rng.random(2) < MUTATION_RATE
        if active and redrawn[0]:
            output = self._output(rng)
        if active and redrawn[1]:
            last = self._draw_multiplier(rng)
            if self.choice == "network":
                nodes = [replace(node, multiplier=last) for node in nodes]
        return self._architecture(tuple(nodes), output, last)

    def _architecture(self, nodes: tuple[GridNode, ...], output: int, multiplier: str) -> GridArchitecture:
        return GridArchitecture(self.rows, self.columns, self.levels_back, nodes, output, multiplier)

    def _function(self, rng: np.random.Generator) -> str:
        return FUNCTIONS[int(rng.integers(len(FUNCTIONS)))]

    def _draw_multiplier(self, rng: np.random.Generator) -> str:
        return self.library[int(rng.integers(len(self.library)))].name

    def _source(self, index: int, rng: np.random.Generator) -> int:
        sources = sources_of(index // self.rows, self.rows, self.levels_back)
        return sources[int(rng.integers(len(sources)))]

    def _output(self, rng: np.random.Generator) -> int:
        last = outputs_of(self.rows, self.columns, self.levels_back)
        return last[int(rng.integers(len(last)))]

    def reference(self) -> GridArchitecture:
        """The network whose energy in exact int8 is the unit of hypervolumes; fixed, so that they can be compared.

        Three of the largest residual blocks, each followed by max pooling; more pooling in further columns.
        """
        multiplier = max(self.library, key=power_ratio).name
        nodes = []
        for index in range(self.rows * self.columns):
            column = index // self.rows
            before = IMAGE if column == 0 else 1 + (column - 1) * self.rows
            function = "res_5x5_128" if column in (0, 2, 4) else "max_pool"
            nodes.append(GridNode(function, multiplier, (before, before)))
        return self._architecture(tuple(nodes), 1 + (self.columns - 1) * self.rows, multiplier)

    # -- building ----------------------------------------------------------------------------------------------------

    def from_json(self, data: object) -> GridArchitecture:
        """Raises InputError for anything but an architecture of a grid of this size."""
        architecture = GridArchitecture.from_json(data)
        size = (architecture.rows, architecture.columns, architecture.levels_back)
        if size != (self.rows, self.columns, self.levels_back):
            raise InputError(
                f"an architecture of a grid of {size[0]}×{size[1]} with levels-back {size[2]} does not belong to one of "
                f"{self.rows}×{self.columns} with levels-back {self.levels_back}"
            )
        return architecture

    def build(
        self, architecture: GridArchitecture, shape: NetworkShape, arithmetic: str = "approximate"
    ) -> "GridNetwork":
        """Raises InputError for a multiplier outside the library and for a network without channels."""
        from spaces.arithmetic.arithmetics import ARITHMETICS
        from spaces.arithmetic.factory import FixedLayers
        from spaces.grid.network import GridNetwork

        ARITHMETICS[arithmetic]  # an unknown one is refused, whether or not anything is governed
        if shape.channels < 1:
            raise InputError(f"a network needs at least one initial channel, not {shape.channels}")

        def layers(name: str | None) -> "FixedLayers":
            return FixedLayers(arithmetic, None if name is None else self._multiplier(name))

        return GridNetwork(architecture.active, shape, layers, architecture.multiplier)

    def costs(self, architecture: GridArchitecture, shape: NetworkShape) -> "list[LayerCost]":
        """The cost rows of one inference, traced on the ``meta`` device: no arithmetic is done."""
        import torch

        from spaces.costs.trace import trace

        with torch.device("meta"):
            return trace(self.build(architecture, shape, "fp32"), shape.input_shape, integer=True)

    def inherited(self, child: GridArchitecture, parent: GridArchitecture, shape: NetworkShape) -> dict[str, str]:  # noqa: ARG002
        """Modules of the child's network → modules of the parent's whose weights they can start from.

        Those are active nodes at the same place of the grid with the same function, whatever their circuit or sources,
        and the classifier. A changed operand may come to stand after the other one in a concatenation: what reads that
        then inherits weights in another order of channels, and has to learn anew.
        """
        at = {(node.position, node.function): number for number, node in enumerate(parent.active)}
        pairs = ((number, at.get((node.position, node.function))) for number, node in enumerate(child.active))
        return {f"nodes.{mine}": f"nodes.{theirs}" for mine, theirs in pairs if theirs is not None} | {
            "classifier": "classifier"
        }

    def _multiplier(self, name: str) -> Multiplier:
        if name not in self._multipliers:
            raise suggest(name, self._multipliers, "multiplier in this library")
        return self._multipliers[name]
