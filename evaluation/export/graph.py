"""The layer graph of a network, recorded while one image runs through it.

Recording what is computed, rather than describing every space's networks anew, keeps the export right for any space.
Layers are plain data, as in ``network.json``; their arrays are collected beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spaces.arithmetic.factory import Sum
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.arithmetic.quantise import Scale
from spaces.arithmetic.running_scales import RunningMaximum
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import WEIGHT_ZERO

IMAGE = "image"  # the name of the network's input


@dataclass
class Graph:
    """Layers in the order of computing; the last one gives the logits."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)  # "<layer>.<what>"
    multipliers: dict[str, Multiplier] = field(default_factory=dict)


def record(network: nn.Module, image: Tensor, mean: Tensor, std: Tensor) -> Graph:
    """The graph from the pixels of an image (1, C, H, W), normalised by ``mean`` and ``std`` (C, 1, 1), to the logits.

    Raises InputError for a network that holds something that cannot be exported.
    """
    graph = Graph()
    graph.layers.append(_layer("normalise", "normalise", [IMAGE], image))
    graph.arrays |= {"normalise.mean": _array(mean), "normalise.std": _array(std)}
    recorder = _Recorder(graph, image)
    hooks = []
    for name, module in network.named_modules():
        if type(module) in _MODULES:
            hooks.append(module.register_forward_pre_hook(recorder.enter))
            hooks.append(module.register_forward_hook(recorder.leaver(name)))
    try:
        with torch.no_grad(), recorder:
            network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    return graph


