"""What the Triton kernels are compiled for: every launch that layers ask for, recorded instead of made.

The engines themselves run, on tensors without memory ("meta"), so that nothing about kernels is written down twice: what
they are compiled for follows from the arguments of each launch, as in Triton itself.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import depthwise, launching, mixture, normalised, quantisation, weights
from spaces.arithmetic.engines.gpu import factored as triton_factored
from spaces.arithmetic.engines.gpu import gather as triton_gather
from spaces.multipliers import catalogue
from spaces.multipliers.products import ProductTable, operand_table

DTYPES = {
    torch.uint8: "u8", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.bool: "i1",
}  # fmt: skip
ALIGNED = 16  # Triton asks whether addresses and numbers are multiples of it
META = torch.device("meta")
FILL, SPAN = 128, 7  # the code of zero; columns in which the published multipliers lie
SMALLEST = 1e-32  # of an activation's or a weight's scale
MOST_VALUES = 8  # of a number that is one of the shapes of a kernel
BATCHES = (1, 256)  # block sizes depend on how many programs there are

# -- layers ------------------------------------------------------------------------------------------------------------

WIDTHS = (3, 4, 6, 8, 12, 16, 24, 32, 36, 48, 64, 72, 96, 108, 128, 144, 256, 576)
GRID_WIDTHS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Layer:
    """A convolution (a linear layer is one of a single pixel), and the side of its input."""

    inputs: int
    outputs: int
    kernel: int
    geometry: Geometry
    side: int = 32

    def weights(self) -> Tensor:
        shape = (self.outputs, self.inputs // self.geometry.groups, self.kernel, self.kernel)
        return torch.empty(shape, dtype=torch.uint8, device=META)

    def images(self, batch: int, offset: int = 0, last: bool = True) -> Tensor:
        """Indices ``offset`` bytes behind an aligned address, channels-last or contiguous."""
        size = (batch, self.side, self.side, self.inputs) if last else (batch, self.inputs, self.side, self.side)
        memory = torch.empty(offset + batch * self.inputs * self.side**2, dtype=torch.uint8, device=META)
        images = memory[offset:].view(size)
        return images.permute(0, 3, 1, 2) if last else images


def grouped(inputs: int, outputs: int, kernel: int, groups: int, stride: int = 1, dilation: int = 1) -> Layer:
    return Layer(inputs, outputs, kernel, Geometry.of(stride, dilation * (kernel // 2), dilation, groups))


def dense_layers() -> set[Layer]:
    """Stems, blocks of the grid, projections, the second half of separable convolutions, classifiers."""
    found = {grouped(inputs, 3 * width, 3, 1) for inputs in (1, 3) for width in (1, 4, 8, 16, 36)}
    found |= {
        grouped(inputs, outputs, kernel, 1)
        for inputs, outputs, kernel in itertools.product((3, *GRID_WIDTHS), GRID_WIDTHS, (1, 3, 5))
    }
    for width in WIDTHS:
        found |= {grouped(width, width, 1, 1), grouped(4 * width, width, 1, 1)}
        found |= {grouped(4 * width, max(1, width // 2), 1, 1, stride=2)}
        found |= {Layer(width, classes, 1, Geometry(), side=1) for classes in (10, 100)}
    return found


def grouped_layers() -> set[Layer]:
    """Depthwise convolutions of every kind, such with several outputs per channel, and small and large groups."""
    found = set()
    for width in WIDTHS:
        for kernel, stride, dilation in itertools.product((3, 5, 7), (1, 2), (1, 2)):
            found |= {grouped(width, width, kernel, width, stride, dilation)}
        found |= {grouped(width, 2 * width, 3, width), grouped(2 * width, width, 3, width)}
    for inner, groups in itertools.product((4, 8, 16, 32, 64), (2, 3, 8, 32)):
        found |= {grouped(groups * inner, groups * inner, 3, groups)}
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def bits(count: int) -> ProductTable:
    """``count`` features that are bits of the activation's index, with weights of any value."""
    index, drawn = np.arange(256), np.random.default_rng(count)
    u = np.stack([(index & 1 << r).astype(np.uint8).view(np.int8) for r in range(count)], axis=1)
    return ProductTable(f"{count} bits", u.astype(int) @ (2 * drawn.integers(-30, 30, (count, 256)) + 1), 0, -128)


