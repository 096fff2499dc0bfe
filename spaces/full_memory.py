"""How it shows that memory ran out."""

import torch

_SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of CUDA, of torch on a CPU, of cuBLAS and cuDNN


def is_full(error: BaseException) -> bool:
    """Whether this exception says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
