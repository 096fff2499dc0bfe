"""Training of one network: a loop that reads top to bottom, one epoch at a time, resumable between epochs."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.datasets import ImageSet
from evaluation.settings.protocols import Protocol
from evaluation.training import memory
from evaluation.training.distributed import ALONE, Team
from spaces.arithmetic.quantise import divided
from spaces.warmup import first_step_watched

EVALUATION_BATCH, SMALLEST_EVALUATION_BATCH = 512, 64


@dataclass(frozen=True)
class Schedule:
    """One training: SGD with momentum, learning rate falling from ``lr`` to zero along a cosine, step by step.

    DARTS lowers it epoch by epoch, which is the same over hundreds of them, but leaves the last of few too high.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float
    weight_decay: float
    clip: float
    crop_padding: int
    flip: bool
    cutout: int = 0
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0

    @classmethod
    def selection(cls, protocol: Protocol, epochs: int) -> "Schedule":
        """The brief training of candidates."""
        p = protocol
        return cls(epochs, p.batch, p.selection_lr, p.momentum, p.weight_decay, p.clip, p.crop_padding, p.flip)

    @classmethod
    def final(cls, protocol: Protocol) -> "Schedule":
        """The training of finalists."""
        p = protocol
        common = (p.final_epochs, p.batch, p.final_lr, p.momentum, p.weight_decay, p.clip, p.crop_padding, p.flip)
        return cls(*common, p.cutout, p.auxiliary_weight, p.drop_path)


