"""A cell architecture as frozen data with a lossless JSON form."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from spaces.errors import InputError, suggest

OPERATION_NAMES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CHOSEN_OPERATIONS = OPERATION_NAMES[1:]  # "none" exists in the supernet only, as in DARTS
SCOPES = ("all", "separable")


def is_separable(operation: str) -> bool:
    return operation.startswith(("sep_conv", "dil_conv"))


def stride_of(source: int, reduction: bool) -> int:
    """Edges from a cell's two inputs halve the resolution in a reduction cell."""
    return 2 if reduction and source < 2 else 1


@dataclass(frozen=True)
class Edge:
    """One input of a node: where it comes from (0 and 1 are the cell's inputs, then the nodes), and through what."""

    source: int
    operation: str
    multiplier: str | None


@dataclass(frozen=True)
class Cell:
    """Nodes in order, each the sum of one or more edges; ``multiplier`` governs the cell's two input projections."""

    nodes: tuple[tuple[Edge, ...], ...]
    reduction: bool
    multiplier: str | None

    def with_multiplier(self, name: str) -> "Cell":
        """The cell with one multiplier everywhere."""
        nodes = tuple(tuple(replace(edge, multiplier=name) for edge in node) for node in self.nodes)
        return replace(self, nodes=nodes, multiplier=name)


@dataclass(frozen=True)
class CellArchitecture:
    """Cells, and the multiplier of the stem and the classifier.

    ``cells`` is either (normal, reduction), repeated over the depth, or one cell per position. ``scope`` says what the
    multipliers govern: "all" convolutions and the classifier, or the "separable" convolutions alone, as in the published
    ApproxDARTS code. Construction brings it into canonical form: a multiplier that governs nothing becomes None and the
    edges of a node are sorted, so that equal networks are equal values with equal keys.
    """

    space: ClassVar[str] = "cells"

    cells: tuple[Cell, ...]
    multiplier: str | None
    scope: str = "all"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise suggest(str(self.scope), SCOPES, "scope")
        if len(self.cells) < 2:
            raise InputError(
                "a cell architecture has two cells (normal, reduction), or one per position of the network"
            )
        everything = self.scope == "all"
        if len({len(cell.nodes) for cell in self.cells}) > 1:
            raise InputError("all cells of an architecture need the same number of nodes")
        object.__setattr__(self, "cells", tuple(_canonical(cell, everything) for cell in self.cells))
        if not everything:
            object.__setattr__(self, "multiplier", None)
        elif not isinstance(self.multiplier, str):
            raise InputError("with scope 'all' the stem and the classifier need a multiplier")

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def multipliers(self) -> tuple[str, ...]:
        """The names of the multipliers, each once, in the order of the network."""
        names = [self.multiplier]
        for cell in self.cells:
            names += [cell.multiplier, *(edge.multiplier for node in cell.nodes for edge in node)]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def with_multiplier(self, name: str, scope: str) -> "CellArchitecture":
        """The same cells with one multiplier for everything that ``scope`` says it governs."""
        return CellArchitecture(tuple(cell.with_multiplier(name) for cell in self.cells), name, scope)

    def with_scope(self, scope: str) -> "CellArchitecture":
        """The same network where multipliers govern ``scope``. Raises InputError where one would be missing."""
        if scope == "all" and self.scope == "separable":
            raise InputError(
                "this architecture has multipliers for separable convolutions alone; --scope all needs --multiplier"
            )
        return replace(self, scope=scope)

    def to_json(self) -> dict[str, Any]:
        return {
            "space": "cells",
            "scope": self.scope,
            "multiplier": self.multiplier,
            "cells": [
                {
                    "reduction": cell.reduction,
                    "multiplier": cell.multiplier,
                    "nodes": [[[e.source, e.operation, e.multiplier] for e in node] for node in cell.nodes],
                }
                for cell in self.cells
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> "CellArchitecture":
        """The inverse of ``to_json``; raises InputError for anything else."""
        try:
            if data["space"] != "cells":
                raise InputError(f"not an architecture of the cell space but of '{data['space']}'")
            cells = tuple(
                Cell(
                    nodes=tuple(tuple(Edge(*edge) for edge in node) for node in cell["nodes"]),
                    reduction=cell["reduction"],
                    multiplier=cell["multiplier"],
                )
                for cell in data["cells"]
            )
            return cls(cells, data["multiplier"], data["scope"])
        except (TypeError, KeyError, IndexError) as error:
            raise InputError(f"not a cell architecture: {type(error).__name__} {error}") from None

    def short(self) -> str:
        """A line for people: operations and circuits, most frequent first, and the start of the key."""
        counts: dict[str, int] = {}
        multipliers: dict[str, int] = {}
        for cell in self.cells:
            for edge in (edge for node in cell.nodes for edge in node):
                counts[edge.operation] = counts.get(edge.operation, 0) + 1
                if edge.multiplier:
                    name = edge.multiplier.removeprefix("mul8s_")
                    multipliers[name] = multipliers.get(name, 0) + 1
        listed = (
            " ".join(f"{count}·{name}" for name, count in sorted(part.items(), key=lambda item: (-item[1], item[0])))
            for part in (counts, multipliers)
        )
        return f"{self.key[:8]}  {' | '.join(filter(None, listed))}"


def _canonical(cell: Cell, everything: bool) -> Cell:
    if not isinstance(cell.reduction, bool):
        raise InputError("a cell's 'reduction' must be true or false")
    if not cell.nodes:
        raise InputError("a cell needs at least one node")
    nodes = []
    for index, node in enumerate(cell.nodes):
        edges = tuple(_canonical_edge(edge, index, cell.reduction, everything) for edge in node)
        if not edges or len({edge.source for edge in edges}) != len(edges):
            raise InputError(f"node {index} must have edges: one or more, all from different sources")
        nodes.append(tuple(sorted(edges, key=lambda edge: edge.source)))
    if everything and not isinstance(cell.multiplier, str):
        raise InputError("with scope 'all' a cell's input projections need a multiplier")
    return Cell(tuple(nodes), cell.reduction, cell.multiplier if everything else None)


def _canonical_edge(edge: Edge, node: int, reduction: bool, everything: bool) -> Edge:
    if edge.operation not in CHOSEN_OPERATIONS:
        raise suggest(str(edge.operation), CHOSEN_OPERATIONS, "operation")
    if type(edge.source) is not int or not 0 <= edge.source < node + 2:
        raise InputError(f"node {node} cannot take its input from {edge.source}; its sources are 0 to {node + 1}")
    projects = everything and edge.operation == "skip_connect" and stride_of(edge.source, reduction) == 2
    if not (is_separable(edge.operation) or projects):
        return Edge(edge.source, edge.operation, None)
    if not isinstance(edge.multiplier, str):
        raise InputError(f"{edge.operation} from {edge.source} to node {node} needs a multiplier")
    return edge
