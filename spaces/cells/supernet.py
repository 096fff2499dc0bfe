"""The supernet: every edge computes its operations on a mixture of all circuits, weighted by probabilities."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from spaces.arithmetic.factory import FixedLayers, LayerFactory, MixtureLayers
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierChoices
from spaces.arithmetic.normalised_sum import normalised_sum
from spaces.cells.architecture import CHOSEN_OPERATIONS, OPERATION_NAMES, is_separable, stride_of
from spaces.cells.choices import ALPHA, BETA, EDGES, GAMMA, NODES, OUTSIDE, PROJECTIONS
from spaces.cells.network import CellNetwork
from spaces.cells.operations import State, build_operation, norm_of
from spaces.cells.sites import CellSites, check_shape, reduction_positions
from spaces.errors import InputError
from spaces.multipliers.factors import shared_rank
from spaces.multipliers.products import layer_table
from spaces.shape import NetworkShape
from spaces.space import Choice

# Multipliers × shared factors × places with a choice of their own: each takes 1 KiB and a part of every step. Measured
# on one CPU core under the protocol quick: 3,200 (13 multipliers that share 8 factors) took 9 s an epoch and 0.7 GB in all.
LARGEST_MIXTURE = 500_000


def check_mixture(space: CellSites, sites: int) -> None:
    """Raises InputError where mixing the library in so many places takes more time and memory than a machine should give."""
    multipliers = len(space.library)
    if multipliers * sites * 256 <= LARGEST_MIXTURE:
        return
    rank = shared_rank([layer_table(multiplier) for multiplier in space.library])
    if multipliers * sites * rank > LARGEST_MIXTURE:
        most = max(1, LARGEST_MIXTURE // (sites * rank))
        raise InputError(
            f"a mixture of {multipliers} multipliers whose errors share {rank} factors, in {sites} places, needs "
            f"{multipliers * sites * rank / 2**20:.1f} GiB and minutes for every step; choose up to {most} of them, take "
            "--multiplier-choice network, or another method"
        )


class MixedEdge(nn.Module):
    """An edge that is undecided: x (N, C, H, W) → the weighted sum of its operations, or of the sampled one alone.

    With ``partial`` K only 1/K of the channels goes through the operations; the others pass by, halved where the stride
    asks for it, and the channels are shuffled (partial channel connections, Xu et al., ICLR 2020). A ``share`` weighs it
    against the node's other inputs (their edge normalisation).
    """

    def __init__(self, channels: int, stride: int, layers_of: "dict[bool, LayerFactory]", partial: int = 1) -> None:
        super().__init__()
        self.partial, self.computed, self.stride = partial, channels // partial, stride
        self.operations = nn.ModuleDict(
            {
                name: build_operation(name, self.computed, stride, layers_of[is_separable(name)], searching=True)
                for name in CHOSEN_OPERATIONS
            }
        )
        self.bypass = nn.MaxPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.weights: Tensor | None = None  # (operations,), set before every pass
        self.sampled: str | None = None  # the only operation to compute, if any
        self.share: Tensor | None = None  # scalar, set before every pass where inputs have shares

    def forward(self, state: State) -> Tensor:
        mixed = add_up([self.parts(state.first(self.computed))])
        if self.partial > 1:
            mixed = _shuffled(mixed, self.bypass(state.value[:, self.computed :]), self.partial)
        return mixed if self.share is None else mixed * self.share

    def parts(self, state: State) -> "Parts":
        """What the operations make of those channels that they compute, before the last normalisation."""
        assert self.weights is not None
        wanted = CHOSEN_OPERATIONS if self.sampled is None else (self.sampled,)
        names = [name for name in wanted if name in self.operations]
        operations = [self.operations[name] for name in names]
        maps = [state.before_norm(operation) for operation in operations]
        first = OPERATION_NAMES.index(names[0]) if names else 0
        return Parts(self.weights[first : first + len(names)], maps, [norm_of(operation) for operation in operations])


def _shuffled(computed: Tensor, others: Tensor, groups: int) -> Tensor:
    """Channels of so many groups, of which the first is ``computed``, in turn; in the order of memory of both, channels-last.

    Normalisation and rectifiers take several times as long where gradients come back in another order.
    """
    first, rest = (part.permute(0, 2, 3, 1) for part in (computed, others))
    in_turn = torch.cat([first.unsqueeze(4), rest.unflatten(3, (groups - 1, -1)).transpose(3, 4)], dim=4)
    return in_turn.flatten(3).permute(0, 3, 1, 2)


class Parts(NamedTuple):
    """Maps of which a sum consists once they are normalised and weighed."""

    weights: Tensor  # (maps,)
    maps: list[Tensor]
    norms: list[nn.Module]

    def shared(self, share: Tensor | None) -> "Parts":
        """The same, weighed against a node's other inputs."""
        return self if share is None else self._replace(weights=self.weights * share)


