"""The device that a command computes on, its threads, and whether it repeats itself to the bit."""

import functools
import os

import torch

from evaluation.settings.config import DEVICES
from evaluation.training import distributed
from spaces.arithmetic.precision import forbid_tf32
from spaces.errors import InputError, suggest

TINY_IMAGE = 16  # pixels: below, two threads were slower than one on a machine with two cores


def choose_device(name: str, advice: str = "use --device cpu") -> torch.device:
    """The device for "auto", "cpu" or "cuda". Raises InputError, which ends with ``advice``, where it is not there."""
    if name not in DEVICES:
        raise suggest(name, DEVICES, "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: this torch sees no CUDA device; install a CUDA build, or {advice}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    forbid_tf32()  # fp32 baselines are of fp32 networks
    return distributed.own_device(name)


def use_threads(count: int, image_height: int) -> None:
    """Set torch's CPU threads; see ``Options.threads``."""
    _threads_by_default()
    if count == 0:
        count = 1 if image_height < TINY_IMAGE else _threads_by_default()
    torch.set_num_threads(count)


@functools.cache
def _threads_by_default() -> int:
    """The number that torch would use by itself, asked for before it was ever set."""
    return torch.get_num_threads()


def set_determinism(wanted: bool) -> None:
    """See ``Options.deterministic``. Results depend on no measured time otherwise: every engine gives the same sums."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(wanted)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads any
    torch.backends.cudnn.benchmark = False
