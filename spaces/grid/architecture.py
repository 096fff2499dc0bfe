"""A network as the genotype of Cartesian genetic programming (Miller & Thomson, EuroGP 2000), as frozen data.

Node functions are those of CGP-CNN (Suganuma, Shirakawa, Nagao, GECCO 2017), with one width and one kernel more, and a
multiplier for every block that multiplies.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from spaces.errors import InputError, suggest
from spaces.grid.canonical import canonical_order

WIDTHS = (16, 32, 64, 128)  # output channels of a block in a network of 16 initial channels; others scale with it
KERNELS = (3, 5)
BLOCKS = tuple(f"{kind}_{k}x{k}_{width}" for kind in ("conv", "res") for k in KERNELS for width in WIDTHS)
POOLS = ("max_pool", "avg_pool")
MERGES = ("sum", "concat")
FUNCTIONS = (*BLOCKS, *POOLS, *MERGES)
IMAGE = 0  # the source that is no node


def arity(function: str) -> int:
    """How many of a node's two sources its function reads."""
    return 2 if function in MERGES else 1


@dataclass(frozen=True)
class GridNode:
    """The genes of one node. ``sources`` are 0 for the image, or 1 + the index of a node."""

    function: str
    multiplier: str
    sources: tuple[int, int]

    @property
    def reads(self) -> tuple[int, ...]:
        """The sources that count."""
        return self.sources[: arity(self.function)]


@dataclass(frozen=True)
class ActiveNode:
    """A node of the network itself. ``sources`` are 0 for the image, or 1 + the index of an active node before it."""

    function: str
    multiplier: str | None  # None where nothing is multiplied
    sources: tuple[int, ...]
    position: int  # of its genes among the genotype's nodes


