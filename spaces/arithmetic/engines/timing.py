"""How long each engine takes on this machine: measured once, kept on disk, used to choose.

The model: the time of a layer is a line in the number of factor channels, times the number of its products; one line for
each engine and kind of layer. Choices made from it change how long a layer takes and never what it computes.
"""

import functools
import platform
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from spaces import cache
from spaces.arithmetic.engines import graphs
from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers.families import broken_array
from spaces.multipliers.products import ProductTable, operand_table
from spaces.warmup import preparing

_REPEATS = 5
_LAUNCHES = 20  # of a convolution in one recorded graph
_VERSION = 5  # of the measurement, and of the loops that are measured
_MANY_TAPS = 16  # of a depthwise kernel, from which sums cost more than what is done once for each activation
_MAPS = (8, 32, 32)  # images, height and width of the layer that is timed
_LAYERS = {  # its weights' shape and geometry
    "dense": ((64, 64, 3, 3), Geometry(padding=(1, 1))),
    "depthwise": ((128, 1, 3, 3), Geometry(padding=(1, 1), groups=128)),
    "depthwise, large": ((128, 1, 5, 5), Geometry(padding=(2, 2), groups=128)),
}
_FEW, _SEVERAL = broken_array(0, 0, 0), broken_array(0, 0, 4)  # one factor channel, and five


def seconds(
    engine: ModuleType,
    table: ProductTable,
    w_shape: tuple[int, ...],
    geometry: Geometry,
    device: torch.device,
    threads: int,
) -> float:
    """Estimated seconds per output position of a layer with weights (O, C/groups, kH, kW)."""
    kind = "dense"
    if w_shape[1] == 1 and geometry.groups > 1:
        kind = "depthwise" if w_shape[2] * w_shape[3] < _MANY_TAPS else "depthwise, large"
    start, slope = _line(engine, kind, device, threads)
    return (start + slope * engine.channels(table)) * float(np.prod(w_shape))


@functools.cache
def _line(engine: ModuleType, kind: str, device: torch.device, threads: int) -> tuple[float, float]:
    """Seconds per product: at no factor channel, and for each one more."""
    name = engine.__name__.rsplit(".", 1)[-1]

    def measure() -> list[float]:
        tables = [operand_table(multiplier) for multiplier in (_FEW, _SEVERAL)]
        with preparing():
            times = [_measure(engine, table, *_LAYERS[kind], device) for table in tables]
        few, several = (engine.channels(table) for table in tables)
        slope = max(0.0, (times[1] - times[0]) / (several - few)) if several > few else 0.0
        return [max(0.0, times[0] - slope * few), slope]

    return kept(f"{name} {kind}", device, threads, measure)


def kept(what: str, device: torch.device, threads: int, measure: Callable[[], list[float]]) -> tuple[float, float]:
    """Two numbers that say how fast something is here; measured where no file keeps them."""
    file = f"costs-{_VERSION}-{_processor(device)}-torch{torch.__version__}-{threads}threads".replace(" ", "_")
    found = cache.load_json(file)
    found = found if isinstance(found, dict) else {}
    numbers = found.get(what)
    if not (isinstance(numbers, list) and len(numbers) == 2 and all(isinstance(value, float) for value in numbers)):
        numbers = found[what] = measure()
        cache.save_json(file, found)
    return numbers[0], numbers[1]


def _measure(
    engine: ModuleType, table: ProductTable, w_shape: tuple[int, ...], geometry: Geometry, device: torch.device
) -> float:
    """Seconds per product of the shortest of a few convolutions."""
    images, *size = _MAPS
    x = torch.full((images, w_shape[1] * geometry.groups, *size), 77, dtype=torch.uint8, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    packed = engine.pack(torch.full(w_shape, 99, dtype=torch.uint8, device=device), table, geometry)
    run: Callable[[], object] = lambda: engine.conv2d(x, packed, 0)  # noqa: E731
    run()
    if device.type == "cuda":
        with torch.cuda.device(device):
            times, _ = graphs.seconds(run, _LAUNCHES, _REPEATS)
    else:
        times = [_once(run) for _ in range(_REPEATS)]
    return min(times) / float(np.prod(_MAPS) * np.prod(w_shape))


def _once(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


@functools.cache
def _processor(device: torch.device) -> str:
    """The name of what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