def add_up(edges: "list[Parts]") -> Tensor:
    """The sum over all parts of some edges."""
    weights = edges[0].weights if len(edges) == 1 else torch.cat([edge.weights for edge in edges])
    maps, norms = ([part for edge in edges for part in getattr(edge, name)] for name in ("maps", "norms"))
    return normalised_sum(weights, maps, norms)


class MixedCell(nn.Module):
    """The body of a supernet cell: each node is the sum of the undecided edges from all earlier states."""

    def __init__(
        self, nodes: int, channels: int, reduction: bool, layers: "list[dict[bool, LayerFactory]]", partial: int
    ) -> None:
        super().__init__()
        self.nodes, self.partial = nodes, partial
        edges = [(node, source) for node in range(nodes) for source in range(node + 2)]
        self.edges = nn.ModuleList(
            MixedEdge(channels, stride_of(source, reduction), layers[index], partial)
            for index, (_, source) in enumerate(edges)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        states = [State(first), State(second)]
        edges = iter(self.edges)
        for _ in range(self.nodes):
            into = [(next(edges), state) for state in states]
            if self.partial == 1:
                node = add_up([edge.parts(state).shared(edge.share) for edge, state in into])
            else:
                node = sum(edge(state) for edge, state in into)
            states.append(State(node))
        return torch.cat([state.value for state in states[2:]], dim=1)


class CellSupernet(CellNetwork):
    """The whole space as one network. Call ``choose`` with probabilities before a forward pass."""

    def __init__(self, space: CellSites, shape: NetworkShape, choices: Mapping[str, Choice], partial: int = 1) -> None:
        check_shape(shape)
        if partial < 1 or shape.channels % (2 * partial):
            raise InputError(f"partial channels 1/{partial} do not divide {shape.channels} channels into even parts")
        check_mixture(space, choices[BETA].count)
        everything, governed = space.scope == "all", choices[BETA].rows
        plain = FixedLayers("fp32", None)
        blends = MultiplierChoices(
            MultiplierChoice(space.library) for _ in range(choices[BETA].count)
        )  # one per row of β

        def layers_of(row: int) -> dict[bool, LayerFactory]:
            mixed = MixtureLayers(blends[row])
            return {True: mixed, False: mixed if everything else plain}

        def body(position: int, channels: int) -> MixedCell:
            reduction = position in reduction_positions(shape.cells)
            return MixedCell(
                space.nodes, channels, reduction, [layers_of(row) for row in governed[EDGES][position]], partial
            )

        def outer(position: int | None) -> LayerFactory:
            if not everything:
                return plain
            return MixtureLayers(blends[governed[OUTSIDE][0] if position is None else governed[PROJECTIONS][position]])

        super().__init__(shape, space.nodes, body, outer, searching=True)
        self.choices = blends
        self.operation_rows = choices[ALPHA].rows[EDGES].tolist()  # of α, by position and edge
        self.share_rows = choices[GAMMA].rows[NODES].tolist() if GAMMA in choices else []  # of γ, by position and node

    def choose(self, probabilities: Mapping[str, Tensor], sampled: Mapping[str, np.ndarray] | None = None) -> None:
        """See ``spaces.space.Supernet``. An edge of which an operation is sampled computes that operation alone."""
        self.choices.set_all(probabilities[BETA], self)
        picked = (sampled or {}).get(ALPHA)
        for stage, rows in zip(self.cells, self.operation_rows):
            for edge, row in zip(stage.body.edges, rows):
                edge.weights = probabilities[ALPHA][row]
                edge.sampled = None if picked is None else OPERATION_NAMES[picked[row]]
        for stage, rows in zip(self.cells, self.share_rows):
            edges = iter(stage.body.edges)
            for node, row in enumerate(rows):
                inputs = probabilities[GAMMA][row][: node + 2]
                for share in inputs / inputs.sum():
                    next(edges).share = share
