"""Records and histories of schema 2 in the form of schema 3: some are kept, and their costs were all energies in pJ."""

from typing import Any, NotRequired, TypedDict

from spaces.files.schema import typed

OLDER = 2  # the schema that is read here
RENAMED = {"circuit_prior": "multiplier_prior"}  # settings of methods: runs before and after repeat one another


class _Part(TypedDict):
    multiplications_pj: float
    additions_pj: float
    memory_pj: float


class _Split(TypedDict):
    fp32: _Part
    int8: _Part
    approximate: _Part


class _Energy(TypedDict):
    fp32_pj: float
    int8_pj: float
    approximate_pj: float
    split: _Split


class _Layer(TypedDict):
    fp32_pj: float
    int8_pj: float
    approximate_pj: float


class _Tested(TypedDict):
    fp32: float | None
    int8: float | None
    approximate: float | None


class _Accuracy(TypedDict):
    test: _Tested


class _Finalist(TypedDict):
    accuracy: _Accuracy
    energy: dict[str, _Energy]
    layers: NotRequired[list[_Layer] | None]


class _Named(TypedDict):
    name: str
    hash: str


class _Record(TypedDict):
    """What schema 3 has in another form."""

    protocol: _Named
    energy_model: str
    reference_pj: float
    finalists: list[_Finalist]


def upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 2 as one of schema 3. Raises InputError where what changes is not there or of another type."""
    typed(data, _Record)
    rest = {name: value for name, value in data.items() if name not in ("energy_model", "reference_pj")}
    protocol, method = dict(data["protocol"]), data.get("method_config")
    if isinstance(method, dict):
        rest["method_config"] = {RENAMED.get(name, name): value for name, value in method.items()}
    return {
        **rest,
        "schema": OLDER + 1,
        "protocol": {"name": protocol.pop("name"), "hash": protocol.pop("hash"), "settings": protocol},
        "cost": data["energy_model"],
        "reference_cost": data["reference_pj"],
        "finalists": [_finalist(finalist) for finalist in data["finalists"]],
    }


def _finalist(data: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in data.items() if name != "energy"}
    costs = {model: _figures(energy) for model, energy in data["energy"].items()}
    return {**rest, "costs": costs, "layers": [_layer(layer) for layer in data.get("layers") or ()]}


def _figures(energy: dict[str, Any]) -> dict[str, Any]:
    """Memory traffic stood apart from the total."""
    split = {
        arithmetic: {name.removesuffix("_pj"): value for name, value in parts.items()}
        for arithmetic, parts in energy["split"].items()
    }
    apart = {arithmetic: {"memory": parts.pop("memory")} for arithmetic, parts in split.items()}
    return {"unit": "pJ", "values": _by_arithmetic(energy), "split": split, "apart": apart}


def _layer(layer: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in layer.items() if not name.endswith("_pj")}
    return {**rest, "costs": _by_arithmetic(layer)}


def _by_arithmetic(values: dict[str, Any]) -> dict[str, float]:
    return {name: values[f"{name}_pj"] for name in ("fp32", "int8", "approximate")}


def upgraded_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a history, in which a cost was called an energy."""
    return {"cost" if name == "energy_pj" else name: value for name, value in line.items()}
