"""NAS-Bench-201 in small: a cell of few edges, of which a table of trained networks exists.

Nothing here imports torch before a network is built.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spaces.bench.architecture import (
    CONVOLUTIONS,
    LARGEST_CELL,
    OPERATION_NAMES,
    POOL,
    SKIP,
    BenchArchitecture,
    BenchEdge,
    from_nasbench201,
    places,
)
from spaces.bench.mutation import mutate
from spaces.errors import InputError, suggest
from spaces.multipliers.catalogue import EXACT_SIGNED, power_ratio
from spaces.multipliers.multiplier import Multiplier, error_metrics
from spaces.shape import NetworkShape
from spaces.space import Choice, DifferentiableSpace, Edge, Keep

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from spaces.arithmetic.factory import FixedLayers
    from spaces.bench.building import Traced
    from spaces.bench.network import BenchNetwork
    from spaces.bench.supernet import BenchSupernet, ExpectedBenchCost
    from spaces.costs.model import CostModel
    from spaces.costs.trace import LayerCost

CHOICES = ("edge", "network")
MOST_KEPT = 10_000  # architectures that were drawn


@dataclass(frozen=True)
class BenchConfig:
    """Settings of the bench space."""

    nodes: int = 3
    """Nodes per cell, input and output included: 3 have three edges, 4 have six."""
    pooling: bool = False
    """Offer average pooling as well."""
    sites: Literal["edges", "nodes"] = "edges"
    """Where multipliers are chosen: for every edge, or one for all edges into a node."""

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= LARGEST_CELL:
            raise InputError(f"a bench cell has 2 to {LARGEST_CELL} nodes, not {self.nodes}")


class BenchSpace(DifferentiableSpace):
    """Networks of one cell, repeated, whose every edge skips, pools or convolves on a multiplier from ``library``.

    ``choice`` "network" takes one multiplier for all edges. Stem, transitions and classifier compute on the library's most
    accurate multiplier: they are a small part of the cost, and the same for all networks.
    """

    name = "bench"
    Config = BenchConfig
    small = BenchConfig()
    architecture_type = BenchArchitecture
    scopes = ("all",)
    operation_names = OPERATION_NAMES

    def __init__(
        self,
        library: Sequence[Multiplier],
        config: BenchConfig = BenchConfig(),  # frozen
        scope: str = "all",
        choice: str = "edge",
    ) -> None:
        if scope not in self.scopes:
            raise suggest(scope, self.scopes, "scope of a bench space")
        if choice not in CHOICES:
            raise suggest(choice, CHOICES, "multiplier choice of a bench space")
        self.library, self.config, self.scope, self.choice = tuple(library), config, scope, choice
        self.nodes = config.nodes
        self.operations = tuple(name for name in OPERATION_NAMES if name != POOL or config.pooling)
        self.outer = min(library, key=lambda each: error_metrics(each).mre_pct)
        self._multipliers = {multiplier.name: multiplier for multiplier in library}
        self._edges = places(config.nodes)
        self._built: dict[tuple[tuple[int, ...], tuple[int, ...]], BenchArchitecture] = {}  # their keys take time
        self._traced: Traced = {}
        if choice == "network":
            self.ties = [0] * len(self._edges)
        elif config.sites == "nodes":
            self.ties = [node - 1 for _, node in self._edges]
        else:
            self.ties = list(range(len(self._edges)))

    @classmethod
    def config_of(cls, architecture: BenchArchitecture) -> BenchConfig:
        return BenchConfig(architecture.nodes, any(edge.operation == POOL for edge in architecture.edges))

    @classmethod
    def from_literature(cls, data: object) -> BenchArchitecture | None:
        if isinstance(data, str) and data.lstrip().startswith("|"):
            return from_nasbench201(data, EXACT_SIGNED)
        return None

    @classmethod
    def edges(cls, architecture: BenchArchitecture) -> list[Edge]:
        return [
            Edge(f"node {node}", f"node {source}" if source else "cell input", edge.operation, edge.multiplier or "")
            for (source, node), edge in zip(places(architecture.nodes), architecture.edges)
        ]

    @classmethod
    def draw(cls, architecture: BenchArchitecture) -> "Figure":
        from spaces.bench.drawing import draw  # matplotlib takes a second to import

        return draw(architecture)

    @functools.cached_property
    def sites(self) -> tuple[str, ...]:
        if self.choice == "network":
            return ("network",)
        if self.config.sites == "nodes":
            return tuple(f"into node {node}" for node in range(1, self.nodes))
        return tuple(f"{source} to {node}" for source, node in self._edges)

    # -- sampling and mutation ---------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> BenchArchitecture:
        """A uniform draw of an operation for every edge and a multiplier for every site."""
        operations = rng.integers(len(self.operations), size=len(self._edges))
        multipliers = rng.integers(len(self.library), size=len(self.sites))
        genes = tuple(operations.tolist()), tuple(multipliers.tolist())
        if genes not in self._built:
            if len(self._built) >= MOST_KEPT:
                self._built.clear()
            self._built[genes] = self._architecture(*genes)
        return self._built[genes]

    def decisions(self) -> dict[str, tuple[str, ...]]:
        library = tuple(multiplier.name for multiplier in self.library)
        edges = (f"operation, {source} to {node}" for source, node in self._edges)
        sites = (f"multiplier, {site}" for site in self.sites)
        return {**dict.fromkeys(edges, self.operations), **dict.fromkeys(sites, library)}

    def decided(self, taken: Mapping[str, str]) -> BenchArchitecture:
        rows = [options.index(taken[name]) for name, options in self.decisions().items()]
        return self._architecture(rows[: len(self._edges)], rows[len(self._edges) :])

    def _architecture(self, operations: Sequence[int], multipliers: Sequence[int]) -> BenchArchitecture:
        edges = (
            BenchEdge(self.operations[operation], self.library[multipliers[site]].name)
            for operation, site in zip(operations, self.ties)
        )
        return BenchArchitecture(tuple(edges), self.outer.name)

    def mutate(self, architecture: BenchArchitecture, rng: np.random.Generator) -> BenchArchitecture:
        """A neighbour with another key: one operation or the multiplier of one site differs.

        Raises InputError where the space has a single architecture only.
        """
        library = [multiplier.name for multiplier in self.library]
        return mutate(architecture, rng, self.operations, self.ties, library)

    def on_multiplier(self, architecture: BenchArchitecture, name: str) -> BenchArchitecture:
        """Around the cells nothing is chosen."""
        return replace(architecture.with_multiplier(name, self.scope), outer=self.outer.name)

    def reference(self) -> BenchArchitecture:
        """3×3 convolutions everywhere, on the multiplier of the highest power."""
        name = max(self.library, key=power_ratio).name
        return BenchArchitecture((BenchEdge(CONVOLUTIONS[-1], name),) * len(self._edges), self.outer.name)

    def every(self) -> Iterator[BenchArchitecture]:
        """All its networks, one for every key; of large spaces there are more than anybody wants to list."""
        found: set[str] = set()
        sites = len(self.sites)
        for index in np.ndindex(*[len(self.operations)] * len(self._edges), *[len(self.library)] * sites):
            architecture = self._architecture(index[: len(self._edges)], index[len(self._edges) :])
            if architecture.key not in found:
                found.add(architecture.key)
                yield architecture

    # -- searching by gradient ---------------------------------------------------------------------------------------

    def choices(self, shape: NetworkShape) -> dict[str, Choice]:
        """α: the operations of every edge. β: the multiplier of every site. All cells share them."""
        library = tuple(multiplier.name for multiplier in self.library)
        edges, ties = np.arange(len(self._edges)), np.array(self.ties)
        return {
            "alpha": Choice(self.operations, {"edges": np.tile(edges, (shape.cells, 1))}),
            "beta": Choice(library, {"edges": np.tile(ties, (shape.cells, 1))}, multipliers=True),
        }

    def supernet(self, shape: NetworkShape, choices: Mapping[str, Choice], partial: int = 1) -> "BenchSupernet":
        from spaces.bench.supernet import BenchSupernet

        return BenchSupernet(self.library, self.outer, self.nodes, shape, choices, partial)

    def expected_cost(
        self, shape: NetworkShape, choices: Mapping[str, Choice], model: "CostModel", device: "torch.device"
    ) -> "ExpectedBenchCost":
        from spaces.bench.supernet import ExpectedBenchCost

        return ExpectedBenchCost(self.library, self.outer, self.nodes, shape, choices, model, device)

    def derive(
        self,
        scores: Mapping[str, np.ndarray],
        choices: Mapping[str, Choice],
        keep: Keep | None = None,  # noqa: ARG002
    ) -> BenchArchitecture:
        """The likeliest operation of every edge, on the likeliest multiplier of its site; the first cell's, as all share it.

        No edge is left out: operations are that may be "none".
        """
        rows = {name: choices[name].rows["edges"][0] for name in ("alpha", "beta")}
        operations = scores["alpha"][rows["alpha"]].argmax(axis=1)
        multipliers = scores["beta"][rows["beta"]].argmax(axis=1)
        edges = (
            BenchEdge(choices["alpha"].options[operation], choices["beta"].options[multiplier])
            for operation, multiplier in zip(operations.tolist(), multipliers.tolist())
        )
        return BenchArchitecture(tuple(edges), self.outer.name)

    def chosen(self, architecture: BenchArchitecture, choices: Mapping[str, Choice]) -> dict[str, np.ndarray]:
        """1 for the operation of every edge and the multiplier of every site that has one."""
        found = {name: np.zeros((choice.count, len(choice.options))) for name, choice in choices.items()}
        for cell in range(len(choices["alpha"].rows["edges"])):
            for at, edge in enumerate(architecture.edges):
                for name, option in (("alpha", edge.operation), ("beta", edge.multiplier)):
                    if option:
                        found[name][choices[name].rows["edges"][cell, at], choices[name].options.index(option)] = 1
        return found

    def diagnostics(self, architecture: BenchArchitecture) -> dict[str, float]:
        """How many edges skip, which is how a search by gradient collapses."""
        return {"skips": sum(edge.operation == SKIP for edge in architecture.edges)}

    # -- building ----------------------------------------------------------------------------------------------------

    def from_json(self, data: Any) -> BenchArchitecture:
        """Raises InputError for anything but an architecture with a cell of this size and operations."""
        architecture = BenchArchitecture.from_json(data)
        if architecture.nodes != self.nodes:
            raise InputError(f"this bench space has cells of {self.nodes} nodes, not {architecture.nodes}")
        for edge in architecture.edges:
            if edge.operation not in self.operations:
                raise suggest(edge.operation, self.operations, "operation in this bench space")
        return architecture

    def build(
        self, architecture: BenchArchitecture, shape: NetworkShape, arithmetic: str = "approximate"
    ) -> "BenchNetwork":
        """Raises InputError for a multiplier outside the library and for a network without cells or channels."""
        from spaces.arithmetic.arithmetics import ARITHMETICS
        from spaces.arithmetic.factory import FixedLayers
        from spaces.bench.network import build

        ARITHMETICS[arithmetic]  # an unknown one is refused
        if shape.channels < 1 or shape.cells < 1:
            raise InputError("a bench network needs at least one cell and one channel")

        def layers(name: str) -> "FixedLayers":
            return FixedLayers(arithmetic, self._multiplier(name) if name else None)

        return build(architecture, shape, layers)

    def costs(self, architecture: BenchArchitecture, shape: NetworkShape) -> "list[LayerCost]":
        """The cost rows of one inference, traced on the ``meta`` device: no arithmetic is done.

        Networks that differ in multipliers alone are traced once.
        """
        from spaces.bench.building import costs

        def build() -> "BenchNetwork":
            return self.build(architecture, shape, "fp32")

        return costs(architecture, shape, self._multiplier, build, self._traced)

    def inherited(self, child: BenchArchitecture, parent: BenchArchitecture, shape: NetworkShape) -> dict[str, str]:
        """Operations of the same kind that read alike, whatever their multiplier, and all outside the cells."""
        from spaces.bench.building import inherited

        return inherited(child, parent, shape)

    def _multiplier(self, name: str) -> Multiplier:
        if name not in self._multipliers:
            raise suggest(name, self._multipliers, "multiplier in this library")
        return self._multipliers[name]
