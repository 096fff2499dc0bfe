"""Every engine's sums beside those of the definition, and whole layers beside those of the reference engine on the CPU."""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from evaluation.device_check.checks import EXACTNESS, Check, Outcome
from evaluation.device_check.threads import threads
from spaces.arithmetic import emulate
from spaces.arithmetic.engines import self_test
from spaces.arithmetic.engines.examples import Layer
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import SIZE, Multiplier
from spaces.multipliers.products import ProductTable, layer_table, operand_table

SAME, WIDE = Geometry(padding=(1, 1)), Geometry(padding=(4, 4), dilation=(2, 2))
SMALL = (
    Layer("stem 3x3", (1, 3, 12, 12), 24, (3, 3), SAME),
    Layer("1x1", (1, 40, 7, 6), 36, (1, 1)),
    Layer("3x3", (1, 36, 7, 6), 20, (3, 3), SAME),
    Layer("5x5 dilated", (1, 16, 9, 8), 16, (5, 5), WIDE),
    Layer("strided 3x3", (1, 32, 9, 8), 40, (3, 3), Geometry((2, 2), (1, 1))),
    Layer("depthwise 3x3", (1, 24, 9, 8), 24, (3, 3), Geometry(padding=(1, 1), groups=24)),
    Layer("depthwise 5x5 dilated", (1, 16, 9, 8), 16, (5, 5), Geometry((1, 1), (4, 4), (2, 2), 16)),
    Layer("grouped 3x3", (1, 24, 7, 6), 36, (3, 3), Geometry(padding=(1, 1), groups=4)),
    Layer("linear", (1, 72, 1, 1), 10, (1, 1)),
)
LARGE_BATCH = (
    Layer("stem 3x3, batch 512", (512, 3, 6, 6), 16, (3, 3), SAME),
    Layer("1x1, batch 512", (512, 16, 4, 4), 24, (1, 1)),
    Layer("3x3, batch 512", (512, 16, 4, 4), 16, (3, 3), SAME),
    Layer("5x5 dilated, batch 512", (512, 4, 5, 4), 8, (5, 5), WIDE),
    Layer("strided 3x3, batch 512", (512, 16, 5, 5), 16, (3, 3), Geometry((2, 2), (1, 1))),
    Layer("depthwise 3x3, batch 512", (512, 16, 5, 4), 16, (3, 3), Geometry(padding=(1, 1), groups=16)),
    Layer("depthwise 5x5 dilated, batch 512", (512, 8, 5, 5), 8, (5, 5), Geometry((1, 1), (4, 4), (2, 2), 8)),
    Layer("grouped 3x3, batch 512", (512, 12, 4, 4), 20, (3, 3), Geometry(padding=(1, 1), groups=4)),
    Layer("linear, batch 512", (512, 72, 1, 1), 10, (1, 1)),
)
# As large as in networks, where a GPU takes larger tiles.
LARGE = (
    Layer("3x3, large", (32, 64, 32, 32), 64, (3, 3), SAME, different=1),
    Layer("1x1, large", (32, 128, 32, 32), 128, (1, 1), different=1),
    Layer("5x5, large", (32, 36, 32, 32), 36, (5, 5), Geometry(padding=(2, 2)), different=1),
)
UNSIGNED = "comp42_8u_4"
LAYER_TEST, UNUSED = "whole layers", "not on this device"


@functools.cache
def tables() -> tuple[ProductTable, ...]:
    """The 13 signed circuits, and tables that no circuit has, to be wrong with; two are for unsigned activations."""
    rng, numbers = np.random.default_rng(0), np.arange(SIZE)
    signed = numbers - 128
    large = np.multiply.outer(rng.integers(-1023, 1024, SIZE), rng.integers(-1023, 1024, SIZE))
    lopsided = np.multiply.outer(signed, signed) + np.multiply.outer(numbers % 7 * 37, signed % 5) + signed // 3
    exact = Multiplier(name="exact unsigned", signed=False, table=np.multiply.outer(numbers, numbers))
    made = {
        "random": rng.integers(-(1 << 15), 1 << 15, (SIZE, SIZE)),
        "large factors": large,
        "constant": np.full((SIZE, SIZE), 7),
        "asymmetric": lopsided,
    }
    return (
        *(operand_table(catalogue.get(name)) for name in catalogue.names()),
        *(ProductTable(name, entries, -128, -128) for name, entries in made.items()),
        *(layer_table(multiplier) for multiplier in (exact, catalogue.get(UNSIGNED))),
    )


