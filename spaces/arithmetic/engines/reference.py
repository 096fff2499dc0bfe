"""The oracle: unfold, look every single product up in the table, add in int64. No shortcut, and slow."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.multiplier import Multiplier


def conv2d(x_codes: Tensor, w_codes: Tensor, multiplier: Multiplier, geometry: Geometry) -> Tensor:
    """Sums Σ T[x̂, ŵ] as int64 (N, O, H', W'); codes as in ``emulate.approx_conv2d``."""
    table = torch.tensor(multiplier.table, dtype=torch.int64, device=x_codes.device)
    outputs, _, *kernel = w_codes.shape
    groups = geometry.groups
    padded = geometry.pad(x_codes.double())  # a padded position holds the code 0; codes are exact in float64
    columns = F.unfold(padded, kernel, geometry.dilation, 0, geometry.stride).long()
    batch, _, positions = columns.shape
    columns = columns.view(batch, groups, -1, positions) - multiplier.lo
    weights = w_codes.long().reshape(groups, outputs // groups, -1) - multiplier.lo
    sums = [  # one output channel of every group at a time, to bound the memory
        table[columns, weights[:, channel, :, None]].sum(dim=2) for channel in range(outputs // groups)
    ]
    height, width = (
        (size - (extent - 1) * dilation - 1) // stride + 1
        for size, extent, dilation, stride in zip(padded.shape[2:], kernel, geometry.dilation, geometry.stride)
    )
    return torch.stack(sums, dim=2).reshape(batch, outputs, height, width)
