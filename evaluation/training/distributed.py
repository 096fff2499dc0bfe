"""Final training on several devices: the processes that torchrun starts, and how they share a training.

The first process runs the program as ever: it alone searches, prints and writes files. The others wait for trainings,
build the same network and train in step with it. Every process draws the whole batch, in the same order and with the same
augmentation, and takes its share of it; DistributedDataParallel averages the gradients. So the batch is what it would be
on one device, however many there are. Batch normalisation and the activation scales see a process's own share, as is
usual; the averages that are kept are those of the first process.
"""

import datetime
import io
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evaluation.training import memory
from spaces.errors import InputError

PATIENCE = datetime.timedelta(days=60)  # the others wait for as long as a search takes


@dataclass(frozen=True)
class Team:
    """The processes that train together."""

    rank: int = 0
    size: int = 1

    def share(self, batch: int) -> slice:
        """The part of a batch that this process takes; parts differ by at most one image."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def wrap(self, loss: nn.Module, device: torch.device) -> nn.Module:
        """``loss`` with gradients averaged over all processes, which must hold the same networks."""
        if self.size == 1:
            return loss
        # A 1×1 kernel's strides have several names, about which torch complains.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        devices = [device.index] if device.type == "cuda" else None
        # A network may have parts that no output depends on: the same ones in every step, which is what static means.
        return nn.parallel.DistributedDataParallel(loss, device_ids=devices, static_graph=True)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value


ALONE = Team()
_team = ALONE


def team() -> Team:
    """Of this process; of size 1 where torchrun did not start it."""
    return _team


@contextmanager
def joined() -> Iterator[None]:
    """Work together with the other processes that torchrun started. At the end the first one sends the others home.

    Raises InputError where they cannot be found.
    """
    global _team
    try:
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        _team = Team(dist.get_rank(), dist.get_world_size())
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the processes of this run cannot meet ({reason}); start them with torchrun") from None
    try:
        yield
    finally:
        # Others that have died, or that are in the middle of a training, hear nothing; torchrun ends them.
        with suppress(RuntimeError):
            if _team.rank == 0 and not _training:
                send({})
            dist.destroy_process_group()
        _team = ALONE


_training = False


@contextmanager
def training_together() -> Iterator[None]:
    """Around a training of the team. Raises InputError where it fails in one process alone: the run can be resumed.

    A loss that is not finite is the same in all processes, and memory that is full has its own advice.
    """
    global _training
    if _team.size == 1:
        yield
        return
    _training = True
    try:
        yield
    except FloatingPointError:
        _training = False
        raise
    except (RuntimeError, MemoryError, ValueError) as error:
        if isinstance(error, InputError) or memory.is_full(error):
            raise
        time.sleep(
            1
        )  # others often get a SIGTERM to all of them earlier: it takes precedence over what follows from it
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"the training on {_team.size} devices broke off ({why}); go on with --resume") from error
    _training = False


def announce(folder: str, device: str) -> None:
    """From the first process to all others: which run the next jobs belong to, and the type of device to compute on."""
    if _team.size > 1:
        send({"folder": folder, "device": device})


def send(job: dict[str, Any]) -> None:
    """From the first process to all others, which ``receive``. Plain values and tensors; an empty job is the last one."""
    file = io.BytesIO()
    torch.save(job, file)
    content = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    dist.broadcast(torch.tensor([len(content)]), src=0)
    dist.broadcast(content, src=0)


def receive() -> dict[str, Any]:
    """The next job of the first process."""
    length = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(length, src=0)
    content = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)


def own_device(kind: str) -> torch.device:
    """The device of this process: each has a GPU of its own. Raises InputError where there are too few."""
    if kind != "cuda":
        return torch.device(kind)
    if _team.size == 1:  # with its number, as tensors have it: what is kept for a device is found again
        return torch.device(kind, torch.cuda.current_device())
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise InputError(f"torchrun started more processes than there are GPUs; use --nproc-per-node {count}")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