def checks(device: torch.device, quick: bool) -> Iterator[Check]:
    """A selection of layers and tables, whole layers, and then, if not quick, all other layers and tables.

    Engine by engine for one layer and table, so that their operands and sums are made once.
    """
    for name in emulate.ENGINES:
        yield Check(EXACTNESS, name, functools.partial(_may_be_used, name, device))
    yield from _sums(_pairs(selected=True), device)
    for multiplier in (catalogue.get("mul8s_1KVL"), catalogue.get(UNSIGNED)):
        for layer in SMALL[::2] if quick else SMALL:
            yield Check(EXACTNESS, LAYER_TEST, functools.partial(_whole_layer, multiplier, layer, device))
    if not quick:
        yield from _sums(_pairs(selected=False), device)


def _sums(pairs: Iterable[tuple[Layer, ProductTable]], device: torch.device) -> Iterator[Check]:
    for layer, table in pairs:
        for name, engine in emulate.ENGINES.items():
            slow = name == "reference" and layer.input[0] > 1  # and nothing in it depends on the batch
            if not slow and not engine.refusal(table, device):
                yield Check(EXACTNESS, name, functools.partial(_engine, name, table, layer, device))


def _pairs(selected: bool) -> Iterator[tuple[Layer, ProductTable]]:
    """Each layer with a few tables, so that every table and every layer occurs, or with all the others."""
    for number, layer in enumerate((*SMALL, *LARGE_BATCH, *LARGE)):
        for at, table in enumerate(tables()):
            if ((at + number) % (9 if number < len(SMALL) else len(tables())) == 0) is selected:
                yield layer, table


def _may_be_used(name: str, device: torch.device) -> Outcome:
    engine = emulate.ENGINES[name]
    reasons = [engine.refusal(table, device) for table in tables()]
    if all(reasons):
        return Outcome(note=reasons[0], values={UNUSED: reasons[0]})
    if reason := self_test.failure(name, engine, device):
        return Outcome(reason if name in reason else f"engine {name}: {reason}")
    refused = sum(map(bool, reasons))
    return Outcome(note=f"refuses {refused} of {len(reasons)} tables" if refused else "", values={"refused": refused})


def _engine(name: str, table: ProductTable, layer: Layer, device: torch.device) -> Outcome:
    try:
        how = _how(table, layer, device)
        with threads(1 if layer in SMALL else torch.get_num_threads()):
            return Outcome(self_test.mismatch(emulate.ENGINES[name], table, layer, device, name=name, **how))
    except Exception as error:  # the same sentence as for a wrong sum
        reason = (str(error).splitlines() or [""])[0]
        return Outcome(f"engine {name}, table {table.name}, layer {layer.name}: {type(error).__name__}: {reason}")


def _how(table: ProductTable, layer: Layer, device: torch.device) -> dict[str, tuple[str, ...]]:
    """Which operands, inputs and forms are tried: on a CPU all of them.

    On a GPU each address and form is one more kernel to compile, so that all are tried with every fourth table alone.
    """
    if layer.input[0] > 1:
        return {"operands": ("random", "saturating"), "held": ("channels-last",)}
    number = tables().index(table) + SMALL.index(layer)
    return (
        {} if device.type == "cpu" or number % 4 == 0 else {"held": ("channels-last", "strided"), "forms": ("scaled",)}
    )


def _whole_layer(multiplier: Multiplier, layer: Layer, device: torch.device) -> Outcome:
    """In training and then in evaluation mode, as chosen for the device and by the reference on the CPU."""
    images = 3 * torch.randn((4, *layer.input[1:]), generator=torch.Generator().manual_seed(1))
    if layer.name == "linear":
        images = images.flatten(1)
    wanted = _forward(multiplier, layer, images, torch.device("cpu"), "reference")
    for mode, got, expected in zip(
        ("training", "evaluation"), _forward(multiplier, layer, images, device, "auto"), wanted
    ):
        if not torch.equal(got, expected):
            off = float((got - expected).abs().max())
            where = f"circuit {multiplier.name}, layer {layer.name}, {mode}"
            return Outcome(f"whole layer, {where}: outputs differ by up to {off:.3g} from the reference's on the CPU")
    return Outcome(note="as chosen, and by the reference on the CPU")


def _forward(
    multiplier: Multiplier, layer: Layer, images: torch.Tensor, device: torch.device, engine: str
) -> list[torch.Tensor]:
    g = layer.geometry
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        if images.dim() == 2:
            module = ApproxLinear(layer.input[1], layer.outputs, multiplier=multiplier)
        else:
            module = ApproxConv2d(
                layer.input[1],
                layer.outputs,
                layer.kernel,
                g.stride,
                g.padding,
                g.dilation,
                g.groups,
                multiplier=multiplier,
            )
        module, images = module.to(device), images.to(device)
        emulate.use_engine(engine)
        try:
            return [module.train(mode)(images).cpu() for mode in (True, False)]
        finally:
            emulate.use_engine("auto")
