"""A set of images on the device, and its batches."""

import copy
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from evaluation.datasets import ImageSet
from evaluation.training.tasks.image_classification import ImageClassification
from evaluation.training.tasks.task import Augmentation, Task
from spaces.arithmetic.quantise import divided

EVALUATION_BATCH, SMALLEST_EVALUATION_BATCH = 512, 64


class DeviceImages:
    """A whole image set on the device as uint8, normalised and augmented there, batch by batch."""

    def __init__(
        self, data: ImageSet, mean: Tensor, std: Tensor, device: torch.device, task: Task | None = None
    ) -> None:
        self.images = _tensor(data.images).to(device)
        self.labels = _tensor(data.labels).to(device)
        self.mean, self.std = mean.to(device), std.to(device)
        self.device, self.task = device, task or ImageClassification()
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
        self, batch: int, generator: torch.Generator, augmentation: Augmentation | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, the last incomplete batch left out if there is a complete one."""
        order = torch.randperm(len(self), generator=generator, device=self.device)
        order = order if self.index is None else self.index[order]
        batch = min(batch, len(self))
        for start in range(0, len(self) - batch + 1, batch):
            index = order[start : start + batch]
            images = self._normalise(self.images[index])  # a padded or blanked pixel has the mean colour
            if augmentation is not None:
                images = self.task.augment(images, augmentation, generator)
            yield images, self.labels[index]

    def in_order(self, batch: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order, without augmentation."""
        for start in range(0, len(self), batch):
            which = slice(start, start + batch)
            if self.index is not None:
                which = self.index[which]
            yield self._normalise(self.images[which]), self.labels[which]


def _tensor(array: np.ndarray) -> Tensor:
    """Shares the array's memory, which may be that of other processes, too: nothing here writes to images or labels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


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
