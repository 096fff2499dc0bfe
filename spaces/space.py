"""What a search space is: the protocols that methods, the harness and the reports see of one.

A space is one class, registered by name in ``spaces.registry``. Its class says what is true of every such space
(settings, the form of its architectures, published ones, drawings); an object of it, constructed as
``cls(library, config, scope=…, choice=…)``, is a space of given settings with the multipliers of ``library``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from spaces.encoding import hashed
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

if TYPE_CHECKING:  # a space tells its settings, reads architectures and draws without torch
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from spaces.costs.model import CostModel
    from spaces.costs.trace import LayerCost


class Architecture(Protocol):
    """A frozen value with a lossless JSON form, of which "space" names its space; equal networks have equal keys."""

    space: ClassVar[str]

    @property
    def key(self) -> str: ...

    @property
    def scope(self) -> str:
        """What its multipliers govern: one of its space's ``scopes``."""

    @property
    def multipliers(self) -> tuple[str, ...]:
        """The names of the multipliers that count, each once, in the order of the network."""

    def with_multiplier(self, name: str, scope: str) -> Self:
        """The same network with one multiplier for everything that ``scope`` governs."""

    def with_scope(self, scope: str) -> Self:
        """The same network where multipliers govern ``scope``. Raises InputError where one would be missing."""

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The inverse of ``to_json``, whatever the space's settings; raises InputError for anything else."""

    def short(self) -> str:
        """A line for people."""


class Edge(NamedTuple):
    """A line of the table that shows an architecture to people."""

    where: str
    source: str
    operation: str
    multiplier: str  # "" where nothing is multiplied


class Space(Protocol):
    """What can be built. Members with a body here are offers that a space may leave as they are."""

    name: ClassVar[str]
    Config: ClassVar[type]  # a frozen dataclass with a default for every field; each becomes a flag
    small: ClassVar[Any]  # a Config whose networks train in no time, for checks and tests
    architecture_type: ClassVar[type[Architecture]]
    scopes: ClassVar[tuple[str, ...]]  # what multipliers can govern
    operation_names: ClassVar[tuple[str, ...]]  # all that an edge or node can do, in the order of legends
    published: ClassVar[Mapping[str, Architecture]] = MappingProxyType({})  # of the literature, on exact multipliers

    library: tuple[Multiplier, ...]
    config: Any
    scope: str
    choice: str  # how finely multipliers are chosen

    def __init__(
        self, library: Sequence[Multiplier], config: Any, scope: str = "all", choice: str = "edge"
    ) -> None: ...

    # -- of the class ------------------------------------------------------------------------------------------------

    @classmethod
    def config_of(cls, architecture: Any) -> Any:
        """The settings of the smallest space that has the architecture."""

    @classmethod
    def from_literature(cls, data: object) -> Architecture | None:  # noqa: ARG003
        """An architecture in the form in which papers print it, on exact multipliers; None where ``data`` is not in it.

        Raises InputError where it is in that form, but damaged.
        """
        return None

    @classmethod
    def edges(cls, architecture: Any) -> list[Edge]:
        """The architecture as a table for people."""

    @classmethod
    def draw(cls, architecture: Any) -> "Figure":
        """The architecture as a graph; ``spaces.registry.save_drawing`` puts it into a file."""

    # -- of a space with its settings --------------------------------------------------------------------------------

    @property
    def sites(self) -> tuple[str, ...]:
        """The places with a multiplier of their own; what shares one is one place."""

    def sample(self, rng: np.random.Generator) -> Architecture: ...

    def mutate(self, architecture: Any, rng: np.random.Generator) -> Architecture:
        """A neighbour with another key. Raises InputError where there is none."""

    def drift(self, architecture: Any, rng: np.random.Generator) -> Architecture:  # noqa: ARG002
        """The same network, with other genes that have no effect on it."""
        return architecture

    def encode(self, architecture: Any) -> np.ndarray:
        """Numbers (features,) from which a model can predict; as many for every architecture of this space."""
        return hashed(self.edges(architecture), self.operation_names, [multiplier.name for multiplier in self.library])

    def decisions(self) -> dict[str, tuple[str, ...]]:
        """Independent decisions by name, with the options of each, that make up a network; empty where it is not so."""
        return {}

    def decided(self, taken: Mapping[str, str]) -> Architecture:  # noqa: ARG002
        """The network of an option for each of ``decisions``; every combination is one.

        Raises InputError where there are none.
        """
        raise InputError(f"the networks of {self.name} are not made up of independent decisions")

    def on_multiplier(self, architecture: Any, name: str) -> Architecture:
        """The same network with one multiplier wherever there is a choice of them."""
        return architecture.with_multiplier(name, self.scope)

    def reference(self) -> Architecture:
        """A large network, always the same: its cost in exact int8 is the unit of hypervolumes."""

    def every(self) -> Iterator[Architecture] | None:
        """All its networks, one for every key, where they are few enough to be listed."""
        return None

    def from_json(self, data: object) -> Architecture:
        """Raises InputError for anything but an architecture of this space."""

    def build(self, architecture: Any, shape: NetworkShape, arithmetic: str = "approximate") -> "nn.Module":
        """Raises InputError for a multiplier outside the library and for a shape that does not fit."""

    def costs(self, architecture: Any, shape: NetworkShape) -> "list[LayerCost]":
        """The cost rows of one inference."""

    def inherited(self, child: Any, parent: Any, shape: NetworkShape) -> dict[str, str]:  # noqa: ARG002
        """Modules of the child's network → modules of the parent's whose weights they can start from."""
        return {}


