"""A device that is not there: tensors that say they lie on a GPU and compute on the CPU, and a count of who waits for it.

So the code for devices other than the CPU runs in tests without one. torch knows one device type that works without a
backend, "meta"; here its tensors have values. Copies from and to it, and values read from it, are what would make a host
wait for a GPU, and are counted with the place that asked for them. What CUDA computes otherwise than a CPU it does, too:
a division by a number is a multiplication by its reciprocal, ``lerp`` rounds once, and convolutions and matrix products
are in TF32 wherever that is allowed.
"""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from spaces.arithmetic import precision

DEVICE = torch.device("meta")
ROOT = Path(__file__).parents[1]
aten = torch.ops.aten
with torch.device("cpu"):
    torch.tensor(0)  # torch lists its constructors once: the real ones, not what is put in their place here


class OnDevice(Tensor):
    """Holds a tensor of the CPU, and says that it lies elsewhere."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self, **_: object) -> str:
        return f"OnDevice({self.held})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"{function} outside of tests.pretend.pretending")


def on_host(x: Tensor) -> Tensor:
    """The values, without counting: for what a test compares."""
    return (x.held if isinstance(x, OnDevice) else x).detach()


class _Device(TorchDispatchMode):
    """Runs operations on what tensors hold; what is made on the device is wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = [t for t in tensors if isinstance(t, OnDevice)]
        wanted = kwargs.get("device")
        target = torch.device(wanted) if wanted is not None else None
        if target is not None and target.type == DEVICE.type:
            kwargs["device"] = torch.device("cpu")
        to_device = target.type == DEVICE.type if target is not None else bool(there)
        if 0 < len(there) < len([t for t in tensors if t.dim() > 0 or isinstance(t, OnDevice)]):
            assert function in _COPIES, f"{function} of tensors on two devices"
        if self._waits(function, args, target, there):
            self.waits.append(_asked_by())
        results = _as_cuda(function, tree_map(_unwrapped, args), tree_map(_unwrapped, kwargs), bool(there))
        if function is aten.copy_.default or not to_device:
            return args[0] if function is aten.copy_.default else results
        return self._wrapped(function, results, args)

    @staticmethod
    def _waits(function, args, target, there) -> bool:
        """Whether a GPU would be waited for: values that decide what the host does, and copies."""
        if function in _READING:
            return bool(there)
        if function is aten._to_copy.default and target is not None:
            return (target.type == DEVICE.type) != bool(there)
        if function is aten.copy_.default:
            return isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice)
        if function in (aten.index.Tensor, aten.index_put_.default) and isinstance(args[0], OnDevice):
            where = [t for t in args[1] if t is not None]
            return any(t.dtype in (torch.bool, torch.uint8) or not isinstance(t, OnDevice) for t in where)
        return False

    @staticmethod
    def _wrapped(function, results, args):
        mutable = function._schema.is_mutable

        def wrap(result):
            if not isinstance(result, Tensor) or isinstance(result, OnDevice):
                return result
            if mutable and isinstance(args[0], OnDevice) and result is args[0].held:
                return args[0]
            return OnDevice(result)

        return tree_map(wrap, results)


_COPIES = (aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default)
_READING = (
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten.bincount.default, aten.unique_consecutive.default, aten._unique2.default, aten.repeat_interleave.Tensor,
)  # fmt: skip


def _as_cuda(function, args: tuple, kwargs: dict, there: bool) -> object:
    """The result of an operation on the CPU, or, if it is on the device, rounded as on CUDA."""
    if not there:
        return function(*args, **kwargs)
    if function is aten.div.Tensor and args[0].dtype == torch.float32 and not isinstance(args[1], Tensor):
        return args[0] * float(np.float32(1) / np.float32(args[1]))
    if function is aten.lerp.Scalar:
        return aten.lerp.Scalar(args[0].double(), args[1].double(), args[2]).float()
    convolutions, products = (setting in ("tf32", True) for setting in precision.settings(DEVICE))
    if (function in _CONVOLUTIONS and convolutions) or (function in _PRODUCTS and products):
        args = tuple(_to_tf32(a) if isinstance(a, Tensor) and a.dtype == torch.float32 else a for a in args)
    return function(*args, **kwargs)


_CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
_PRODUCTS = (aten.mm.default, aten.mv.default, aten.addmm.default, aten.bmm.default)


def _to_tf32(x: Tensor) -> Tensor:
    """Rounded to the 11 bits that TF32 keeps."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


def _unwrapped(value: object) -> object:
    return value.held if isinstance(value, OnDevice) else value


def _asked_by() -> str:
    """The line of the suite that asked."""
    frames = [
        f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT) and "tests" not in f.filename
    ]
    return (
        f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno} {frames[-1].line}" if frames else "a test"
    )


class _Generator(torch.Generator):
    """Random numbers of the device are the CPU's."""

    def __new__(cls, device: object = "cpu") -> "_Generator":  # noqa: ARG004
        return super().__new__(cls, device="cpu")


def _tensor(made: Callable[..., Tensor], data: object, device: object = None, **more: object) -> Tensor:
    """``torch.tensor``: a number needs no dispatcher to become a tensor of "meta", which would have no value."""
    if device is None or torch.device(device).type != DEVICE.type:
        return made(data, device=device, **more)
    return made(data, device="cpu", **more).to(device)


@contextlib.contextmanager
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Inside, ``DEVICE`` works. Yields the list of places where it had to be waited for."""
    autocast, enabled, tensor = torch.autocast, torch.is_autocast_enabled, torch.tensor
    with monkeypatch.context() as patch:
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "tensor", functools.partial(_tensor, tensor))
        patch.setattr(torch, "is_autocast_enabled", lambda *kind: kind != (DEVICE.type,) and enabled(*kind))
        patch.setattr(
            torch,
            "autocast",
            lambda kind, **more: contextlib.nullcontext() if kind == DEVICE.type else autocast(kind, **more),
        )
        with _Device() as device:
            yield device.waits
