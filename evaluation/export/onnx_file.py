"""The exported network under exact 8-bit products as a standard ONNX file, node by node from the layer graph.

Built by hand: torch's exporters would trace through our autograd functions and engines, which are no ONNX operators.
Products are those of ConvInteger, whose 32-bit sums are exact by definition, rather than of a QuantizeLinear /
DequantizeLinear form, in which a runtime may sum in floating point. Everything else is float32, as in the network.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.export.files import require_arrays
from evaluation.export.graph import IMAGE, Graph
from spaces.arithmetic.quantise import LARGEST_CODE
from spaces.files.saving import save_bytes

OPSET, IR_VERSION = 17, 8  # of 2022: read by runtimes from then on
CODE_OFFSET = 128  # signed codes are held as bytes, code + 128, for which runtimes have ConvInteger
INSTALL = "pip install onnx onnxruntime"


def why_not(module: str) -> str:
    """The name of ``onnx`` or ``onnxruntime`` and how to install it, where it is missing; else empty."""
    try:
        __import__(module)
    except ImportError as error:
        return f"{module} is not installed ({INSTALL})" if isinstance(error, ModuleNotFoundError) else str(error)
    return ""


class _Builder:
    """Nodes and constants of the ONNX graph. A layer's value carries the layer's name."""

    def __init__(self, graph: Graph) -> None:
        from onnx import helper, numpy_helper

        self.graph, self._helper, self._numpy_helper = graph, helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: np.ndarray | np.generic) -> str:
        self.constants.append(self._numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._helper.make_node(kind, inputs, [output], name=f"{output}:{kind}", **attributes))
        return output

    def arrays(self, layer: dict[str, Any], *names: str) -> list[np.ndarray]:
        return require_arrays(self.graph, layer, names)

    def has(self, layer: dict[str, Any], name: str) -> bool:
        return f"{layer['name']}.{name}" in self.graph.arrays


def write(graph: Graph, path: Path) -> None:
    """Write the ONNX file of the graph. Its input is ``image`` (N, C, H, W), uint8, its output ``logits`` (N, classes)."""
    import onnx
    from onnx import TensorProto, helper

    builder = _Builder(graph)
    for layer in graph.layers:
        _KINDS[layer["op"]](builder, layer)
    builder.node("Identity", [graph.layers[-1]["name"]], "logits")
    shape, classes = graph.layers[0]["output_shape"], graph.layers[-1]["output_shape"]
    content = helper.make_graph(
        builder.nodes,
        "int8",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", *classes])],
        builder.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION, producer_name="approxnas-bench")
    onnx.checker.check_model(model, full_check=True)
    save_bytes(path, model.SerializeToString())


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The logits of ``images`` (N, C, H, W), uint8, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no warnings
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {IMAGE: images})[0]


# -- layers ------------------------------------------------------------------------------------------------------------


def _normalise(b: _Builder, layer: dict[str, Any]) -> None:
    name, (mean, std) = layer["name"], b.arrays(layer, "mean", "std")
    pixels = b.node("Cast", layer["inputs"], f"{name}:float", to=1)
    scaled = b.node("Div", [pixels, b.constant(f"{name}:255", np.float32(255))], f"{name}:scaled")
    centred = b.node("Sub", [scaled, b.constant(f"{name}:mean", mean[None])], f"{name}:centred")
    b.node("Div", [centred, b.constant(f"{name}:std", std[None])], name)


def _window(layer: dict[str, Any]) -> dict[str, Any]:
    top, left = layer["padding"]
    return {"kernel_shape": layer["kernel_size"], "strides": layer["stride"], "pads": [top, left, top, left]}


def _conv(b: _Builder, layer: dict[str, Any]) -> None:
    moves = _window(layer) | {"dilations": layer["dilation"], "group": layer["groups"]}
    if layer["arithmetic"] == "circuit":
        _integer_conv(b, layer, layer["inputs"][0], layer["name"], moves)
        return
    names = [name for name in ("weight", "bias") if b.has(layer, name)]
    constants = [b.constant(f"{layer['name']}:{n}", array) for n, array in zip(names, b.arrays(layer, *names))]
    b.node("Conv", [*layer["inputs"], *constants], layer["name"], **moves)


def _linear(b: _Builder, layer: dict[str, Any]) -> None:
    name = layer["name"]
    if layer["arithmetic"] == "circuit":
        axes = b.constant(f"{name}:axes", np.array([2, 3]))
        pixel = b.node("Unsqueeze", [*layer["inputs"], axes], f"{name}:pixel")
        b.node("Flatten", [_integer_conv(b, layer, pixel, f"{name}:map", {"kernel_shape": [1, 1]})], name)
        return
    names = [part for part in ("weight", "bias") if b.has(layer, part)]
    constants = [b.constant(f"{name}:{n}", array) for n, array in zip(names, b.arrays(layer, *names))]
    b.node("Gemm", [*layer["inputs"], *constants], name, transB=1)


def _integer_conv(b: _Builder, layer: dict[str, Any], x: str, output: str, moves: dict[str, Any]) -> str:
    """Codes, their exact sums, the scale and the bias."""
    name, signed = layer["name"], b.graph.multipliers[layer["multiplier"]].signed
    codes, weight_scale, step = b.arrays(layer, "weight_codes", "weight_scale", "activation_scale")
    zero = CODE_OFFSET if signed else layer["activation_zero_point"]
    if signed:  # the code −128 is not used, to which saturation alone would lead
        x = b.node("Max", [x, b.constant(f"{name}:least", -LARGEST_CODE * step)], f"{name}:clamped")
    quantised = [b.constant(f"{name}:step", step), b.constant(f"{name}:zero", np.uint8(zero))]
    x = b.node("QuantizeLinear", [x, *quantised], f"{name}:codes")
    weight = b.constant(f"{name}:weight", codes.reshape(*codes.shape, *[1] * (4 - codes.ndim)))
    sums = b.node("ConvInteger", [x, weight, quantised[1]], f"{name}:sums", **moves)
    y = b.node("Cast", [sums], f"{name}:float", to=1)
    scale = b.constant(f"{name}:scale", (step * weight_scale)[None, :, None, None])
    if not b.has(layer, "bias"):
        return b.node("Mul", [y, scale], output)
    (bias,) = b.arrays(layer, "bias")
    y = b.node("Mul", [y, scale], f"{name}:scaled")
    return b.node("Add", [y, b.constant(f"{name}:bias", bias[None, :, None, None])], output)


def _batch_norm(b: _Builder, layer: dict[str, Any]) -> None:
    mean, variance = b.arrays(layer, "mean", "variance")
    affine = b.arrays(layer, "gamma", "beta") if b.has(layer, "gamma") else (np.ones_like(mean), np.zeros_like(mean))
    parts = zip(("gamma", "beta", "mean", "variance"), (*affine, mean, variance))
    constants = [b.constant(f"{layer['name']}:{name}", array) for name, array in parts]
    b.node("BatchNormalization", [*layer["inputs"], *constants], layer["name"], epsilon=layer["epsilon"])


def _add(b: _Builder, layer: dict[str, Any]) -> None:
    total, *others = layer["inputs"]
    for number, other in enumerate(others, 1):
        total = b.node("Add", [total, other], layer["name"] if number == len(others) else f"{layer['name']}:{number}")


def _pad(b: _Builder, layer: dict[str, Any]) -> None:
    sides = [0, 0, layer["top"], layer["left"], 0, 0, layer["bottom"], layer["right"]]
    b.node("Pad", [*layer["inputs"], b.constant(f"{layer['name']}:sides", np.array(sides))], layer["name"])


def _slice(b: _Builder, layer: dict[str, Any]) -> None:
    bounds = [b.constant(f"{layer['name']}:{end}", np.array(layer[end])) for end in ("start", "stop")]
    axes = b.constant(f"{layer['name']}:axes", np.arange(1, 1 + len(layer["start"])))
    b.node("Slice", [*layer["inputs"], *bounds, axes], layer["name"])


def _plain(kind: str, **attributes: Any) -> Callable[[_Builder, dict[str, Any]], str]:
    """An operator without constants."""
    return lambda b, layer: b.node(kind, layer["inputs"], layer["name"], **attributes)


_KINDS: dict[str, Callable[[_Builder, dict[str, Any]], Any]] = {
    "normalise": _normalise,
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _plain("Relu"),
    "add": _add,
    "concat": _plain("Concat", axis=1),
    "max_pool": lambda b, layer: b.node("MaxPool", layer["inputs"], layer["name"], **_window(layer)),
    "average_pool": lambda b, layer: b.node("AveragePool", layer["inputs"], layer["name"], **_window(layer)),
    "global_average_pool": _plain("GlobalAveragePool"),
    "pad": _pad,
    "slice": _slice,
    "flatten": _plain("Flatten", axis=1),
}
