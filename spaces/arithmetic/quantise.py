"""8-bit codes and their scales.

Signed, symmetric codes: x̂ = clamp(round(x / s), −127, 127) with one scale per activation tensor and one per output
channel of a weight (Jacob et al., CVPR 2018, without the code −128 so that the range is symmetric).
"""

import torch
from torch import Tensor, nn

LARGEST_CODE = 127
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny * 2**20  # keeps x / s finite for an all-zero tensor


def scale_from_maximum(maximum: Tensor) -> Tensor:
    """The scale s = max|x| / 127 that spends the whole code range on ``maximum`` (any shape)."""
    return (maximum / LARGEST_CODE).clamp_min(_SMALLEST_SCALE)


def clamped_codes(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of ``x``, as integers held in x's own floating dtype, and 1 where they were clamped, else 0 (same dtype).

    ``scale`` broadcasts against ``x``. A NaN becomes the code 0, so that it cannot index beyond a table; it survives in
    the scale, and so in the layer's output. (Float masks: operations on bool tensors cost several times as much.)
    """
    codes = (x / scale).round_()
    clamped = codes.abs().sub_(LARGEST_CODE).clamp_(0, 1)
    return codes.clamp_(-LARGEST_CODE, LARGEST_CODE).nan_to_num_(nan=0.0), clamped


def weight_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of a weight (O, …) and their scale per output channel (O, 1, …); no code needs a clamp."""
    scale = scale_from_maximum(weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True))
    return (weight / scale).round_().nan_to_num_(nan=0.0), scale


class RunningMaximum(nn.Module):
    """The activation scale: an exponential moving average of max|x| over the training batches.

    A layer that has seen no training batch falls back on the maximum of the tensor at hand.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("maximum", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The scale of ``x`` (any shape), a scalar; updates the average in training mode."""
        if self.training:
            batch = x.abs().amax()
            averaged = torch.lerp(self.maximum, batch, self.momentum)
            self.maximum.copy_(torch.where(self.maximum > 0, averaged, batch))
            return scale_from_maximum(self.maximum)
        batch = x.abs().amax()
        seen = (self.maximum > 0) & ~batch.isnan()
        return scale_from_maximum(torch.where(seen, self.maximum, batch))
