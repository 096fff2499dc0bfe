"""fp32 that is fp32: without TensorFloat-32, which NVIDIA GPUs from Ampere on use for convolutions unless told otherwise.

TF32 keeps 11 bits of every factor. Sums of integers that must be exact are not, then, and an "fp32" baseline is none.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def forbid_tf32() -> None:
    """Make every fp32 convolution and matrix product of this process one; for programs, not for libraries."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def plain_fp32(device: torch.device) -> Iterator[None]:
    """Inside, convolutions and matrix products on the device are in fp32 throughout: without autocast and TF32."""
    with torch.autocast(device.type, enabled=False):
        if device.type == "cpu" or not tf32_allowed():
            yield
            return
        before = _settings()
        _set(_OFF)
        try:
            yield
        finally:
            _set(before)


def tf32_allowed() -> bool:
    """Whether convolutions or matrix products of this process may use TF32 now."""
    return any(setting in ("tf32", True) for setting in _settings())


# torch 2.9 brought one setting per operator. Where only one of cuDNN's was changed, reading the older, common one raises.
_PER_OPERATOR = hasattr(torch.backends.cudnn, "conv")
_OFF = ("ieee", "ieee") if _PER_OPERATOR else (False, False)


def _settings() -> tuple[str | bool, str | bool]:
    """Of convolutions and of matrix products."""
    if _PER_OPERATOR:
        return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def _set(settings: tuple[str | bool, str | bool]) -> None:
    if _PER_OPERATOR:
        torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = settings
    else:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = settings