def looked_up(count: int, factor: int = 1) -> ProductTable:
    """``count`` features of the activation that are no bits of it; a ``factor`` makes weights too large for a byte."""
    index, drawn = np.arange(256), np.random.default_rng(count)
    u, v = drawn.integers(-100, 100, (256, count)), drawn.integers(-100, 100, (count, 256))
    firsts = sorted(index[1:], key=lambda code: (int(code).bit_count(), code))[:count]
    u[0], u[firsts] = 0, np.eye(count, dtype=int)  # the search for factors takes these rows, so that it finds u and v
    return ProductTable(f"{count} words × {factor}", u @ v * factor, 0, -128)


def factored_tables() -> list[ProductTable]:
    """Tables with every number of features per pass, and of passes."""
    words = [looked_up(count) for count in (1, 2, 3, 4, 6, 64)]
    return [*map(bits, range(1, 9)), *words, looked_up(1, factor=97), looked_up(4, factor=97)]


def gathered_tables() -> list[ProductTable]:
    """Tables whose entries need 16 bits, and 32."""
    return [ProductTable(f"{scale} times noise", bits(3).table * scale, 0, -128) for scale in (1, 999)]


# -- launches ----------------------------------------------------------------------------------------------------------


def described(parameter, value: object) -> tuple[str, str, object]:
    """A kernel's argument: its type in Triton's words, what is known of it ("constant", "aligned" or ""), its value."""
    if parameter.is_constexpr or value is None:
        return "constexpr", "constant", value
    if isinstance(value, Tensor):
        return "*" + DTYPES[value.dtype], "" if value.data_ptr() % ALIGNED else "aligned", None
    if isinstance(value, bool):
        return "i1", "", None
    if isinstance(value, float):
        return "fp32", "", None
    kind = "i32" if -(2**31) <= value < 2**31 else "i64" if value < 2**63 else "u64"
    if parameter.do_not_specialize:
        return kind, "", None
    return ("constexpr", "constant", 1) if value == 1 else (kind, "" if value % ALIGNED else "aligned", None)


class Recorder:
    """Stands in for a kernel: ``recorder[grid](*args, **options)`` adds to ``launches`` what it would be compiled for."""

    def __init__(self, name: str, kernel, launches: dict[str, dict]) -> None:
        self.name, self.kernel, self.launches = name, kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> "Recorder":
        return self

    def __call__(self, *args, **named) -> None:
        values = {**dict(zip(self.kernel.arg_names, args)), **named}
        found = {part.name: described(part, values.pop(part.name)) for part in self.kernel.params}
        variant = {
            "kernel": self.name,
            "signature": {name: kind for name, (kind, _, _) in found.items()},
            "constants": {name: value for name, (_, known, value) in found.items() if known == "constant"},
            "aligned": [number for number, (_, known, _) in enumerate(found.values()) if known == "aligned"],
            "options": values,
        }
        self.launches[json.dumps(variant, sort_keys=True)] = variant


def kernels() -> dict[str, object]:
    """The kernels that engines launch, by name."""
    return {name: kernel for name, kernel in vars(launching.kernels()).items() if name.endswith("_kernel")}


def _launch(engine, layer: Layer, table: ProductTable) -> None:
    """In every way in which a layer's input may lie in memory, and may be large."""
    packed, scale = engine.pack(layer.weights(), table, layer.geometry), torch.empty(layer.outputs, device=META)
    for batch in BATCHES:
        engine.conv2d(layer.images(batch), packed, FILL, scale)
    engine.conv2d(layer.images(1), packed, FILL)
    engine.conv2d(layer.images(1, last=False), packed, FILL, scale)
    for offset in (1, 2, 4, 8):
        engine.conv2d(layer.images(1, offset), packed, FILL, scale)


