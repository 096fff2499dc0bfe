"""fp32 that is fp32: without TensorFloat-32, which NVIDIA GPUs from Ampere on use for convolutions unless told otherwise.

TF32 keeps 11 bits of every factor (bfloat16, which a CPU may be told to use, 8). Sums of integers that must be exact are
not, then, and an "fp32" baseline is none.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_Settings = tuple[str | bool, ...]


def forbid_tf32() -> None:
    """Make every fp32 convolution and matrix product on GPUs one, in this process; for programs, not for libraries."""
    if _PER_OPERATOR:  # the general settings, which the others inherit
        torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def plain_fp32(device: torch.device) -> Iterator[None]:
    """Inside, convolutions and matrix products on the device are in fp32 throughout: without autocast and TF32."""
    before = settings(device)
    if not _less_than_fp32(before) and not torch.is_autocast_enabled(device.type):  # as nearly always, and at once
        yield
        return
    with torch.autocast(device.type, enabled=False):
        _set(device, ("ieee" if _PER_OPERATOR else False,) * len(before))
        try:
            yield
        finally:
            _set(device, before)


def tf32_allowed() -> bool:
    """Whether convolutions or matrix products on a GPU may use TF32 now."""
    return _less_than_fp32(settings(torch.device("cuda")))


_LESS = frozenset(("tf32", "bf16", True))


def _less_than_fp32(found: _Settings) -> bool:
    return not _LESS.isdisjoint(found)


# torch 2.9 brought one setting per operator. Where only one of cuDNN's was changed, reading the older, common one raises.
_PER_OPERATOR = hasattr(torch.backends.cudnn, "conv")


def settings(device: torch.device) -> _Settings:
    """Of convolutions and of matrix products on a device; on a CPU nothing before torch 2.9."""
    if _PER_OPERATOR and device.type == "cpu":
        return torch.backends.mkldnn.conv.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    if _PER_OPERATOR:
        return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    if device.type == "cpu":
        return ()
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def _set(device: torch.device, wanted: _Settings) -> None:
    if _PER_OPERATOR and device.type == "cpu":
        torch.backends.mkldnn.conv.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = wanted
    elif _PER_OPERATOR:
        torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = wanted
    else:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = wanted


@contextmanager
def mixtures_in_fp32() -> Iterator[None]:
    """Inside, layers that mix multipliers compute in fp32, whatever the mixture: functions without steps of the weights."""
    global _mixtures_in_fp32
    before, _mixtures_in_fp32 = _mixtures_in_fp32, True
    try:
        yield
    finally:
        _mixtures_in_fp32 = before


_mixtures_in_fp32 = False


def mixtures_compute_in_fp32() -> bool:
    """Whether this is inside ``mixtures_in_fp32``."""
    return _mixtures_in_fp32
