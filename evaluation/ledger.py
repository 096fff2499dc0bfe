"""Who used the device for how long: device-seconds = synchronised wall time × devices, booked apart by stage."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STAGES = ("search", "selection", "final", "test")
MEASURING = "snapshots"  # time spent on watching a search, which is none of its own


class Ledger:
    """Seconds by stage. Survives a stop: its JSON form is saved with every checkpoint."""

    def __init__(self, device: torch.device, booked: dict | None = None) -> None:
        self.device, self.devices = device, 1
        self.booked = {stage: {"device_seconds": 0.0, "wall_seconds": 0.0} for stage in (*STAGES, MEASURING)}
        for stage, times in (booked or {}).items():
            self.booked[stage].update(times)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Book the block's time to ``stage``; work already queued on the device is waited for at both ends."""
        self._synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:  # a training that fails has used the device all the same
            self._synchronise()
            self.book(stage, time.perf_counter() - start)

    def book(self, stage: str, seconds: float) -> None:
        """Book wall time that was measured elsewhere."""
        self.booked[stage]["device_seconds"] += seconds * self.devices
        self.booked[stage]["wall_seconds"] += seconds

    def device_seconds(self, stage: str) -> float:
        return self.booked[stage]["device_seconds"]

    def total(self) -> float:
        """Device-seconds of all stages, without those of snapshots."""
        return sum(self.device_seconds(stage) for stage in STAGES)

    def to_json(self) -> dict:
        return {stage: dict(times) for stage, times in self.booked.items()}

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def describe_device(device: torch.device) -> dict:
    """Type, name and number of devices, for the record."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "count": 1}
    return {"type": "cpu", "name": _processor_name(), "count": 1, "threads": torch.get_num_threads()}


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
