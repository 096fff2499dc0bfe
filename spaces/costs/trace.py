"""What an inference consists of: one row per layer, traced from a network; everything that counts anything reads them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from spaces import work
from spaces.arithmetic.factory import Sum
from spaces.multipliers.multiplier import Multiplier


@dataclass(frozen=True)
class LayerGeometry:
    """What it takes to build a layer of the same size again. Shapes are without the batch: (C, H, W), or (C,)."""

    input: tuple[int, ...] = ()  # of the first, where there are several
    output: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()  # empty, as the next two, where the layer has no window
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class LayerCost:
    """What one layer does for one image.

    ``kind`` is "separable" for the depthwise and pointwise convolutions of sep_conv and dil_conv, else "conv",
    "linear", "norm", "pool" or "sum". ``multiplier`` governs the layer's products; None leaves them in fp32.
    ``integer`` says whether the layer is computed on integers once the network is quantised. All numbers are those of one
    execution; ``share`` says how often the layer is executed per inference: below 1 where an early exit may skip it.
    """

    name: str
    kind: str
    macs: int  # multiplications, each with its accumulating addition
    multiplier: Multiplier | None
    adds: int  # all additions, those of the MACs included
    params: int
    activations: int  # elements read and written
    integer: bool
    geometry: LayerGeometry = LayerGeometry()
    share: float = 1.0
    averages: int = 0  # outputs that are the average of a window


def trace(network: nn.Module, input_shape: tuple[int, ...], integer: bool) -> list[LayerCost]:
    """One row per layer, from one pass of a single input, such as an image (C, H, W), through ``network`` in evaluation mode.

    ``integer`` says whether layers without multiplications (pooling, sums, normalisation) compute on integers in the
    quantised network. Batch normalisation is folded: its scale into the weights, its shift is one addition per output.
    A comparison of max pooling counts as an addition; ReLU is free. The network may live on the ``meta`` device.
    """
    rows: list[LayerCost] = []

    def record(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            rows.append(_row(name, module, inputs, output, integer))

        return hook

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, Sum)
    hooks = [m.register_forward_hook(record(name)) for name, m in network.named_modules() if isinstance(m, kinds)]
    training = network.training
    device = next(network.parameters()).device
    # Only shapes matter here, and these have that of their first input; on ``meta``, where nothing is computed, they are slow.
    bypassed = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.ReLU, Sum))]
    for module in bypassed:
        module.forward = _first  # type: ignore[method-assign]  # of this object, until its end
    try:
        with torch.no_grad(), work.paused():
            network.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
        for module in bypassed:
            del module.forward
    return rows


def _first(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return x


def _row(
    name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, integer: bool
) -> LayerCost:
    outputs = output.numel()
    moved = outputs + sum(x.numel() for x in inputs)
    params = sum(p.numel() for p in module.parameters(recurse=False))
    kind, macs, multiplier = "sum", 0, None
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        macs = outputs * module.weight[0].numel()
        adds = macs + (outputs if module.bias is not None else 0)
        kind = getattr(module, "cost_kind", "linear" if isinstance(module, nn.Linear) else "conv")
        multiplier = getattr(module, "cost_multiplier", getattr(module, "multiplier", None))
        integer = multiplier is not None
    elif isinstance(module, nn.BatchNorm2d):
        kind, adds, moved = "norm", outputs, 0  # folded into the layer before, whose traffic is counted there
    elif isinstance(module, Sum):
        adds = outputs * (len(inputs) - 1)
    else:
        kind = "pool"
        everywhere = isinstance(module, nn.AdaptiveAvgPool2d)
        window = inputs[0].numel() // outputs if everywhere else math.prod(_pair(module.kernel_size))
        adds = outputs * (window - 1)
    averages = outputs if isinstance(module, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)) else 0
    geometry = _geometry(module, inputs[0], output)
    return LayerCost(name, kind, macs, multiplier, adds, params, moved, integer, geometry, averages=averages)


def _geometry(module: nn.Module, first: torch.Tensor, output: torch.Tensor) -> LayerGeometry:
    kernel, stride, dilation = (_pair(getattr(module, name, ())) for name in ("kernel_size", "stride", "dilation"))
    inputs, outputs = tuple(first.shape[1:]), tuple(output.shape[1:])
    return LayerGeometry(inputs, outputs, kernel, stride, dilation, getattr(module, "groups", 1))


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def total_macs(rows: Iterable[LayerCost]) -> int:
    """Of a network whose layers are all executed."""
    return sum(row.macs for row in rows)


def total_params(rows: Iterable[LayerCost]) -> int:
    """The parameters of all layers."""
    return sum(row.params for row in rows)
