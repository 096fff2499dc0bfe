"""The images of a search on their device, in two parts. The test set cannot be reached from here."""

import numpy as np
import torch

from evaluation.datasets import Dataset, split_index
from evaluation.settings.protocols import Protocol
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.tasks.task import Task

Split = tuple[np.ndarray, np.ndarray]  # the indices of both parts


class SearchData:
    """All training images (``everything``), and the parts that train (``training``) and judge (``validation``) candidates."""

    def __init__(
        self, dataset: Dataset, protocol: Protocol, task: Task, device: torch.device, split: Split | None = None
    ) -> None:
        self.statistics = channel_statistics(dataset.train)
        self.everything = DeviceImages(dataset.train, *self.statistics, device, task)
        # To compute it takes scikit-learn, whose import costs a worker more than a second.
        self.split = split or split_index(dataset.train.labels, protocol.validation_share, protocol.split_seed)
        self.training, self.validation = (self.everything.part(part) for part in self.split)
