"""An architecture of the bench space: one operation and one multiplier for every edge of a small cell.

The cell is that of NAS-Bench-201 (Dong, Yang, ICLR 2020): node j is the sum of one edge from every earlier node, node 0 is
the cell's input and the last node its output. As "none" is no operation here, every edge counts.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from spaces.errors import InputError, suggest

SKIP, POOL = "skip_connect", "avg_pool_3x3"
CONVOLUTIONS = ("conv_1x1", "conv_3x3")
OPERATION_NAMES = (SKIP, POOL, *CONVOLUTIONS)
LARGEST_CELL = 6  # nodes; 15 edges


class BenchEdge(NamedTuple):
    """What an edge does; only convolutions have a multiplier."""

    operation: str
    multiplier: str | None = None


class Step(NamedTuple):
    """An operation that is carried out: it reads the sum of some maps, 0 being the cell's input and n the nth step's."""

    operation: str
    multiplier: str  # "" where nothing is multiplied
    reads: tuple[int, ...]


class Program(NamedTuple):
    """What a cell computes, in one form for all cells that compute the same: skips are gone, and orders are fixed."""

    steps: tuple[Step, ...]
    output: tuple[int, ...]  # maps whose sum leaves the cell; one may count twice


def places(nodes: int) -> list[tuple[int, int]]:
    """(from, to) of every edge of a cell, in the order in which architectures list them."""
    return [(source, node) for node in range(1, nodes) for source in range(node)]


@dataclass(frozen=True)
class BenchArchitecture:
    """Edges in the order of ``places``, the same in every cell; ``outer`` is the multiplier of everything around the cells.

    Cells that compute the same have the same key: an edge that skips leaves no trace of how it is wired.
    """

    space: ClassVar[str] = "bench"
    scope: ClassVar[str] = "all"

    edges: tuple[BenchEdge, ...]
    outer: str

    def __post_init__(self) -> None:
        if len(self.edges) not in (len(places(nodes)) for nodes in range(2, LARGEST_CELL + 1)):
            raise InputError(f"a bench cell has 1, 3, 6, 10 or 15 edges, not {len(self.edges)}")
        if not isinstance(self.outer, str):
            raise InputError("what is around the cells of a bench architecture needs a multiplier")
        object.__setattr__(self, "edges", tuple(_canonical(edge) for edge in self.edges))

    @property
    def nodes(self) -> int:
        """Of its cell, input and output included."""
        return next(nodes for nodes in range(2, LARGEST_CELL + 1) if len(places(nodes)) == len(self.edges))

    @property
    def program(self) -> Program:
        """What its cell computes."""
        return _program(self.edges)

    @cached_property
    def key(self) -> str:
        """SHA-256 of what it computes, and on which multipliers."""
        return hashlib.sha256(json.dumps(["bench", self.program, self.outer]).encode()).hexdigest()

    @property
    def multipliers(self) -> tuple[str, ...]:
        """The names of the multipliers, each once, in the order of the network."""
        return tuple(dict.fromkeys([self.outer, *(edge.multiplier for edge in self.edges if edge.multiplier)]))

    def with_multiplier(self, name: str, scope: str) -> "BenchArchitecture":
        """The same network with one multiplier everywhere."""
        edges = tuple(BenchEdge(edge.operation, name if edge.multiplier else None) for edge in self.edges)
        return BenchArchitecture(edges, name).with_scope(scope)

    def with_scope(self, scope: str) -> "BenchArchitecture":
        """The same network; raises InputError for another scope than all."""
        if scope != "all":
            raise InputError(f"the multipliers of a bench architecture govern all, not {scope}")
        return self

    def with_edge(self, at: int, edge: BenchEdge) -> "BenchArchitecture":
        """The same network with another edge in this place."""
        return replace(self, edges=(*self.edges[:at], edge, *self.edges[at + 1 :]))

    def to_json(self) -> dict[str, Any]:
        return {"space": "bench", "outer": self.outer, "edges": [list(edge) for edge in self.edges]}

    @classmethod
    def from_json(cls, data: Any) -> "BenchArchitecture":
        """The inverse of ``to_json``; raises InputError for anything else."""
        try:
            if data["space"] != "bench":
                raise InputError(f"not an architecture of the bench space but of '{data['space']}'")
            return cls(tuple(BenchEdge(*edge) for edge in data["edges"]), data["outer"])
        except (TypeError, KeyError) as error:
            raise InputError(f"not a bench architecture: {type(error).__name__} {error}") from None

    def short(self) -> str:
        """A line for people, in the manner of NAS-Bench-201: the edges into every node."""
        texts = [
            f"{e.operation}·{e.multiplier.removeprefix('mul8s_')}" if e.multiplier else e.operation for e in self.edges
        ]
        into = (
            " ".join(f"{text}~{source}" for text, (source, to) in zip(texts, places(self.nodes)) if to == node)
            for node in range(1, self.nodes)
        )
        return f"{self.key[:8]}  {' | '.join(into)}"


def _canonical(edge: BenchEdge) -> BenchEdge:
    if edge.operation not in OPERATION_NAMES:
        raise suggest(str(edge.operation), OPERATION_NAMES, "operation")
    if edge.operation not in CONVOLUTIONS:
        return BenchEdge(edge.operation)
    if not isinstance(edge.multiplier, str) or not edge.multiplier:
        raise InputError(f"{edge.operation} needs a multiplier")
    return edge


def from_nasbench201(text: str, multiplier: str) -> BenchArchitecture:
    """A cell as NAS-Bench-201 writes it, ``|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|…|``, on one multiplier.

    Raises InputError for anything else, and for the operation none, which is not in this space.
    """
    nodes = [node.strip().strip("|").split("|") for node in text.strip().split("+")]
    found: dict[tuple[int, int], BenchEdge] = {}
    for node, edges in enumerate(nodes, 1):
        for edge in edges:
            operation, _, source = edge.strip().partition("~")
            name = operation.removeprefix("nor_")
            if name not in OPERATION_NAMES:
                raise suggest(operation, [*(f"nor_{name}" for name in CONVOLUTIONS), SKIP, POOL], "operation")
            if source not in map(str, range(node)) or (int(source), node) in found:
                raise InputError(f"node {node} of '{text[:80]}' needs one edge from each of 0 to {node - 1}")
            found[int(source), node] = BenchEdge(name, multiplier)
    if len(nodes) >= LARGEST_CELL or sorted(found) != sorted(places(len(nodes) + 1)):
        raise InputError(f"'{text[:80]}' is no cell of NAS-Bench-201 with an edge from every node to every later one")
    return BenchArchitecture(tuple(found[place] for place in places(len(nodes) + 1)), multiplier)


@functools.lru_cache(maxsize=100_000)
def _program(edges: tuple[BenchEdge, ...]) -> Program:
    """Of all orders of the steps in which what reads comes after what is read, that of the smallest description."""
    nodes = next(nodes for nodes in range(2, LARGEST_CELL + 1) if len(places(nodes)) == len(edges))
    steps: list[Step] = []
    sums: dict[int, list[int]] = {0: [0]}  # of every node: the maps that it is the sum of
    for (source, node), edge in zip(places(nodes), edges):
        into = sums.setdefault(node, [])
        if edge.operation == SKIP:
            into += sums[source]
        else:
            steps.append(Step(edge.operation, edge.multiplier or "", tuple(sums[source])))
            into.append(len(steps))
    alike: dict[str, list[int]] = {}  # steps that look the same as far as they can be told by what they read
    described = _descriptions(steps)
    for at in sorted(range(len(steps)), key=lambda at: described[at]):
        alike.setdefault(described[at], []).append(at)
    orders = itertools.product(*(itertools.permutations(group) for group in alike.values()))
    return min(_renumbered(steps, sums[nodes - 1], [at for group in order for at in group]) for order in orders)


def _descriptions(steps: Sequence[Step]) -> list[str]:
    """Of every step: what it is, and all that it depends on; what depends on more sorts later."""
    texts, depths = [""], [0]
    for step in steps:
        depth = 1 + max(depths[at] for at in step.reads)
        texts.append(f"{depth}({step.operation} {step.multiplier} {sorted(texts[at] for at in step.reads)})")
        depths.append(depth)
    return texts[1:]


def _renumbered(steps: Sequence[Step], output: Sequence[int], order: Sequence[int]) -> Program:
    number = {0: 0} | {at + 1: position for position, at in enumerate(order, 1)}
    moved = (steps[at]._replace(reads=tuple(sorted(number[read] for read in steps[at].reads))) for at in order)
    return Program(tuple(moved), tuple(sorted(number[at] for at in output)))
