"""The supernet: every edge computes its operations on a mixture of all circuits, weighted by probabilities."""

import numpy as np
import torch
from torch import Tensor, nn

from spaces.arithmetic.factory import FixedLayers, LayerFactory, MixtureLayers
from spaces.arithmetic.mixture import MultiplierChoice
from spaces.cells.architecture import CHOSEN_OPERATIONS, OPERATION_NAMES, is_separable, stride_of
from spaces.cells.network import CellNetwork, reduction_positions
from spaces.cells.operations import State, build_operation
from spaces.cells.space import CellSpace, check_shape
from spaces.errors import InputError
from spaces.multipliers.factors import shared_rank
from spaces.multipliers.products import layer_table
from spaces.shape import NetworkShape

# Multipliers × shared factors × places with a choice of their own: each takes 1 KiB and a part of every step. Measured
# on one CPU core under the protocol quick: 3,200 (13 multipliers that share 8 factors) took 9 s an epoch and 0.7 GB in all.
LARGEST_MIXTURE = 500_000


def check_mixture(space: CellSpace) -> None:
    """Raises InputError where mixing the whole library would take more time and memory than any machine should give."""
    multipliers, sites = len(space.library), space.sites.count
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
    asks for it, and the channels are shuffled (partial channel connections, Xu et al., ICLR 2020, without their edge
    normalisation).
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

    def forward(self, state: State) -> Tensor:
        x = state.value
        inside = State(x[:, : self.computed]) if self.partial > 1 else state
        total: Tensor | None = None
        for index, name in enumerate(OPERATION_NAMES):
            if name not in self.operations or self.sampled not in (None, name):
                continue
            weighted = inside.through(self.operations[name]) * self.weights[index]
            total = weighted if total is None else total + weighted
        if self.partial == 1:
            return total
        mixed = torch.cat([total, self.bypass(x[:, self.computed :])], dim=1)
        return mixed.unflatten(1, (self.partial, -1)).transpose(1, 2).flatten(1, 2)


class MixedCell(nn.Module):
    """The body of a supernet cell: each node is the sum of the undecided edges from all earlier states."""

    def __init__(
        self, nodes: int, channels: int, reduction: bool, layers: "list[dict[bool, LayerFactory]]", partial: int
    ) -> None:
        super().__init__()
        self.nodes = nodes
        edges = [(node, source) for node in range(nodes) for source in range(node + 2)]
        self.edges = nn.ModuleList(
            MixedEdge(channels, stride_of(source, reduction), layers[index], partial)
            for index, (_, source) in enumerate(edges)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        states = [State(first), State(second)]
        edges = iter(self.edges)
        for _ in range(self.nodes):
            states.append(State(sum(next(edges)(state) for state in list(states))))
        return torch.cat([state.value for state in states[2:]], dim=1)


class CellSupernet(CellNetwork):
    """The whole space as one network. Call ``choose`` with probabilities before a forward pass."""

    def __init__(self, space: CellSpace, shape: NetworkShape, partial: int = 1) -> None:
        check_shape(shape)
        if partial < 1 or shape.channels % (2 * partial):
            raise InputError(f"partial channels 1/{partial} do not divide {shape.channels} channels into even parts")
        check_mixture(space)
        self.space = space
        everything = space.scope == "all"
        plain = FixedLayers("fp32", None)
        choices = [MultiplierChoice(space.library) for _ in range(space.sites.count)]

        def layers_of(site: int) -> dict[bool, LayerFactory]:
            mixed = MixtureLayers(choices[site])
            return {True: mixed, False: mixed if everything else plain}

        def body(position: int, channels: int) -> MixedCell:
            kind = int(position in reduction_positions(shape.cells))
            layers = [layers_of(site) for site in space.sites.edges[kind]]
            return MixedCell(space.nodes, channels, bool(kind), layers, partial)

        def outer(position: int | None) -> LayerFactory:
            if not everything:
                return plain
            kind = int(position in reduction_positions(shape.cells))
            return MixtureLayers(choices[space.sites.network if position is None else space.sites.cells[kind]])

        super().__init__(shape, space.nodes, body, outer, searching=True)
        self.choices = nn.ModuleList(choices)  # one per site, in the order of ``space.sites``
        self.kinds = [int(position in reduction_positions(shape.cells)) for position in range(shape.cells)]

    def choose(self, operations: Tensor, multipliers: Tensor, sampled: np.ndarray | None = None) -> None:
        """Set probabilities of operations (2, E, operations) and of circuits (sites, M); differentiable.

        With ``sampled`` (2, E), indices into OPERATION_NAMES other than "none", an edge computes that operation alone.
        """
        for choice, probabilities in zip(self.choices, multipliers):
            choice.set(probabilities)
        for stage, kind in zip(self.cells, self.kinds):
            for index, edge in enumerate(stage.body.edges):
                edge.weights = operations[kind, index]
                edge.sampled = None if sampled is None else OPERATION_NAMES[sampled[kind, index]]