def _launch_quantisation() -> None:
    """Of activations in every type of training, by a multiplier's signed or unsigned codes; of weights of all lengths."""
    number, code = torch.empty((), device=META), torch.empty((), dtype=torch.int32, device=META)
    for dtype, codes in itertools.product((torch.float32, torch.bfloat16), ((-127, 127, 128), (code, code, code))):
        quantisation.codes(torch.empty(4096, dtype=dtype, device=META), number, *codes)
    for length in (1, 9, 27, 64, 576):
        index, scale = quantisation.weight_codes(torch.empty((16, length), device=META), 127, SMALLEST, 128)
        quantisation.decode(index, torch.empty(256, device=META), scale)
    index = torch.empty(4096, dtype=torch.uint8, device=META)
    for dtype in (torch.float32, torch.bfloat16):
        quantisation.look_up(index, torch.empty(256, dtype=dtype, device=META))
    quantisation.moved_maximum(number, number, number, 0.1, 127, SMALLEST)
    quantisation.moved_range(number, number, number, number, 0.1, 255, SMALLEST)


def _launch_mixtures() -> None:
    """Layers of supernets over the published multipliers; and few features, and as many as there may be, in some of them."""
    layers = [grouped(width, width, 1, 1) for width in (4, 16, 64)]
    layers += [grouped(3, 48, 3, 1), grouped(64, 32, 1, 1, stride=2), Layer(256, 10, 1, Geometry(), side=1)]
    layers += [grouped(width, width, 3, width) for width in (4, 16, 63)]
    layers += [grouped(16, 16, 5, 16, stride=2), grouped(16, 16, 5, 16, dilation=2)]
    cases = [(layer, 5, SPAN, offset) for layer in layers for offset in (0, 1)]
    cases += [(layer, count, count, 0) for layer in layers[2::6] for count in (1, 16)]
    for layer, rank, columns, offset in cases:
        by_code, span = (mixture.features_by_code(torch.empty((n, 256), device=META)) for n in (rank, columns))
        index, scale = layer.images(2, offset), torch.empty(layer.outputs, device=META)
        for border in (None, FILL) if columns == SPAN else (FILL,):
            basis, step = mixture.Basis(by_code, span, rank, columns), torch.empty((), device=META)
            held = mixture.weights_of(layer.weights(), scale, basis, layer.geometry.groups > 1)
            held = (basis, held, layer.geometry, step, border)
            y = mixture.convolve(index, by_code, *held)
            if layer.geometry.groups > 1:
                mixture.depthwise_gradients(index, index, y, *held)
            else:
                mixture.dense_table_gradient(index, y, *held)


def _launch_weights() -> None:
    """Of networks whose tables have few features, and more."""
    layers = [torch.empty(shape, device=META) for shape in ((16, 1, 3, 3), (16, 16, 1, 1))]
    for rank in (1, 5, 16):
        by_code = mixture.features_by_code(torch.empty((rank, 256), device=META))
        weights.WeightsTogether(layers, [True, False], by_code)(layers, by_code, 127, SMALLEST, FILL)


def _launch_depthwise() -> None:
    """Gradients of depthwise layers of all kinds."""
    values, step = torch.empty(256, device=META), torch.empty((), device=META)
    for width, kernel, stride, dilation in itertools.product((1, 3, 4, 16, 36, 64), (3, 5), (1, 2), (1, 2)):
        layer = grouped(width, width, kernel, width, stride, dilation)
        index, weights, scale = layer.images(2), layer.weights(), torch.empty(width, device=META)
        size = layer.geometry.output_size(index.shape[2:], (kernel, kernel))
        grad = torch.empty((2, width, *size), device=META).contiguous(memory_format=torch.channels_last)
        for clamped in (index, None):
            kernels, features = (kernel, kernel), mixture.weight_features(weights, values.view(-1, 1), True)
            depthwise.input_gradient(grad, index.shape, clamped, features, kernels, layer.geometry, scale)
        for line in (False, True):
            depthwise.weight_gradient(grad, index, values, line, (kernel, kernel), layer.geometry, step)


