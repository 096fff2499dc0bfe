"""The images of a search on their device, in two parts. The test set cannot be reached from here."""

import torch

from evaluation.datasets import Dataset, split_index
from evaluation.settings.protocols import Protocol
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.tasks.task import Task


class SearchData:
    """All training images (``everything``), and the parts that train (``training``) and judge (``validation``) candidates."""

    def __init__(self, dataset: Dataset, protocol: Protocol, task: Task, device: torch.device) -> None:
        self.statistics = channel_statistics(dataset.train)
        self.everything = DeviceImages(dataset.train, *self.statistics, device, task)
        training, validation = split_index(dataset.train.labels, protocol.validation_share, protocol.split_seed)
        self.training, self.validation = self.everything.part(training), self.everything.part(validation)
