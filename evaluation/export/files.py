"""The files of an export: written from a graph, and read back with every doubt raised."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.export.graph import IMAGE, Graph
from evaluation.export.layers import OPERATIONS, Exported
from spaces.errors import InputError
from spaces.files.arrays import read_arrays
from spaces.files.json_files import read_json
from spaces.files.reading import parsing
from spaces.files.saving import save_bytes, save_json
from spaces.files.schema import typed
from spaces.multipliers.files.importing import keep_tables
from spaces.multipliers.files.tables import read_multipliers

FORMAT = 1
JSON, NPZ, ONNX, TABLES = "network.json", "network.npz", "int8.onnx", "multipliers"

# How to compute every kind of layer. x̂ and ŵ are codes, T a truth table, z activation_zero_point; arrays: network.npz.
FORMULAS = {
    "arrays": "network.npz holds each array as '<layer>.<array>'; everything but codes is float32, and so is what is "
    "computed with it. Shapes are those of one image: (channels, height, width)",
    "normalise": "(x / 255 − mean) / std, for pixels x from 0 to 255",
    "conv, arithmetic circuit": "codes of the input: x̂ = clamp(round(x / activation_scale)), halves to even, from −127 to "
    "127 where the multiplier is signed; else x̂ = clamp(round(x / activation_scale), −z, 255 − z) + z, from 0 to 255. "
    "A padded position holds the code of zero and is multiplied like any other. With ŵ = weight_codes and the scale "
    "s[o] = activation_scale · weight_scale[o]: signed: y[o] = float32(Σ T(x̂, ŵ)) · s[o]; unsigned: y[o] = "
    "float32(Σ (T(x̂, ŵ + 128) − 128 x̂)) · s[o] − float32(Σ ŵ) · s[o] · z. Sums are exact integers. bias[o] is added, if "
    "there is one",
    "T(a, b)": "multipliers/<multiplier>.npy holds the product of the activation's code a and the weight's operand b at "
    "[a + 128, b + 128] where the multiplier is signed, else at [a, b]",
    "conv, arithmetic fp32": "an ordinary convolution with weight (and bias, if there is one)",
    "linear": "a convolution of one pixel",
    "batch_norm": "(x − mean) / sqrt(variance + epsilon) · gamma + beta; without gamma and beta they are 1 and 0. It is not "
    "folded: scale = gamma / sqrt(variance + epsilon) and shift = beta − mean · scale give the same up to rounding",
    "average_pool": "the mean of the window's pixels that lie inside the map",
    "slice": "[start, stop) of every axis",
    "concat": "along the channels",
}


def write(graph: Graph, about: dict[str, Any], folder: Path) -> None:
    """``network.json``, ``network.npz`` and the truth tables, into an existing ``folder``."""
    multipliers = [graph.multipliers[name] for name in sorted(graph.multipliers)]
    if multipliers:
        keep_tables(multipliers, folder / TABLES)
    described = {
        multiplier.name: {
            "key": multiplier.key,
            "signed": multiplier.signed,
            "table": f"{TABLES}/{multiplier.name}.npy",
            "power_mw": multiplier.power_mw,
        }
        for multiplier in multipliers
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **graph.arrays)  # type: ignore[arg-type]  # numpy's own flag has no dot, as names do
    save_bytes(folder / NPZ, packed.getvalue())
    content = {
        "format": FORMAT,
        **about,
        "input": {"name": IMAGE, "shape": graph.layers[0]["output_shape"], "values": "pixels, 0 to 255"},
        "output": graph.layers[-1]["name"],
        "multipliers": described,
        "formulas": FORMULAS,
        "layers": graph.layers,
    }
    save_json(folder / JSON, content)


def read(folder: Path) -> tuple[Graph, dict[str, Any]]:
    """The graph of an exported network and the content of its ``network.json``.

    Raises InputError that names the file for what is missing, damaged, newer than this program or does not fit together.
    """
    path = folder / JSON
    content = read_json(path, "; export the network again")
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise InputError(f"{path} is not an exported network")
    if content["format"] > FORMAT:
        raise InputError(f"{path}: format {content['format']} is newer than this program knows ({FORMAT}); update it")
    arrays = read_arrays(folder / NPZ, "; export the network again")
    with parsing(path, "is damaged", "; export the network again"):
        described = typed(content, Exported)
        layers, names = described["layers"], {IMAGE}
        for layer in layers:
            if layer["op"] in OPERATIONS:
                typed(layer, OPERATIONS[layer["op"]], layer["name"])
            if missing := set(layer["inputs"]) - names:
                raise InputError(f"{layer['name']} reads {min(missing)}, which is not there before it")
            names.add(layer["name"])
        if not layers:
            raise InputError("it has no layers")
        keys = {name: multiplier["key"] for name, multiplier in described["multipliers"].items()}
    multipliers = {multiplier.name: multiplier for multiplier in read_multipliers(folder / TABLES)} if keys else {}
    for name, key in keys.items():
        if name not in multipliers or multipliers[name].key != key:
            raise InputError(f"{folder / TABLES} does not hold the {name} that {path.name} was written with")
    return Graph(layers, arrays, {name: multipliers[name] for name in keys}), content


def require_arrays(graph: Graph, layer: dict[str, Any], names: Iterable[str]) -> list[np.ndarray]:
    """The arrays of a layer. Raises InputError where one is missing."""
    try:
        return [graph.arrays[f"{layer['name']}.{name}"] for name in names]
    except KeyError as error:
        raise InputError(f"{NPZ} lacks {error.args[0]}") from None
