"""What NVIDIA's management library (package nvidia-ml-py, optional) tells of a GPU: driver, clocks, limit, energy."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch


class Board:
    """One GPU. Whatever the board, the driver or a container does not tell is None."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._nvml, self._handle = library, handle

    def joules(self) -> float | None:
        """Energy drawn since the driver was loaded (boards since Volta)."""
        return _scaled(self._ask("nvmlDeviceGetTotalEnergyConsumption"), 1000)

    def clocks(self) -> tuple[int | None, int | None]:
        """Of the multiprocessors and of the memory, in MHz, at this moment."""
        kinds = (self._nvml.NVML_CLOCK_SM, self._nvml.NVML_CLOCK_MEM)
        return tuple(self._ask("nvmlDeviceGetClockInfo", kind) for kind in kinds)

    def facts(self) -> dict[str, str | float | None]:
        """What stays the same during a run."""
        driver = self._try(lambda: self._nvml.nvmlSystemGetDriverVersion())
        limit = _scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit"), 1000)
        return {"driver": driver, "power_limit_watts": limit}

    def _ask(self, function: str, *arguments: Any) -> Any:
        return self._try(lambda: getattr(self._nvml, function)(self._handle, *arguments))

    def _try(self, question: Callable[[], Any]) -> Any:
        with contextlib.suppress(self._nvml.NVMLError, AttributeError):
            return question()
        return None


def boards(device: torch.device) -> list[Board]:
    """The GPUs of this process, that of ``device`` first; none on a CPU, without the library or without its driver."""
    library = _library() if device.type == "cuda" else None
    if library is None:
        return []
    own = torch.cuda.current_device() if device.index is None else device.index
    others = [index for index in range(torch.cuda.device_count()) if index != own]
    found: list[Board] = []
    for index in (own, *others):
        board = _find(library, torch.cuda.get_device_properties(index))
        if board is None:  # beyond it, boards could not be told apart by their place
            break
        found.append(board)
    return found


def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _find(library: Any, properties: Any) -> Board | None:
    """By identity: NVML counts all boards of the machine, torch those that CUDA_VISIBLE_DEVICES leaves it, in its order."""
    uuid = getattr(properties, "uuid", None)
    lookups = [(library.nvmlDeviceGetHandleByUUID, f"{kind}-{uuid}") for kind in ("GPU", "MIG") if uuid is not None]
    if hasattr(properties, "pci_bus_id"):
        place = (getattr(properties, "pci_domain_id", 0), properties.pci_bus_id, properties.pci_device_id)
        lookups.append((library.nvmlDeviceGetHandleByPciBusId, "{:08X}:{:02X}:{:02X}.0".format(*place)))
    for look_up, name in lookups:
        with contextlib.suppress(library.NVMLError):
            return Board(library, look_up(name))
    return None


def _scaled(value: float | None, divisor: float) -> float | None:
    return None if value is None else value / divisor
