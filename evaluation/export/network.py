"""An exported network, rebuilt from its files alone and computed by this program's engines.

Every step is the one that the trained network takes, so that logits agree bit for bit on the same machine.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.export import files
from evaluation.export.graph import IMAGE, Graph
from spaces.arithmetic import emulate
from spaces.arithmetic.convolution import convolve
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.packed_weight import PackedWeight
from spaces.arithmetic.quantise import LARGEST_CODE, Scale, quantise_once
from spaces.errors import InputError
from spaces.files.reading import parsing
from spaces.multipliers.products import WEIGHT_ZERO, layer_table

Step = Callable[..., Tensor]


class ExportedNetwork:
    """Computes logits (N, classes) from pixels (N, C, H, W), uint8, on the CPU."""

    def __init__(self, graph: Graph) -> None:
        self.layers = graph.layers
        self._steps: list[Step] = []
        for layer in graph.layers:
            if layer.get("op") not in _KINDS:
                raise InputError(f"{files.JSON}: the kind '{layer.get('op')}' of {layer['name']} is unknown")
            with parsing(f"{files.JSON}: {layer['name']}", "is damaged", "; export the network again"):
                self._steps.append(_KINDS[layer["op"]](graph, layer))
        last_use = {name: at for at, layer in enumerate(self.layers) for name in layer["inputs"]}
        self._done = [[name for name, last in last_use.items() if last == at] for at in range(len(self.layers))]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        values = {IMAGE: images}
        for layer, step, done in zip(self.layers, self._steps, self._done):
            with parsing(f"{files.JSON}: {layer['name']}", "does not fit its inputs", "; export the network again"):
                values[layer["name"]] = step(*(values[name] for name in layer["inputs"]))
            for name in done:
                del values[name]
        return values[self.layers[-1]["name"]]


def load(folder: Path) -> ExportedNetwork:
    """The network in an export's ``folder``. Raises InputError for files that are missing, damaged or do not fit."""
    graph, _ = files.read(folder)
    return ExportedNetwork(graph)


def _tensors(graph: Graph, layer: dict[str, Any], *names: str) -> list[Tensor]:
    return [torch.from_numpy(array) for array in files.require_arrays(graph, layer, names)]


def _bias(graph: Graph, layer: dict[str, Any]) -> Tensor | None:
    return _tensors(graph, layer, "bias")[0] if f"{layer['name']}.bias" in graph.arrays else None


def _normalise(graph: Graph, layer: dict[str, Any]) -> Step:
    mean, std = _tensors(graph, layer, "mean", "std")
    return lambda x: ((x.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _conv(graph: Graph, layer: dict[str, Any]) -> Step:
    stride, padding, dilation = (tuple(layer[name]) for name in ("stride", "padding", "dilation"))
    g = Geometry.of(stride, padding, dilation, layer["groups"])
    if layer["arithmetic"] == "circuit":
        return _through_multiplier(graph, layer, g)
    (weight,), bias = _tensors(graph, layer, "weight"), _bias(graph, layer)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return lambda x: F.conv2d(x, weight, bias, g.stride, g.padding, g.dilation, g.groups)


def _linear(graph: Graph, layer: dict[str, Any]) -> Step:
    if layer["arithmetic"] == "circuit":
        multiply = _through_multiplier(graph, layer, Geometry())
        return lambda x: multiply(x[:, :, None, None]).flatten(1)
    (weight,), bias = _tensors(graph, layer, "weight"), _bias(graph, layer)
    return lambda x: F.linear(x, weight, bias)


def _through_multiplier(graph: Graph, layer: dict[str, Any], geometry: Geometry) -> Step:
    """Quantise, sum products of the truth table, scale, add the bias."""
    multiplier = graph.multipliers[layer["multiplier"]]
    table, zero = layer_table(multiplier), layer["activation_zero_point"]
    codes, weight_scale, step = _tensors(graph, layer, "weight_codes", "weight_scale", "activation_scale")
    index = (codes.short() + WEIGHT_ZERO).to(torch.uint8)
    index = index.view(*index.shape, *[1] * (4 - index.dim()))
    scale = Scale(step, -LARGEST_CODE, LARGEST_CODE, 128) if multiplier.signed else Scale(step, -zero, 255 - zero, zero)
    bias = _bias(graph, layer)

    def compute(x: Tensor) -> Tensor:
        engine = emulate.choose_engine(table, tuple(index.shape), geometry, x.device)
        packed = PackedWeight(index, weight_scale, engine, emulate.ENGINES[engine].pack(index, table, geometry))
        # No gradient is wanted, so that the place of the weight itself takes any tensor.
        y = convolve(x, weight_scale, quantise_once(x, scale), packed, table, geometry)
        return y if bias is None else y + bias.view(1, -1, 1, 1)

    return compute


def _batch_norm(graph: Graph, layer: dict[str, Any]) -> Step:
    mean, variance = _tensors(graph, layer, "mean", "variance")
    affine = f"{layer['name']}.gamma" in graph.arrays
    gamma, beta = _tensors(graph, layer, "gamma", "beta") if affine else (None, None)
    return lambda x: F.batch_norm(x, mean, variance, gamma, beta, eps=layer["epsilon"])


def _max_pool(graph: Graph, layer: dict[str, Any]) -> Step:  # noqa: ARG001
    return lambda x: F.max_pool2d(x, layer["kernel_size"], layer["stride"], layer["padding"])


def _average_pool(graph: Graph, layer: dict[str, Any]) -> Step:  # noqa: ARG001
    kernel, stride, padding = layer["kernel_size"], layer["stride"], layer["padding"]
    return lambda x: F.avg_pool2d(x, kernel, stride, padding, count_include_pad=False)


def _add(graph: Graph, layer: dict[str, Any]) -> Step:  # noqa: ARG001
    def add(*maps: Tensor) -> Tensor:
        total = maps[0]
        for other in maps[1:]:
            total = total + other
        return total

    return add


def _pad(graph: Graph, layer: dict[str, Any]) -> Step:  # noqa: ARG001
    widths = [layer[side] for side in ("left", "right", "top", "bottom")]
    return lambda x: F.pad(x, widths)


def _slice(graph: Graph, layer: dict[str, Any]) -> Step:  # noqa: ARG001
    window = (slice(None), *(slice(start, stop) for start, stop in zip(layer["start"], layer["stop"])))
    return lambda x: x[window]


_KINDS: dict[str, Callable[[Graph, dict[str, Any]], Step]] = {
    "normalise": _normalise,
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": lambda *_: F.relu,
    "add": _add,
    "concat": lambda *_: lambda *maps: torch.cat(maps, dim=1),
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "global_average_pool": lambda *_: lambda x: F.adaptive_avg_pool2d(x, 1),
    "pad": _pad,
    "slice": _slice,
    "flatten": lambda *_: lambda x: x.flatten(1),
}
