"""Where the check ran: versions, the device, and how fp32 is computed there."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from evaluation.device_check.checks import ENVIRONMENT, Check, Outcome
from evaluation.runs import nvml
from spaces.arithmetic import precision

PACKAGES = ("approxnas-bench", "torch", "triton", "numba", "numpy")
MATRIX_UNITS = ("amx_int8", "avx512_vnni", "avx_vnni")  # as Linux names them


def checks(device: torch.device) -> list[Check]:
    """One check: nothing here can be wrong but that it cannot be read."""
    return [Check(ENVIRONMENT, "facts", lambda: Outcome(values=facts(device)))]


def facts(device: torch.device) -> dict[str, Any]:
    """Everything that a report of a device should say; None where it is not known or there is no such thing."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "device": _device(device),
        "cpu": _cpu(),
        "tf32": {"process": _tf32(), "suite": _tf32_in_the_suite(device)} if device.type == "cuda" else None,
        "cudnn_flags": {
            name: getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")
        },
        "nvml": _nvml(device),
    }


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for a person: labels and short texts."""
    packages, device, cpu = found["packages"], found["device"], found["cpu"]
    units = ", ".join(name for name, there in cpu["matrix_units"].items() if there) or "none known"
    said = [
        ("python, torch", f"{found['python']}, {packages['torch']}"),
        ("triton", packages["triton"] or "not installed"),
        ("CPU", f"{cpu['name']}; {cpu['threads']} of {cpu['cores']} cores"),
        ("its units for bytes", units),
    ]
    if device["type"] != "cuda":
        return said
    tf32 = [f"{where} {'on' if on else 'off'}" for where, on in found["tf32"].items()]
    board = found["nvml"] or {}
    return [
        *said,
        ("GPU", f"{device['name']}; {device['memory_bytes'] / 2**30:.0f} GiB"),
        ("capability", device["capability"]),
        ("CUDA, cuDNN, driver", f"{found['cuda']}, {found['cudnn']}, {board.get('driver') or 'unknown'}"),
        ("TF32", ", ".join(tf32)),
        ("NVML answers", "yes" if found["nvml"] else "no: neither energy nor clocks will be recorded"),
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"type": device.type, "name": _cpu()["name"], "capability": None, "memory_bytes": None}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "count": torch.cuda.device_count(),
    }


def _cpu() -> dict[str, Any]:
    name, flags = platform.processor() or platform.machine(), set()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        label, _, text = line.partition(":")
        if label.strip() == "model name":
            name = text.strip()
        elif label.strip() == "flags":
            flags = set(text.split())
    units = {unit: unit in flags for unit in MATRIX_UNITS}
    return {"name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "matrix_units": units}


def _tf32() -> bool:
    """Whether fp32 convolutions or matrix products may be in TF32."""
    return precision.tf32_allowed()


def _tf32_in_the_suite(device: torch.device) -> bool:
    """The same where the suite's own convolutions run."""
    with precision.plain_fp32(device):
        return _tf32()


def _nvml(device: torch.device) -> dict[str, Any] | None:
    boards = nvml.boards(device)
    if not boards:
        return None
    sm, memory = boards[0].clocks()
    return {**boards[0].facts(), "sm_clock_mhz": sm, "memory_clock_mhz": memory, "joules": boards[0].joules()}
