"""Who used the device for how long: device-seconds = synchronised wall time × devices, booked apart by stage.

Beside the time: the trained work, which no other load of the machine can change (``spaces.work``); how much of it went
into getting ready, the energy that the GPUs drew, their clocks, the memory used.
"""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from evaluation.runs import nvml
from evaluation.runs.record import MEASURING, STAGES
from spaces import warmup


class Booked(TypedDict):
    """A row of the ledger while a run goes on, as checkpoints hold it."""

    device_seconds: float
    wall_seconds: float
    warm_up_seconds: float  # of the device-seconds: compiling and the like
    devices: int  # the most that were used at once
    joules: float | None  # that the GPUs drew in this time; None where it is not known of all of it
    peak_memory_bytes: int | None  # of the first device; on a CPU: of the process, since it was started
    sm_clock_mhz: int | None  # of the first GPU, at the end of the stage
    memory_clock_mhz: int | None
    work: float | None  # trained, in MACs: see spaces.work; None where it is not known of all of it


NOTHING: Booked = {
    "device_seconds": 0.0,
    "wall_seconds": 0.0,
    "warm_up_seconds": 0.0,
    "devices": 1,
    "joules": 0.0,
    "peak_memory_bytes": None,
    "sm_clock_mhz": None,
    "memory_clock_mhz": None,
    "work": 0.0,
}


@dataclass(frozen=True)
class _Reading:
    seconds: float
    warm_up: float
    joules: float | None


class Ledger:
    """What each stage took. Survives a stop: its JSON form is saved with every checkpoint."""

    def __init__(self, device: torch.device, booked: dict[str, Any] | None = None) -> None:
        self.device, self.boards = device, nvml.boards(device)
        self.booked = {stage: NOTHING.copy() for stage in (*STAGES, MEASURING)}
        for stage, row in (booked or {}).items():
            for later in ("joules", "work"):  # if an older checkpoint has none
                self.booked[stage][later] = None if row["wall_seconds"] else 0.0
            self.booked[stage].update(row)

    @contextmanager
    def measure(self, stage: str, devices: int = 1) -> Iterator["Meter"]:
        """Book the block's time to ``stage``; work already queued on the device is waited for at both ends."""
        meter = Meter(self, stage, devices)
        try:
            yield meter
        finally:  # a training that fails has used the device all the same
            meter.book()

    def book(
        self,
        stage: str,
        seconds: float,
        warm_up: float = 0.0,
        joules: float | None = None,
        devices: int = 1,
        beside: float = 0.0,
    ) -> None:
        """Book wall time, and the warm-up within it. Joules of all devices together; None where they are not known.

        ``beside``: device-seconds of jobs that ran side by side, as far as they exceed the wall time that they took.
        """
        row = self.booked[stage]
        row["device_seconds"] += seconds * devices + beside
        row["wall_seconds"] += seconds
        row["warm_up_seconds"] += warm_up * devices
        row["devices"] = max(row["devices"], devices)
        drawn = row["joules"]
        row["joules"] = None if drawn is None or joules is None else drawn + joules

    def add_work(self, stage: str, macs: float) -> None:
        """Book trained work."""
        done = self.booked[stage]["work"]
        self.booked[stage]["work"] = None if done is None else done + macs

    def set_work(self, stage: str, macs: float) -> None:
        """Book trained work that is known as a sum."""
        if self.booked[stage]["work"] is not None:
            self.booked[stage]["work"] = macs

    def device_seconds(self, stage: str) -> float:
        return self.booked[stage]["device_seconds"]

    def total(self) -> float:
        """Device-seconds of all stages, without those of snapshots."""
        return sum(self.device_seconds(stage) for stage in STAGES)

    def total_work(self) -> float | None:
        """Trained work of all stages, without that of snapshots; None where it is not known."""
        known = [done for stage in STAGES if (done := self.booked[stage]["work"]) is not None]
        return sum(known) if len(known) == len(STAGES) else None

    def to_json(self) -> dict[str, Booked]:
        return {stage: row.copy() for stage, row in self.booked.items()}

    def describe_device(self) -> dict[str, Any]:
        """Type, name and number of devices, for the record."""
        count = max(row["devices"] for row in self.booked.values())
        if self.device.type != "cuda":
            return {"type": "cpu", "name": _processor_name(), "count": count, "threads": torch.get_num_threads()}
        facts = self.boards[0].facts() if self.boards else {"driver": None, "power_limit_watts": None}
        return {"type": "cuda", "name": torch.cuda.get_device_name(self.device), "count": count, **facts}

    def _read(self, devices: int) -> _Reading:
        if not self.boards:
            return _Reading(time.perf_counter(), warmup.seconds(), None)
        drawn = [joules for board in self.boards[:devices] if (joules := board.joules()) is not None]
        # Of several machines, only this one's boards can be read.
        known = devices <= min(len(drawn), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        return _Reading(time.perf_counter(), warmup.seconds(), sum(drawn) if known else None)

    def _look(self, stage: str) -> None:
        row = self.booked[stage]
        peaks = (row["peak_memory_bytes"], self._peak_memory())
        row["peak_memory_bytes"] = max((peak for peak in peaks if peak is not None), default=None)
        if self.boards:
            row["sm_clock_mhz"], row["memory_clock_mhz"] = self.boards[0].clocks()

    def _peak_memory(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:  # not on Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Meter:
    """Measures a stretch of a stage; ``book`` may be called on the way, so that what was spent so far is in the ledger."""

    def __init__(self, ledger: Ledger, stage: str, devices: int) -> None:
        self.ledger, self.stage, self.devices = ledger, stage, devices
        self.start()
        if ledger.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(ledger.device)

    def start(self) -> None:
        """What was before is not booked."""
        self.ledger._synchronise()
        self._before = self.ledger._read(self.devices)

    @property
    def seconds(self) -> float:
        """Wall time since the last call of ``book``."""
        return time.perf_counter() - self._before.seconds

    def book(self, waited: float = 0.0, jobs: float = 0.0) -> None:
        """Book the time since the last call: all of it but what was ``waited`` for jobs, and the jobs' own seconds."""
        self.ledger._synchronise()
        before, after = self._before, self.ledger._read(self.devices)
        joules = None if before.joules is None or after.joules is None else after.joules - before.joules
        wall, warm_up = after.seconds - before.seconds, after.warm_up - before.warm_up
        self.ledger.book(self.stage, wall, warm_up, joules, self.devices, (jobs - waited) * self.devices)
        self.ledger._look(self.stage)
        self._before = after


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
