"""Running a Triton kernel: whether a device can, and compiling it the first time."""

import contextlib
import functools
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from spaces.warmup import preparing

LOWEST_CAPABILITY = (7, 0)  # what PyTorch's own use of Triton asks for


@functools.cache
def kernels() -> ModuleType | None:
    """The kernels, imported when they are first asked for, since that takes a while; None without Triton."""
    try:
        from spaces.arithmetic.engines.gpu import kernels as triton_kernels
    except ImportError:
        return None
    return triton_kernels


def device_refusal(device: torch.device, lowest: tuple[int, int]) -> str:
    """Why no Triton kernel can run on the device; '' when it can. It asks for CUDA and a compute capability.

    Triton's interpreter (TRITON_INTERPRET=1, for tests) runs kernels on the CPU.
    """
    interpreted = "TRITON_INTERPRET" in os.environ and getattr(kernels(), "INTERPRETED", False)
    if device.type == "cpu" and interpreted:
        return ""
    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
    if kernels() is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < lowest:
        needed, found = ("{}.{}".format(*version) for version in (lowest, capability))
        return f"it needs a device of compute capability {needed} or higher, not {found}"
    return ""


@functools.cache
def runs_kernels(device: torch.device) -> bool:
    """Whether what torch's operations compute on a GPU may be left to Triton kernels there."""
    return device.type == "cuda" and not device_refusal(device, LOWEST_CAPABILITY)


_compiled: set[tuple[Any, ...]] = set()  # variants of kernels that have run in this process


def launch(name: str, programs: int, first: Tensor, *others: Tensor | int, **constants: int | float | bool) -> None:
    """Run a kernel on the device of its first argument. What compiling it takes counts as getting ready."""
    kernel, device, arguments = getattr(kernels(), name), first.device, (first, *others)
    kinds = tuple((a.dtype, a.data_ptr() % 16 == 0) for a in arguments if isinstance(a, Tensor))
    variant = (name, device, kinds, *constants.values())
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        if variant in _compiled:
            kernel[(programs,)](*arguments, **constants)
            return
        with preparing():
            kernel[(programs,)](*arguments, **constants)
    _compiled.add(variant)
