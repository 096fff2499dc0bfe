"""What an inference costs: rows traced from a network, and accountings that turn rows into picojoules."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from spaces.arithmetic.factory import ARITHMETICS, Sum
from spaces.errors import suggest
from spaces.multipliers.catalogue import power_ratio
from spaces.multipliers.multiplier import Multiplier


@dataclass(frozen=True)
class LayerCost:
    """What one layer does for one image.

    ``kind`` is "separable" for the depthwise and pointwise convolutions of sep_conv and dil_conv, else "conv",
    "linear", "norm", "pool" or "sum". ``multiplier`` governs the layer's products; None leaves them in fp32.
    ``integer`` says whether the layer is computed on integers once the network is quantised.
    """

    name: str
    kind: str
    macs: int  # multiplications, each with its accumulating addition
    multiplier: Multiplier | None
    adds: int  # all additions, those of the MACs included
    params: int
    activations: int  # elements read and written
    integer: bool


def trace(network: nn.Module, input_shape: tuple[int, int, int], integer: bool) -> list[LayerCost]:
    """One row per layer, from one pass of a single image (C, H, W) through ``network`` in evaluation mode.

    ``integer`` says whether layers without multiplications (pooling, sums, normalisation) compute on integers in the
    quantised network. Batch normalisation is folded: its scale into the weights, its shift is one addition per output.
    A comparison of max pooling counts as an addition; ReLU is free. The network may live on the ``meta`` device.
    """
    rows: list[LayerCost] = []

    def record(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            rows.append(_row(name, module, inputs, output, integer))

        return hook

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, Sum)
    hooks = [m.register_forward_hook(record(name)) for name, m in network.named_modules() if isinstance(m, kinds)]
    training = network.training
    device = next(network.parameters()).device
    # Only shapes matter here, and these have that of their first input; on ``meta``, where nothing is computed, they are slow.
    bypassed = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.ReLU, Sum))]
    for module in bypassed:
        module.forward = _first
    try:
        with torch.no_grad():
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


def _row(name: str, module: nn.Module, inputs: tuple, output: torch.Tensor, integer: bool) -> LayerCost:
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
        window = inputs[0].numel() // outputs if isinstance(module, nn.AdaptiveAvgPool2d) else _area(module.kernel_size)
        adds = outputs * (window - 1)
    return LayerCost(name, kind, macs, multiplier, adds, params, moved, integer)


def _area(kernel: int | tuple[int, int]) -> int:
    return kernel * kernel if isinstance(kernel, int) else kernel[0] * kernel[1]


@dataclass(frozen=True)
class Energy:
    """Picojoules per inference by where they go. Memory traffic stands apart and is not part of the total."""

    multiplications: float = 0.0
    additions: float = 0.0
    memory: float = 0.0

    @property
    def total(self) -> float:
        return self.multiplications + self.additions

    def __add__(self, other: "Energy") -> "Energy":
        return Energy(
            self.multiplications + other.multiplications,
            self.additions + other.additions,
            self.memory + other.memory,
        )


@dataclass(frozen=True)
class EnergyModel:
    """An accounting: picojoules per operation, and which layers are 8-bit at all."""

    name: str
    source: str
    fp32_mult: float
    fp32_add: float
    int8_mult: float
    int32_add: float
    memory_pj_per_byte: float
    eight_bit_kinds: frozenset[str] | None = None  # None: every layer that a circuit governs

    def counts_as_integer(self, row: LayerCost) -> bool:
        """Whether this accounting computes the layer on integers once the network is quantised."""
        return row.integer and (self.eight_bit_kinds is None or row.kind in self.eight_bit_kinds)

    def layer(self, row: LayerCost, arithmetic: str) -> Energy:
        """The energy of one row in "fp32", exact "int8" or "approximate" arithmetic."""
        if arithmetic == "fp32" or not self.counts_as_integer(row):
            traffic = 4 * (row.activations + row.params)
            return Energy(row.macs * self.fp32_mult, row.adds * self.fp32_add, traffic * self.memory_pj_per_byte)
        ratio = power_ratio(row.multiplier) if arithmetic == "approximate" and row.multiplier else 1.0
        traffic = row.activations + row.params
        return Energy(row.macs * self.int8_mult * ratio, row.adds * self.int32_add, traffic * self.memory_pj_per_byte)

    def network(self, rows: Iterable[LayerCost], arithmetic: str) -> Energy:
        """The energy of one inference through all rows."""
        return sum((self.layer(row, arithmetic) for row in rows), start=Energy())

    def breakdown(self, rows: Iterable[LayerCost]) -> dict:
        """The JSON form of a record: totals in pJ, relative savings, and the split by arithmetic and by operation."""
        rows = list(rows)
        energy = {arithmetic: self.network(rows, arithmetic) for arithmetic in ARITHMETICS}
        approximate = energy["approximate"].total
        return {
            **{f"{arithmetic}_pj": energy[arithmetic].total for arithmetic in ARITHMETICS},
            "saving_vs_fp32": 1 - approximate / energy["fp32"].total,
            "saving_vs_int8": 1 - approximate / energy["int8"].total,
            "split": {
                arithmetic: {
                    "multiplications_pj": part.multiplications,
                    "additions_pj": part.additions,
                    "memory_pj": part.memory,
                }
                for arithmetic, part in energy.items()
            },
        }


ENERGY_MODELS = {
    model.name: model
    for model in (
        EnergyModel(
            name="horowitz45",
            source="Horowitz, ISSCC 2014, 45 nm: operations; memory: 20 pJ per 64-bit access of a 32 KB SRAM, each "
            "weight and each input and output activation of a layer moved once",
            fp32_mult=3.7,
            fp32_add=0.9,
            int8_mult=0.2,
            int32_add=0.1,
            memory_pj_per_byte=20 / 8,
        ),
        EnergyModel(
            name="approxdarts",
            source="Pinos, Sekanina, Mrazek, IJCNN 2024 (arXiv 2404.08002): multiplications only, 8-bit in the "
            "depthwise and pointwise convolutions of sep_conv and dil_conv",
            fp32_mult=3.7,
            fp32_add=0.0,
            int8_mult=0.391,
            int32_add=0.0,
            memory_pj_per_byte=0.0,
            eight_bit_kinds=frozenset({"separable"}),
        ),
    )
}


def energy_model(name: str) -> EnergyModel:
    """The accounting called ``name``. Raises InputError for an unknown one."""
    if name not in ENERGY_MODELS:
        raise suggest(name, ENERGY_MODELS, "energy model")
    return ENERGY_MODELS[name]


def total_macs(rows: Iterable[LayerCost]) -> int:
    return sum(row.macs for row in rows)


def total_params(rows: Iterable[LayerCost]) -> int:
    return sum(row.params for row in rows)