def _launch_normalised() -> None:
    """Sums of few maps and of many, of few channels and of many."""
    for count, width in itertools.product((2, 9), (1, 3, 4, 16, 36, 64, 256)):
        size = (2, width, 32, 32)
        x = torch.empty(size, device=META).contiguous(memory_format=torch.channels_last)
        maps, weights = normalised.Maps.of([x] * count, [True] * count), torch.empty(count, device=META)
        known = normalised.statistics(maps, [(weights, weights)] * count, 1e-5, 0.1)
        normalised.weighted_sum(maps, known, weights)
        normalised.gradients(maps, known, weights, x, [True] * count)


@contextlib.contextmanager
def recording() -> Iterator[dict[str, dict]]:
    """Inside, kernels are not launched; yields what they would be compiled for, each once."""
    launches: dict[str, dict] = {}
    recorders = {name: Recorder(name, kernel, launches) for name, kernel in kernels().items()}
    averages = mock.patch.object(torch, "_foreach_lerp_", lambda *_: None)  # of no kernel of ours
    with averages, mock.patch.multiple(launching.kernels(), **recorders):
        yield launches


def variants() -> list[dict]:
    """Everything that the kernels are compiled for, each once."""
    layers = sorted(dense_layers() | grouped_layers(), key=repr)
    multipliers = [operand_table(catalogue.get(name)) for name in catalogue.names()]
    with recording() as launches:
        _launch_quantisation()
        _launch_mixtures()
        _launch_weights()
        _launch_depthwise()
        _launch_normalised()
        for layer, table in itertools.product(layers, factored_tables()):
            _launch(triton_factored, layer, table)
        for layer, table in itertools.product(layers, gathered_tables()):
            _launch(triton_gather, layer, table)
        for layer, table in itertools.product(layers[:: len(layers) // 8], multipliers):
            _launch(triton_factored, layer, table)
            _launch(triton_gather, layer, table)
    return [launches[key] for key in sorted(launches)]


# -- a choice of them --------------------------------------------------------------------------------------------------


def _properties(variant: dict) -> dict[str, str]:
    named = {**variant["signature"], **variant["constants"], **variant["options"], "aligned": variant["aligned"]}
    return {f"{variant['kernel']} {name}": repr(value) for name, value in sorted(named.items())}


def covering(found: list[dict]) -> list[dict]:
    """Few of the variants, in which every two properties that occur together in one of them occur together again.

    Numbers of many values (bits of a circuit) are data rather than shape: each occurs, but not together with all others.
    """
    values: dict[str, set[str]] = {}
    for name, value in itertools.chain.from_iterable(_properties(variant).items() for variant in found):
        values.setdefault(name, set()).add(value)
    shapes = {name for name, held in values.items() if 1 < len(held) <= MOST_VALUES}
    numbers: dict[tuple, int] = {}
    held = []
    for variant in found:
        properties = _properties(variant).items()
        pairs = itertools.combinations([pair for pair in properties if pair[0] in shapes], 2)
        held.append({numbers.setdefault(key, len(numbers)) for key in itertools.chain(properties, pairs)})
    masks = [sum(1 << number for number in keys) for keys in held]
    missing, chosen = (1 << len(numbers)) - 1, []
    while missing:
        best = max(range(len(found)), key=lambda number: (masks[number] & missing).bit_count())
        missing &= ~masks[best]
        chosen.append(found[best])
    return chosen
