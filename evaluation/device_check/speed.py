"""Times beside fp32 convolutions of the same shape in the same process."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.device_check import layer_kernels, supernet_step, timing
from evaluation.device_check.checks import SPEED, Check, Outcome
from evaluation.device_check.threads import threads
from spaces.arithmetic import emulate
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.layers import ApproxConv2d
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import SIZE, Multiplier
from spaces.multipliers.products import operand_table

RATIOS = (
    "dense_forward_geomean",
    "dense_training_geomean",
    "depthwise_low_rank",
    "depthwise_any_table",
    "search_step_vs_fp32",
)
FLOATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """A layer that keeps the size of its maps: channels in and out, kernel, groups."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    groups: int = 1

    @property
    def geometry(self) -> Geometry:
        return Geometry(padding=(self.kernel // 2,) * 2, groups=self.groups)


DENSE = (Shape("3x3 64-64", 64, 64, 3), Shape("1x1 64-64", 64, 64, 1))
DEPTHWISE = Shape("depthwise 3x3 64", 64, 64, 3, 64)
MULTIPLIERS = {"rank 1": "mul8s_1KV8", "rank 3": "mul8s_1KVA", "rank 5": "mul8s_1KX2"}  # by their tables' factors
ANY = "any"  # a table that has none


@functools.cache
def multipliers() -> dict[str, Multiplier]:
    """What is timed, by the name that the table shows."""
    entries = np.random.default_rng(0).integers(-16000, 16000, (SIZE, SIZE))
    published = {rank: catalogue.get(name) for rank, name in MULTIPLIERS.items()}
    return {**published, ANY: Multiplier(name="random", signed=True, table=entries)}


@dataclass
class Times:
    """What has been measured so far."""

    device: torch.device
    quick: bool
    convolutions: dict[tuple[str, str], float] = field(default_factory=dict)  # of a float kind by shape, seconds
    engines: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    kernels: list[dict[str, Any]] = field(default_factory=list)  # beside torch's operations for the same
    search: dict[str, Any] = field(default_factory=dict)

    @property
    def maps(self) -> tuple[int, int, int]:
        """Images, height and width."""
        if self.device.type == "cuda":
            return (64, 32, 32)
        return (2, 16, 16) if self.quick else (16, 32, 32)

    def input(self, shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        images, *size = self.maps
        x = torch.randn((images, shape.inputs, *size), generator=torch.Generator().manual_seed(0))
        return x.to(device=self.device, dtype=dtype).contiguous(memory_format=torch.channels_last)

    @property
    def threads(self) -> int:
        """Of the CPU: one for the small maps of a quick check, as runs on small images have."""
        return 1 if self.quick else torch.get_num_threads()

    def of(self, call: Callable[[], object], eager: bool = False) -> tuple[float, str]:
        with threads(self.threads):
            return timing.seconds(call, self.device, self.quick, eager)

    def ratios(self) -> dict[str, float | None]:
        """The figures by which devices are compared, each a multiple of fp32's time; None where it was not measured."""
        dense, depthwise = {shape.name for shape in DENSE}, {DEPTHWISE.name}
        picked = {  # pass, shapes, whether the table has no factors
            "dense_forward_geomean": ("forward", dense, False),
            "dense_training_geomean": ("training", dense, False),
            "depthwise_low_rank": ("forward", depthwise, False),
            "depthwise_any_table": ("forward", depthwise, True),
        }
        found: dict[str, float | None] = {}
        for key, (what, shapes, any_table) in picked.items():
            rows = [row for row in self.layers if row["what"] == what and row["shape"] in shapes]
            found[key] = geomean([row["vs_fp32"] for row in rows if (row["table"] == ANY) is any_table])
        return {**found, "search_step_vs_fp32": self.search.get("vs_fp32")}


def geomean(values: Sequence[float]) -> float | None:
    """The geometric mean; None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def checks(times: Times) -> Iterator[Check]:
    """The supernet's step, and for each shape ordinary convolutions, engines and whole layers."""
    yield Check(SPEED, "step of the supernet", functools.partial(_search, times))
    if times.device.type == "cuda":
        yield Check(SPEED, "codes and mixtures", functools.partial(_kernels, times))
    for shape in (*DENSE, DEPTHWISE):
        for kind in FLOATS if times.device.type == "cuda" else ("fp32",):
            yield Check(SPEED, "ordinary convolutions", functools.partial(_ordinary, times, shape, kind))
        for rank in multipliers():
            for engine in emulate.ENGINES:
                if engine != "reference" and not (rank == ANY and shape in DENSE and times.quick):
                    yield Check(SPEED, "engines", functools.partial(_engine, times, shape, rank, engine))
        for rank in multipliers():
            if rank != ANY or shape is DEPTHWISE:
                for what in ("forward", "training"):
                    yield Check(SPEED, "whole layers", functools.partial(_layer, times, shape, rank, what))


def _ordinary(times: Times, shape: Shape, kind: str) -> Outcome:
    x, dtype = times.input(shape, FLOATS[kind]), FLOATS[kind]
    w = torch.randn((shape.outputs, shape.inputs // shape.groups, shape.kernel, shape.kernel), device=times.device)
    w = w.to(dtype).contiguous(memory_format=torch.channels_last)
    with timing.tf32(kind == "tf32"), torch.no_grad():
        took, how = times.of(lambda: F.conv2d(x, w, padding=shape.kernel // 2, groups=shape.groups))
    times.convolutions[shape.name, kind] = took
    return Outcome(values={f"{shape.name}, {kind}": {"seconds": took, "measured": how}})


def _engine(times: Times, shape: Shape, rank: str, name: str) -> Outcome:
    """The sums alone, scaled, of codes that are there."""
    engine, table = emulate.ENGINES[name], operand_table(multipliers()[rank])
    if engine.refusal(table, times.device):
        return Outcome()
    codes = torch.Generator().manual_seed(0)
    images, *size = times.maps
    x = torch.randint(0, SIZE, (images, shape.inputs, *size), generator=codes, dtype=torch.uint8).to(times.device)
    x = x.contiguous(memory_format=torch.channels_last)
    w_shape = (shape.outputs, shape.inputs // shape.groups, shape.kernel, shape.kernel)
    w = torch.randint(0, SIZE, w_shape, generator=codes, dtype=torch.uint8).to(times.device)
    packed, scale = engine.pack(w, table, shape.geometry), torch.rand(shape.outputs, device=times.device)
    with torch.no_grad():
        took, how = times.of(lambda: engine.conv2d(x, packed, 128, scale))
    row = {"shape": shape.name, "table": rank, "engine": name, "seconds": took, "measured": how}
    for kind in FLOATS:
        ordinary = times.convolutions.get((shape.name, kind))
        row[f"vs_{kind}"] = took / ordinary if ordinary else None
    times.engines.append(row)
    return Outcome()


def _layer(times: Times, shape: Shape, rank: str, what: str) -> Outcome:
    """A layer as it stands in a network, quantisation included, beside the fp32 layer."""
    x, passes = times.input(shape), []
    arguments = (shape.inputs, shape.outputs, shape.kernel, 1, shape.kernel // 2, 1, shape.groups, False)
    for layer in (nn.Conv2d(*arguments), ApproxConv2d(*arguments, multiplier=multipliers()[rank])):
        layer.to(device=times.device, memory_format=torch.channels_last)
        passes.append(_pass(layer, x, what))
    with timing.tf32(False):
        found = [times.of(call) for call in passes]
        if len({how for _, how in found}) > 1:  # only one could be captured: both as Python launches them
            found = [times.of(call, eager=True) for call in passes]
    (ordinary, _), (took, how) = found
    times.layers.append(
        {"what": what, "shape": shape.name, "table": rank, "seconds": took, "vs_fp32": took / ordinary, "measured": how}
    )
    return Outcome()


def _pass(layer: nn.Module, x: Tensor, what: str) -> Callable[[], object]:
    if what == "forward":
        layer(x)  # a batch to learn the scale from
        layer.eval()

        def forward() -> Tensor:
            with torch.no_grad():
                return layer(as_new(x))

        return forward
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    towards = torch.ones_like(layer(x))
    return lambda: torch.autograd.grad(layer(as_new(x)), (x, layer.weight), towards)


def as_new(x: Tensor) -> Tensor:
    """The same values in a tensor of its own: codes and ranges are remembered with a tensor, and are to be part of it."""
    return x.view_as(x)


def _search(times: Times) -> Outcome:
    with threads(times.threads):
        times.search = supernet_step.measured(times.device, times.quick)
    return Outcome(values=times.search)


def _kernels(times: Times) -> Outcome:
    """What codes and mixtures take by kernels, and by torch's operations."""
    for what, by_kernels, by_torch in layer_kernels.pairs(times.device, times.maps):
        with timing.tf32(False), torch.no_grad():
            (took, how), (others, other_how) = times.of(by_kernels), times.of(by_torch)
        measured = how if how == other_how else f"{how}, torch {other_how}"
        times.kernels.append({"what": what, "seconds": took, "by_torch": others, "measured": measured})
    return Outcome()
