"""The ledger on a made-up clock, with a made-up GPU and a made-up NVML, against sums by hand."""

import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest
import torch

from evaluation.cli import summary
from evaluation.runs import nvml
from evaluation.runs.ledger import Ledger
from evaluation.runs.record import MEASURING, STAGES, Record
from spaces import warmup
from spaces.cli.terminal import Terminal
from tests.made_records import record

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Clock:
    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


class FakeNvml:
    """Boards by physical number; the first draws 10 W, the second 20 W, the third 40 W."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    UUIDS = ("GPU-aaaa", "GPU-bbbb", "GPU-cccc")
    PLACES = ("00000000:01:00.0", "00000000:AF:00.0", "0000000A:02:00.0")

    def __init__(self, clock: Clock) -> None:
        self.clock, self.silent, self.sm = clock, set(), 1980

    def _answer(self, name: str, value):
        if name in self.silent:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlInit(self) -> None:
        self._answer("init", None)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in self.UUIDS:
            raise self.NVMLError("Not Found")
        return self.UUIDS.index(uuid)

    def nvmlDeviceGetHandleByPciBusId(self, place: str) -> int:
        if place not in self.PLACES:
            raise self.NVMLError("Not Found")
        return self.PLACES.index(place)

    def nvmlDeviceGetTotalEnergyConsumption(self, board: int) -> int:
        return self._answer("energy", round((10_000 << board) * self.clock.now))

    def nvmlDeviceGetClockInfo(self, board: int, kind: int) -> int:  # noqa: ARG002
        return self._answer("clock", self.sm if kind == 1 else 2619)

    def nvmlDeviceGetEnforcedPowerLimit(self, board: int) -> int:
        return self._answer("limit", 700_000 + board)

    def nvmlSystemGetDriverVersion(self) -> str:
        return self._answer("driver", "570.1")


@pytest.fixture
def machine(monkeypatch, clock) -> SimpleNamespace:
    """Three GPUs, of which CUDA_VISIBLE_DEVICES=2,0 leaves two."""
    fake = SimpleNamespace(nvml=FakeNvml(clock), peak=0, clock=clock, waits=0)
    visible = [SimpleNamespace(uuid="cccc"), SimpleNamespace(uuid="aaaa")]

    def wait(_) -> None:
        fake.waits += 1

    for name, value in {
        "synchronize": wait,
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: fake.peak,
        "get_device_name": lambda _: "Test 1000",
        "device_count": lambda: len(visible),
        "current_device": lambda: 0,
        "get_device_properties": lambda index: visible[index],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", fake.nvml)
    fake.visible = visible
    return fake


def spend(ledger: Ledger, stage: str, seconds: float, **arguments) -> None:
    with ledger.measure(stage, **arguments):
        ledger_clock(ledger).pass_(seconds)


def ledger_clock(ledger: Ledger) -> Clock:
    return ledger.boards[0]._nvml.clock


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_stage_is_booked_with_its_devices_also_where_it_fails(clock):
    ledger = Ledger(CPU)
    with ledger.measure("search"):
        clock.pass_(3)
    clock.pass_(100)
    with pytest.raises(ValueError), ledger.measure("final", devices=4):
        clock.pass_(2)
        raise ValueError
    ledger.book("final", 1.5)
    assert ledger.device_seconds("search") == 3
    assert (ledger.booked["final"]["wall_seconds"], ledger.device_seconds("final")) == (3.5, 9.5)
    assert ledger.total() == 12.5
    assert ledger.describe_device()["count"] == 4 and ledger.booked["search"]["devices"] == 1


def test_a_gpu_is_waited_for_at_both_ends_and_no_more(machine):
    ledger = Ledger(GPU)
    with ledger.measure("search"):
        assert machine.waits == 1
    assert machine.waits == 2


def test_a_ledger_survives_a_stop(machine):
    ledger = Ledger(GPU)
    machine.peak = 70
    spend(ledger, "search", 3)
    again = Ledger(GPU, ledger.to_json())
    assert again.to_json() == ledger.to_json()
    machine.peak = 50
    spend(again, "search", 2)
    row = again.booked["search"]
    assert (row["wall_seconds"], row["joules"], row["peak_memory_bytes"]) == (5, 5 * 40, 70)


def test_an_older_checkpoint_knows_no_energy(machine):
    old = {
        "search": {"device_seconds": 7.0, "wall_seconds": 7.0},
        "final": {"device_seconds": 0.0, "wall_seconds": 0.0},
    }
    ledger = Ledger(GPU, old)
    for stage in ("search", "final"):
        spend(ledger, stage, 1)
    assert ledger.device_seconds("search") == 8
    assert (ledger.booked["search"]["joules"], ledger.booked["final"]["joules"]) == (None, 40)
    assert machine.nvml.sm == ledger.booked["search"]["sm_clock_mhz"]


# -- energy, clocks, memory --------------------------------------------------------------------------------------------


def test_energy_is_that_of_the_visible_board_in_the_stage_alone(machine):
    ledger = Ledger(GPU)  # torch's first GPU is the machine's third: 40 W
    spend(ledger, "search", 3)
    machine.clock.pass_(50)
    machine.nvml.sm = 1200
    spend(ledger, "final", 2, devices=1)
    joules = {stage: row["joules"] for stage, row in ledger.booked.items()}
    assert joules == {"search": 120, "selection": 0, "final": 80, "test": 0, MEASURING: 0}
    assert (ledger.booked["search"]["sm_clock_mhz"], ledger.booked["final"]["sm_clock_mhz"]) == (1980, 1200)
    assert ledger.booked["final"]["memory_clock_mhz"] == 2619 and ledger.booked["test"]["sm_clock_mhz"] is None
    expected = {"type": "cuda", "name": "Test 1000", "count": 1, "driver": "570.1", "power_limit_watts": 700.002}
    assert ledger.describe_device() == expected


def test_a_board_is_found_by_its_place_where_its_name_is_not_known(machine):
    machine.visible[:] = [SimpleNamespace(uuid="dddd", pci_domain_id=0, pci_bus_id=0xAF, pci_device_id=0)]
    ledger = Ledger(GPU)
    spend(ledger, "search", 3)
    assert ledger.booked["search"]["joules"] == 60  # the machine's second: 20 W


def test_energy_of_several_devices_is_their_sum_on_one_machine(machine, monkeypatch):
    ledger = Ledger(GPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    spend(ledger, "final", 3, devices=2)
    assert ledger.booked["final"]["joules"] == 3 * (40 + 10)
    spend(ledger, "test", 3, devices=3)  # only two are seen here
    assert ledger.booked["test"]["joules"] is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # the other one is in another machine, whatever is seen here
    spend(ledger, "final", 3, devices=2)
    assert ledger.booked["final"]["joules"] is None
    assert machine.waits == 6


@pytest.mark.parametrize("missing", ["energy", "init", "package", "board"])
def test_what_nvml_does_not_tell_is_null(machine, monkeypatch, missing):
    if missing == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    elif missing == "board":
        machine.visible[0] = SimpleNamespace(uuid="dddd")
    else:
        machine.nvml.silent = {missing}
    ledger = Ledger(GPU)
    with ledger.measure("search"):
        machine.clock.pass_(3)
    row = ledger.booked["search"]
    assert (row["joules"], row["wall_seconds"]) == (None, 3)
    known = missing == "energy"
    assert row["sm_clock_mhz"] == (1980 if known else None)
    assert ledger.describe_device()["driver"] == ("570.1" if known else None)


def test_there_are_no_boards_for_a_cpu(machine):
    assert nvml.boards(CPU) == [] and machine.waits == 0
    assert Ledger(CPU).describe_device().keys() == {"type", "name", "count", "threads"}


def test_the_peak_of_memory_is_kept_by_stage(machine):
    ledger = Ledger(GPU)
    for stage, peak in (("search", 500), ("search", 300), ("final", 200)):
        machine.peak = peak
        spend(ledger, stage, 1)
    assert [ledger.booked[s]["peak_memory_bytes"] for s in STAGES] == [500, None, 200, None]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_on_a_cpu_the_peak_is_that_of_the_process():
    ledger = Ledger(CPU)
    with ledger.measure("search"):
        pass
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    assert ledger.booked["search"]["peak_memory_bytes"] == pytest.approx(peak, rel=0.05)


# -- getting ready -----------------------------------------------------------------------------------------------------


def test_warm_up_is_a_part_of_its_stage(clock):
    ledger = Ledger(CPU)
    with warmup.preparing():
        clock.pass_(50)  # before the stage
    with ledger.measure("search", devices=2):
        clock.pass_(3)
        with warmup.preparing():
            clock.pass_(1)
            with warmup.preparing():
                clock.pass_(0.5)
    row = ledger.booked["search"]
    assert (row["wall_seconds"], row["device_seconds"], row["warm_up_seconds"]) == (4.5, 9, 3)
    assert ledger.total() == 9


def test_warm_up_that_fails_is_counted(clock):
    before = warmup.seconds()
    with pytest.raises(ValueError), warmup.preparing():
        clock.pass_(2)
        raise ValueError
    clock.pass_(5)
    with warmup.preparing():
        clock.pass_(1)
    assert warmup.seconds() - before == 3


def test_what_numba_compiles_is_warm_up_and_what_it_runs_is_not():
    @numba.njit
    def inner(x):
        return x * 2 + 1

    @numba.njit
    def outer(x):
        return inner(x) + inner(x + 1)

    before, began = warmup.seconds(), time.perf_counter()
    assert outer(3) == 16
    wall, counted = time.perf_counter() - began, warmup.seconds() - before
    assert 0.5 * wall < counted <= wall  # nested compilations count once
    assert outer(4) == 20
    assert warmup.seconds() - before == counted


@pytest.mark.parametrize(
    ("device", "steps", "expected"),
    [
        (GPU, [10, 1, 1, 30], 9),  # later steps are not waited for
        (GPU, [1.9, 1, 1], 0),  # no more than steps differ anyway
        (GPU, [10], 0),  # nothing to compare with
        (CPU, [10, 1, 1], 0),
    ],
)
def test_a_gpus_first_step_is_warm_up_beyond_the_second(machine, device, steps, expected):
    before = warmup.seconds()
    for number, _ in zip(steps, warmup.first_step_watched(iter(steps), device)):
        machine.clock.pass_(number)
    seen = list(warmup.first_step_watched(iter(steps), device))
    assert warmup.seconds() - before == expected and seen == steps


def test_warm_up_within_a_first_step_is_counted_once(machine):
    before = warmup.seconds()
    for number in warmup.first_step_watched(range(3), GPU):
        machine.clock.pass_(1)
        if number == 0:
            with warmup.preparing():
                machine.clock.pass_(4)
            machine.clock.pass_(5)
    assert warmup.seconds() - before == 9
    assert machine.waits == 4


# -- the table ---------------------------------------------------------------------------------------------------------


def table_of(ledger: Ledger) -> str:
    console = Terminal(file=io.StringIO(), width=100)
    booked = {"device": ledger.describe_device(), "ledger": ledger.to_json()}
    console.print(summary._times(Record.from_json(record() | booked)))
    return console.file.getvalue()


def test_the_table_shows_joules_and_warm_up_where_there_are_any(machine):
    ledger = Ledger(GPU)
    spend(ledger, "search", 100)
    assert "warm-up" not in table_of(ledger)
    with ledger.measure("final"), warmup.preparing():
        machine.clock.pass_(7)
    lines = {line.strip().split("  ")[0]: line.split() for line in table_of(ledger).splitlines() if "  " in line}
    assert lines["joules"][1:] == ["4,000", "0", "280", "0", "4,280"]
    assert lines["of it warm-up, s"][-5:] == ["0", "0", "7.00", "0", "7.00"]
    ledger.book("test", 3.0)
    shown = table_of(ledger)
    assert "joules" in shown and shown.count("–") == 2  # of the test, and so of all
    assert "joules" not in table_of(Ledger(CPU))
