"""What a search space is: the values and protocols that methods and the harness see of one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

if TYPE_CHECKING:  # a space can be asked for its settings, and can draw, without torch
    import torch

    from spaces.costs.trace import LayerCost


class Architecture(Protocol):
    """A frozen value with a lossless JSON form; equal networks have equal keys."""

    @property
    def key(self) -> str: ...

    def to_json(self) -> dict[str, Any]: ...

    def short(self) -> str: ...


class Space(Protocol):
    """What can be built.

    Two offers are optional. ``drift(architecture, rng)``: the same network, with other genes that have no effect on it.
    ``inherited(child, parent, shape)``: modules of the child's network → those of the parent's whose weights they can
    start from.
    """

    name: str
    library: tuple[Multiplier, ...]

    def sample(self, rng: np.random.Generator) -> Architecture: ...

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture: ...

    def reference(self) -> Architecture:
        """A large network, always the same: its cost in exact int8 is the unit of hypervolumes."""

    def from_json(self, data: object) -> Architecture: ...

    def build(
        self, architecture: Architecture, shape: NetworkShape, arithmetic: str = "approximate"
    ) -> "torch.nn.Module": ...

    def costs(self, architecture: Architecture, shape: NetworkShape) -> "list[LayerCost]": ...

    def draw(self, architecture: Architecture, path: Path) -> None: ...