class _Recorder(TorchFunctionMode):
    """Makes layers of whole modules of ``_MODULES``, and of the functions that are called between them."""

    def __init__(self, graph: Graph, image: Tensor) -> None:
        super().__init__()
        self.graph = graph
        self.names: dict[int, str] = {id(image): "normalise"}
        self.kept = [image]  # an id is that of one tensor only as long as it lives
        self.depth = 0  # of modules that are one layer
        self.counts: dict[str, int] = {}

    def enter(self, module: nn.Module, inputs: tuple) -> None:  # noqa: ARG002
        self.depth += 1

    def leaver(self, name: str) -> Callable:
        """The forward hook of the module ``name``."""

        def leave(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if self.depth == 1:
                kind, attributes, arrays = _MODULES[type(module)](module)
                self._add(name, kind, [x for x in inputs if isinstance(x, Tensor)], output, attributes)
                self.graph.arrays |= {f"{name}.{what}": array for what, array in arrays.items()}
                if "multiplier" in attributes:
                    self.graph.multipliers[module.multiplier.name] = module.multiplier
            self.depth -= 1

        return leave

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.depth == 0 and isinstance(output, Tensor) and id(output) not in self.names:
            name = getattr(func, "__name__", str(func))
            describe = _FUNCTIONS.get(name)
            if describe is None:
                raise InputError(f"a network that computes '{name}' outside its layers cannot be exported")
            kind, inputs, attributes = describe(*args, **(kwargs or {}))
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self._add(f"{kind}_{self.counts[kind]}", kind, inputs, output, attributes)
        return output

    def _add(self, name: str, kind: str, inputs: list[Tensor], output: Tensor, attributes: dict) -> None:
        sources = [self.names[id(x)] for x in inputs]
        if any(layer["name"] == name for layer in self.graph.layers):
            raise InputError(f"a network that uses {name} twice cannot be exported")
        self.graph.layers.append(_layer(name, kind, sources, output, **attributes))
        self.names[id(output)] = name
        self.kept.append(output)


def _layer(name: str, kind: str, inputs: list[str], output: Tensor, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": kind, "inputs": inputs, **attributes, "output_shape": list(output.shape[1:])}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy().copy()


# -- modules -----------------------------------------------------------------------------------------------------------

Description = tuple[str, dict[str, Any], dict[str, np.ndarray]]  # kind, attributes, arrays


def _multiplying(module: nn.Module) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The circuit, codes and scales of a layer, or its fp32 weight."""
    bias = {} if module.bias is None else {"bias": _array(module.bias)}
    if not isinstance(module, ApproxConv2d | ApproxLinear):
        return {"arithmetic": "fp32"}, {"weight": _array(module.weight), **bias}
    if module.mean_error is not None:
        raise InputError("a layer that compensates its circuit's mean error cannot be exported")
    index, scale = module.kept.quantiser(module.weight)
    activations = _activation_scale(module)
    attributes = {
        "arithmetic": "circuit",
        "multiplier": module.multiplier.name,
        "activation_zero_point": activations.zero - 128 if module.multiplier.signed else activations.zero,
    }
    arrays = {
        "weight_codes": (_array(index).astype(np.int16) - WEIGHT_ZERO).astype(np.int8),
        "weight_scale": _array(scale),
        "activation_scale": _array(activations.step),
    }
    return attributes, arrays | bias


def _activation_scale(module: nn.Module) -> Scale:
    """The scale that the layer has after training."""
    held = module.activation_scale
    signed = isinstance(held, RunningMaximum)
    seen = bool(held.maximum > 0) if signed else bool(held.maximum > held.minimum)
    if not seen:
        raise InputError("a layer has seen nothing but zeros in training and so has no scale; train the network longer")
    return Scale.symmetric(held.maximum) if signed else Scale.affine(held.minimum, held.maximum)


def _convolution(module: nn.Conv2d) -> Description:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise InputError("only convolutions with zero padding of a fixed size can be exported")
    attributes, arrays = _multiplying(module)
    geometry = {name: list(getattr(module, name)) for name in ("kernel_size", "stride", "padding", "dilation")}
    return "conv", {**geometry, "groups": module.groups, **attributes}, arrays


def _linear(module: nn.Linear) -> Description:
    return "linear", *_multiplying(module)


def _norm(module: nn.BatchNorm2d) -> Description:
    arrays = {"mean": _array(module.running_mean), "variance": _array(module.running_var)}
    if module.affine:
        arrays |= {"gamma": _array(module.weight), "beta": _array(module.bias)}
    return "batch_norm", {"epsilon": module.eps}, arrays


def _pool(module: nn.MaxPool2d | nn.AvgPool2d) -> Description:
    kind = "max_pool" if isinstance(module, nn.MaxPool2d) else "average_pool"
    plain = getattr(module, "dilation", 1) == 1 and getattr(module, "divisor_override", None) is None
    counting = getattr(module, "count_include_pad", False) and module.padding != 0
    if not plain or module.ceil_mode or counting:
        raise InputError("only pooling of whole windows, without dilation or padding that counts, can be exported")
    return kind, {name: _pair(getattr(module, name)) for name in ("kernel_size", "stride", "padding")}, {}


def _pair(size: int | tuple[int, int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _global_pool(module: nn.AdaptiveAvgPool2d) -> Description:
    if module.output_size != 1:
        raise InputError("only global average pooling can be exported")
    return "global_average_pool", {}, {}


_MODULES: dict[type, Callable[[Any], Description]] = {
    ApproxConv2d: _convolution,
    nn.Conv2d: _convolution,
    ApproxLinear: _linear,
    nn.Linear: _linear,
    nn.BatchNorm2d: _norm,
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.ReLU: lambda _: ("relu", {}, {}),
    Sum: lambda _: ("add", {}, {}),
}


# -- functions ---------------------------------------------------------------------------------------------------------


def _cat(maps: list[Tensor], dim: int = 0) -> tuple[str, list[Tensor], dict]:
    return "concat", list(maps), {"axis": dim}


def _pad(x: Tensor, pad: tuple[int, ...], mode: str, value: float | None) -> tuple[str, list[Tensor], dict]:
    left, right, top, bottom = pad
    if mode != "constant" or value:
        raise InputError("only maps padded with zeros can be exported")
    return "pad", [x], {"top": top, "bottom": bottom, "left": left, "right": right}


def _slice(x: Tensor, index: tuple[slice, ...]) -> tuple[str, list[Tensor], dict]:
    if not all(isinstance(part, slice) and part.step is None for part in index):
        raise InputError("a network that picks out of its maps other than by plain slices cannot be exported")
    bounds = [part.indices(size) for part, size in zip(index, x.shape)]
    bounds += [(0, size, 1) for size in x.shape[len(index) :]]
    return "slice", [x], {"start": [b[0] for b in bounds[1:]], "stop": [b[1] for b in bounds[1:]]}


def _flatten(x: Tensor, start_dim: int = 0) -> tuple[str, list[Tensor], dict]:
    if start_dim != 1:
        raise InputError("only maps of single images can be flattened in an export")
    return "flatten", [x], {}


_FUNCTIONS: dict[str, Callable[..., tuple[str, list[Tensor], dict]]] = {
    F.relu.__name__: lambda x, **_: ("relu", [x], {}),
    torch.cat.__name__: _cat,
    F.pad.__name__: _pad,
    "__getitem__": _slice,
    "flatten": _flatten,
}
