"""Running a Triton kernel: whether a device can, and compiling it the first time."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from spaces.arithmetic.engines.waits import waits
from spaces.full_memory import is_full
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


def works(what: str, device: torch.device, lowest: tuple[int, int], agrees: Callable[[torch.device], bool]) -> bool:
    """Whether kernels may do on a GPU ``what`` torch's operations do, too: ``agrees`` tries them out there.

    Of those that fail or compute something else, a warning says so. To be asked once per device and process.
    """
    if device.type != "cuda" or device_refusal(device, lowest):
        return False
    try:
        with preparing(), torch.no_grad(), waits("default", device):
            reason = "" if agrees(device) else "what they compute is not what the CPU does"
    except Exception as error:  # whatever it is, no result can be had from these kernels
        if is_full(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if reason:
        warnings.warn(
            f"kernels for {what} are left out on {device} ({reason}): it is slower without them", stacklevel=2
        )
    return not reason


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
