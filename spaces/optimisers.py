"""Settings of torch's optimisers that depend on the device: what a graph of a step must find in tensors there."""

from typing import Any

import torch
from torch import Tensor

_STATE = ("params", "lr")  # what of a group of parameters belongs to a state; the rest are settings


def learning_rate(value: float, in_graph: bool, device: torch.device) -> float | Tensor:
    """For an optimiser whose steps are recorded a tensor, which can be changed; otherwise the number."""
    return torch.full((), value, device=device) if in_graph else value


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """For the steps to come, recorded ones too."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of such an optimiser, which may have run on another device; its settings stay as they are here."""
    groups = []
    for saved, own in zip(state["param_groups"], optimiser.param_groups):
        settings, rate = {key: value for key, value in own.items() if key not in _STATE}, float(saved["lr"])
        groups.append(
            {**saved, **settings, "lr": torch.full_like(own["lr"], rate) if isinstance(own["lr"], Tensor) else rate}
        )
    optimiser.load_state_dict({**state, "param_groups": groups})