@dataclass(frozen=True)
class GridArchitecture:
    """``rows`` × ``columns`` nodes, listed column by column, one of which is the ``output``.

    A node reads from the ``levels_back`` columns before its own; the image counts as the column before the first.
    ``multiplier`` is the classifier's. All genes are kept, those of nodes without a path to the output, too, because
    evolution drifts through them; ``key`` knows the active nodes only.
    """

    space: ClassVar[str] = "grid"
    scope: ClassVar[str] = "all"  # multipliers always govern every convolution and the classifier

    rows: int
    columns: int
    levels_back: int
    nodes: tuple[GridNode, ...]
    output: int  # 1 + the index of a node
    multiplier: str

    def __post_init__(self) -> None:
        check_grid(self.rows, self.columns, self.levels_back)
        if len(self.nodes) != self.rows * self.columns:
            raise InputError(f"a grid of {self.rows}×{self.columns} needs as many nodes, not {len(self.nodes)}")
        for index, node in enumerate(self.nodes):
            if node.function not in FUNCTIONS:
                raise suggest(str(node.function), FUNCTIONS, "function")
            if not isinstance(node.multiplier, str):
                raise InputError(f"node {index} needs the name of a multiplier")
            allowed = sources_of(index // self.rows, self.rows, self.levels_back)
            if len(node.sources) != 2 or not all(type(s) is int and s in allowed for s in node.sources):
                raise InputError(f"node {index} cannot read {node.sources}; its sources are {_span(allowed)}")
        last = outputs_of(self.rows, self.columns, self.levels_back)
        if type(self.output) is not int or self.output not in last:
            raise InputError(f"the output cannot be {self.output}; it is one of {_span(last)}")
        if not isinstance(self.multiplier, str):
            raise InputError("the classifier needs the name of a multiplier")

    @cached_property
    def active(self) -> tuple[ActiveNode, ...]:
        """The nodes with a path to the output in canonical order, the output itself last."""
        used: set[int] = set()
        waiting = [self.output]
        while waiting:
            node = waiting.pop()
            if node != IMAGE and node not in used:
                used.add(node)
                waiting += self.nodes[node - 1].reads
        members = [IMAGE, *sorted(used)]
        at = {node: place for place, node in enumerate(members)}
        labels = [""] + [f"{self._label(node)}{' output' if node == self.output else ''}" for node in members[1:]]
        sources: list[list[int]] = [[]] + [
            [at[source] for source in self.nodes[node - 1].reads] for node in members[1:]
        ]
        order = canonical_order(labels, sources)
        rank = {place: number for number, place in enumerate(order)}
        # The image comes first in this order: it reads nothing, and its label is the smallest.
        return tuple(
            ActiveNode(
                self.nodes[members[place] - 1].function,
                self._governing(members[place]),
                tuple(sorted(rank[source] for source in sources[place])),
                members[place] - 1,
            )
            for place in order
            if place != 0
        )

    def _governing(self, node: int) -> str | None:
        genes = self.nodes[node - 1]
        return genes.multiplier if genes.function in BLOCKS else None

    def _label(self, node: int) -> str:
        return f"{self.nodes[node - 1].function} {self._governing(node)}"

    @cached_property
    def key(self) -> str:
        """SHA-256 of the active nodes in canonical form: equal for equal networks, whatever else the genes say."""
        graph = [[node.function, node.multiplier, list(node.sources)] for node in self.active]
        return hashlib.sha256(json.dumps(["grid", self.multiplier, graph]).encode()).hexdigest()

    @property
    def multipliers(self) -> tuple[str, ...]:
        """The names of the multipliers that count, each once, in the order of the network."""
        names = [*(node.multiplier for node in self.active), self.multiplier]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def with_multiplier(self, name: str, scope: str = "all") -> "GridArchitecture":
        """The same network with one multiplier everywhere."""
        check_scope(scope)
        return replace(self, nodes=tuple(replace(node, multiplier=name) for node in self.nodes), multiplier=name)

    def with_scope(self, scope: str) -> "GridArchitecture":
        """The same network. Raises InputError for another scope than "all"."""
        check_scope(scope)
        return self

    def to_json(self) -> dict[str, Any]:
        return {
            "space": "grid",
            "rows": self.rows,
            "columns": self.columns,
            "levels_back": self.levels_back,
            "nodes": [[node.function, node.multiplier, *node.sources] for node in self.nodes],
            "output": self.output,
            "multiplier": self.multiplier,
        }

    @classmethod
    def from_json(cls, data: Any) -> "GridArchitecture":
        """The inverse of ``to_json``; raises InputError for anything else."""
        try:
            if data["space"] != "grid":
                raise InputError(f"not an architecture of the grid space but of '{data['space']}'")
            nodes = tuple(GridNode(function, name, (a, b)) for function, name, a, b in data["nodes"])
            size = (data["rows"], data["columns"], data["levels_back"])
            return cls(*size, nodes, data["output"], data["multiplier"])
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"not a grid architecture: {type(error).__name__} {error}") from None

    def short(self) -> str:
        """A line for people: functions and circuits of the active nodes, most frequent first, and the key's start."""
        multipliers = [node.multiplier.removeprefix("mul8s_") for node in self.active if node.multiplier]
        parts = (_counted([node.function for node in self.active]), _counted(multipliers))
        return f"{self.key[:8]}  {' | '.join(filter(None, parts))}"


def check_grid(rows: int, columns: int, levels_back: int) -> None:
    """Raises InputError for a grid that cannot be."""
    if not all(type(number) is int for number in (rows, columns, levels_back)):
        raise InputError("a grid's rows, columns and levels-back must be whole numbers")
    if rows < 1 or columns < 1:
        raise InputError(f"a grid needs at least one row and one column, not {rows}×{columns}")
    if not 1 <= levels_back <= columns:
        raise InputError(f"levels-back must lie between 1 and the number of columns ({columns}), not {levels_back}")


def check_scope(scope: str) -> None:
    """Raises InputError for what multipliers of a grid cannot govern."""
    if scope != "all":
        raise InputError(f"a grid has no separable convolutions; its scope is all, not {scope}")


def sources_of(column: int, rows: int, levels_back: int) -> list[int]:
    """What a node in ``column`` may read: 0 for the image where it is near enough, and 1 + the index of nodes."""
    first = max(0, column - levels_back)
    nodes = range(1 + first * rows, 1 + column * rows)
    return [*([IMAGE] if column < levels_back else []), *nodes]


def outputs_of(rows: int, columns: int, levels_back: int) -> list[int]:
    """The nodes that may be the output: those that a node behind the last column could read."""
    return sources_of(columns, rows, levels_back)


def _span(allowed: list[int]) -> str:
    return f"{allowed[0]} to {allowed[-1]}"


def _counted(names: list[str]) -> str:
    counts = {name: names.count(name) for name in names}
    return " ".join(f"{n}·{name}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
