"""What candidates cost, known without training."""

from spaces.costs.model import CostModel
from spaces.costs.trace import total_macs, total_params
from spaces.shape import NetworkShape
from spaces.space import Architecture, Space


class CandidateCosts:
    """(cost, parameters, MACs) of an architecture in approximate arithmetic, cached by key."""

    def __init__(self, space: Space, shape: NetworkShape, model: CostModel) -> None:
        self.space, self.shape, self.model = space, shape, model
        self._known: dict[str, tuple[float, int, int]] = {}

    def __call__(self, architecture: Architecture) -> tuple[float, int, int]:
        if architecture.key not in self._known:
            rows = self.space.costs(architecture, self.shape)
            cost = self.model.network(rows, "approximate").total
            self._known[architecture.key] = (cost, total_params(rows), total_macs(rows))
        return self._known[architecture.key]
