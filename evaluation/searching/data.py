"""The images of a search on their device, in two parts. The test set cannot be reached from here."""

import copy

import numpy as np
import torch

from evaluation.datasets import Dataset, split_index
from evaluation.settings.protocols import Protocol
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.tasks.task import Task

Split = tuple[np.ndarray, np.ndarray]  # the indices of both parts


def split_seed(protocol: Protocol, seed: int) -> int:
    """Of the split into the two parts, which is another one for every seed of a run: what a method finds under many seeds
    is no property of one split. Runs of one seed share theirs, and are compared in pairs.
    """
    return (protocol.split_seed + seed) % 2**32


class SearchData:
    """All training images (``everything``), and the parts that train (``training``) and judge (``validation``) candidates.

    ``seed`` is that of the run, and decides on the split where none is given.
    """

    def __init__(
        self,
        dataset: Dataset,
        protocol: Protocol,
        task: Task,
        device: torch.device,
        split: Split | None = None,
        seed: int = 0,
    ) -> None:
        self.statistics = channel_statistics(dataset.train)
        self.everything = DeviceImages(dataset.train, *self.statistics, device, task)
        # To compute it takes scikit-learn, whose import costs a worker more than a second.
        self._divide(split or split_index(dataset.train.labels, protocol.validation_share, split_seed(protocol, seed)))

    def again(self, protocol: Protocol, seed: int) -> "SearchData":
        """The same images as another seed splits them."""
        labels, other = self.everything.labels.cpu().numpy(), copy.copy(self)
        other._divide(split_index(labels, protocol.validation_share, split_seed(protocol, seed)))
        return other

    def _divide(self, split: Split) -> None:
        self.split = split
        self.training, self.validation = (self.everything.part(part) for part in split)