@dataclass(frozen=True)
class Choice:
    """One kind of decision that a search by gradient makes: a table of logits (rows, options) and who reads which row.

    ``rows`` has, for every kind of place, the row that each position reads. What shares a decision reads the same row:
    whether cells of one type share it (DARTS), or none do, is in these arrays and nowhere else. The first ``hidden``
    options exist while searching only (as "none" in DARTS): they are neither sampled nor derived. Where ``multipliers``
    is true, the options are those of the library, whose mixture costs one convolution and has exact gradients. Where
    ``shares`` is, they are inputs that all stay, and are weighed against each other (PC-DARTS' edge normalisation).
    """

    options: tuple[str, ...]
    rows: Mapping[str, np.ndarray]
    hidden: int = 0
    multipliers: bool = False
    shares: bool = False
    groups: Mapping[str, slice] = field(default_factory=dict)  # rows that a history reports together; none: all

    @property
    def count(self) -> int:
        """The number of rows."""
        return 1 + max(int(rows.max()) for rows in self.rows.values())

    @property
    def picks(self) -> bool:
        """Whether one option is computed alone where a search samples."""
        return not (self.multipliers or self.shares)

    def untied(self) -> "Choice":
        """The same decisions with a row of its own for every position."""
        rows, first = {}, 0
        for place, tied in self.rows.items():
            rows[place] = np.arange(first, first + tied.size).reshape(tied.shape)
            first += tied.size
        return replace(self, rows=rows, groups={})


# From the scores (inputs,) of the best operation on each input of a node to the places of those that stay, at least one.
Keep = Callable[[np.ndarray], Sequence[int] | np.ndarray]


class Supernet(Protocol):
    """A module that contains every network of a space: images → logits. ``choose`` comes before every pass."""

    def choose(self, probabilities: "Mapping[str, Tensor]", sampled: Mapping[str, np.ndarray] | None = None) -> None:
        """Set the weights (rows, options) of every choice; differentiable.

        ``sampled`` has, for some choices, the option of every row that is computed alone: none of the hidden ones.
        """


class ExpectedCost(Protocol):
    """The expected cost of a network drawn with given probabilities, as a differentiable function of them."""

    # (rows, options): of every option, as a share of the most expensive in its row; of multipliers, of an exact product
    relative: "Mapping[str, Tensor]"

    def __call__(self, probabilities: "Mapping[str, Tensor]") -> "Tensor":
        """A scalar, in the cost model's unit, from probabilities (rows, options) of every choice."""

    def exact_uniform(self) -> float:
        """With exact multipliers and uniform probabilities otherwise: a yardstick."""


@runtime_checkable
class DifferentiableSpace(Space, Protocol):
    """A space that can be searched by gradient.

    ``choices`` may be those that the space offers, or the same ones tied otherwise (``Choice.untied``).
    """

    cell_by_cell: ClassVar[bool] = False  # whether ``derive`` gives positions that share nothing cells of their own

    def choices(self, shape: NetworkShape) -> dict[str, Choice]:
        """What is to be decided, by name."""

    def shares(self, shape: NetworkShape) -> dict[str, Choice]:  # noqa: ARG002
        """How inputs of a sum are weighed against each other, by name; empty where this space knows no such thing."""
        return {}

    def supernet(self, shape: NetworkShape, choices: Mapping[str, Choice], partial: int = 1) -> "nn.Module":
        """A ``Supernet``, of whose channels 1/``partial`` go through the operations. Raises InputError for what cannot be."""

    def expected_cost(
        self, shape: NetworkShape, choices: Mapping[str, Choice], model: "CostModel", device: "torch.device"
    ) -> ExpectedCost: ...

    def derive(
        self, scores: Mapping[str, np.ndarray], choices: Mapping[str, Choice], keep: Keep | None = None
    ) -> Architecture:
        """The architecture of the highest scores (rows, options).

        Where a space leaves inputs of nodes out, ``keep`` says which stay; without it, as many as in all its networks.
        """

    def chosen(self, architecture: Any, choices: Mapping[str, Choice]) -> dict[str, np.ndarray]:
        """Weights (rows, options) of every choice but shares under which a supernet computes this network alone.

        1 for what it has; rows that it does not use are 0. As scores they give the network back (``derive``), if its choices
        can be told apart: of two edges from one place to another, one is lost; and if as many inputs stay as it has.
        """

    def diagnostics(self, architecture: Any) -> dict[str, float]:
        """What a search's history tells about the network that would be derived."""
