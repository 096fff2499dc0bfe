"""The order of memory in which networks keep their maps: (N, H, W, C)."""

import torch
from torch import Tensor


def with_gradient_in_order(x: Tensor) -> Tensor:
    """x itself, a map (N, C, H, W) whose gradient will come in its own order of memory.

    To be asked for before a global mean, whose gradient comes channels-first: on a CPU all that is computed from it
    takes several times as long.
    """
    if x.requires_grad:
        x.register_hook(_channels_last)
    return x


def _channels_last(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)