class DeviceImages:
    """A whole image set on the device as uint8, normalised and augmented there, batch by batch."""

    def __init__(self, data: ImageSet, mean: Tensor, std: Tensor, device: torch.device) -> None:
        self.images = _tensor(data.images).to(device)
        self.labels = _tensor(data.labels).to(device)
        self.mean, self.std = mean.to(device), std.to(device)
        self.device = device
        self.index: Tensor | None = None  # of what is used; None means all, in order

    def part(self, index: np.ndarray) -> "DeviceImages":
        """The images at ``index``, which share this set's memory."""
        part = copy.copy(self)
        part.index = torch.from_numpy(index).to(self.device)
        return part

    def __len__(self) -> int:
        return len(self.labels if self.index is None else self.index)

    def _normalise(self, images: Tensor) -> Tensor:
        scaled = (divided(images.float(), 255) - self.mean) / self.std
        return scaled.contiguous(memory_format=torch.channels_last)

    def shuffled(
        self, batch: int, generator: torch.Generator, crop_padding: int = 0, flip: bool = False, cutout: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, the last incomplete batch left out if there is a complete one."""
        order = torch.randperm(len(self), generator=generator, device=self.device)
        order = order if self.index is None else self.index[order]
        batch = min(batch, len(self))
        for start in range(0, len(self) - batch + 1, batch):
            index = order[start : start + batch]
            images = self._normalise(self.images[index])  # a padded or blanked pixel has the mean colour
            if crop_padding:
                images = random_crop(images, crop_padding, generator)
            if flip:
                images = random_flip(images, generator)
            if cutout:
                images = random_cutout(images, cutout, generator)
            yield images, self.labels[index]

    def in_order(self, batch: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order, without augmentation."""
        for start in range(0, len(self), batch):
            which = slice(start, start + batch)
            if self.index is not None:
                which = self.index[which]
            yield self._normalise(self.images[which]), self.labels[which]


def _tensor(array: np.ndarray) -> Tensor:
    """Shares the array's memory where torch may write to it."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def channel_statistics(data: ImageSet) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels per channel, in 0..1, shaped (C, 1, 1)."""
    images = _tensor(data.images)
    count = images.numel() // images.shape[1]
    sums, squares = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for part in images.split(1024):  # in double precision, the whole set would take eight times its own memory
        doubles = part.double()
        sums += doubles.sum(dim=(0, 2, 3))
        squares += doubles.square().sum(dim=(0, 2, 3))
    mean = sums / count / 255
    variance = (squares / count / 255**2 - mean.square()).clamp_min(1e-6)
    return mean.float().view(-1, 1, 1), variance.sqrt().float().view(-1, 1, 1)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Every image (N, C, H, W) shifted by up to ``padding`` pixels in each direction, zeros moving in."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    shift = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator, device=images.device)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = shift[1] + torch.arange(width, device=images.device)
    which = torch.arange(batch, device=images.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return cropped.permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image mirrored left to right with probability 1/2."""
    coin = torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device) < 0.5
    return torch.where(coin, images.flip(3), images)


def random_cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square of ``side`` pixels blanked out around a random pixel, cut off at the border (DeVries & Taylor, 2017)."""
    batch, _, height, width = images.shape

    def inside(size: int) -> Tensor:
        centre = torch.randint(0, size, (batch, 1), generator=generator, device=images.device)
        offset = torch.arange(size, device=images.device) - centre
        return (offset >= -(side // 2)) & (offset < side - side // 2)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return images.masked_fill(hole, 0.0)


class TrainingLoss(nn.Module):
    """The loss of a network in training, with that of its auxiliary head: all that a backward pass starts from."""

    def __init__(self, network: nn.Module, auxiliary_weight: float) -> None:
        super().__init__()
        self.network, self.auxiliary_weight = network, auxiliary_weight

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean over images (N, C, H, W) with labels (N,)."""
        loss = F.cross_entropy(self.network(images), labels)
        auxiliary = getattr(self.network, "auxiliary_logits", None)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * F.cross_entropy(auxiliary, labels)
        return loss


class Training:
    """A network on its way through a schedule. ``run_epoch`` until ``finished``; the state is complete in between."""

    def __init__(
        self,
        network: nn.Module,
        data: DeviceImages,
        schedule: Schedule,
        generator: torch.Generator,
        team: Team = ALONE,
    ) -> None:
        self.network = network.to(device=data.device, memory_format=torch.channels_last)
        self.data, self.schedule, self.generator, self.team = data, schedule, generator, team
        self.loss = team.wrap(TrainingLoss(self.network, schedule.auxiliary_weight), data.device)
        self.optimiser = torch.optim.SGD(
            network.parameters(), schedule.lr, schedule.momentum, weight_decay=schedule.weight_decay, fused=True
        )
        self.epoch = 0
        self.warm = False  # in this process

    @property
    def finished(self) -> bool:
        return self.epoch >= self.schedule.epochs

    def run_epoch(self) -> float:
        """Train for one epoch and return its mean loss. Raises FloatingPointError when that is not finite."""
        plan, network = self.schedule, self.network
        drop_path = getattr(network, "drop_path", None)
        if drop_path is not None:
            drop_path.probability = plan.drop_path * self.epoch / plan.epochs
            drop_path.generator = self.generator
        network.train()
        total, batches = torch.zeros((), device=self.data.device), 0
        planned = plan.epochs * max(1, len(self.data) // plan.batch)
        epoch = self.data.shuffled(plan.batch, self.generator, plan.crop_padding, plan.flip, plan.cutout)
        if not self.warm:
            epoch, self.warm = first_step_watched(epoch, self.data.device), True
        for images, labels in epoch:
            share = self.team.share(len(images))
            if drop_path is not None and self.team.size > 1:
                drop_path.share = (share, len(images))
            # So weighted, the mean over the processes is that over the batch's images.
            loss = self.loss(images[share], labels[share]) * ((share.stop - share.start) * self.team.size / len(images))
            done = self.epoch / plan.epochs + batches / planned
            for group in self.optimiser.param_groups:
                group["lr"] = plan.lr * 0.5 * (1 + math.cos(math.pi * done))
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), plan.clip)
            self.optimiser.step()
            total += loss.detach()
            batches += 1
        self.epoch += 1
        mean = float(self.team.mean(total)) / batches
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is not finite after epoch {self.epoch}")
        return mean

    def state_dict(self) -> dict:
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])


def accuracy(network: nn.Module, data: DeviceImages) -> float:
    """Share of right answers, 0..1, in evaluation mode. Raises FloatingPointError when an answer is not a number.

    Where memory is too small for ``EVALUATION_BATCH``, in smaller batches, down to ``SMALLEST_EVALUATION_BATCH``.
    """
    batch = EVALUATION_BATCH
    while True:
        try:
            return _accuracy(network, data, batch)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_full(error) or batch == SMALLEST_EVALUATION_BATCH:
                raise
        batch //= 2


_evaluated: set[torch.device] = set()  # devices that have evaluated in this process


@torch.no_grad()
def _accuracy(network: nn.Module, data: DeviceImages, batch: int) -> float:
    network.eval()
    right = torch.zeros((), device=data.device, dtype=torch.int64)
    finite = torch.ones((), device=data.device, dtype=torch.bool)
    batches = data.in_order(batch)
    if data.device not in _evaluated and len(data) >= 2 * batch:  # two batches that take the same time otherwise
        _evaluated.add(data.device)
        batches = first_step_watched(batches, data.device)
    for images, labels in batches:
        logits = network(images)
        finite &= torch.isfinite(logits).all()
        right += (logits.argmax(1) == labels).sum()
    if not bool(finite):
        raise FloatingPointError("the network's answers are not finite")
    return int(right) / len(data)
