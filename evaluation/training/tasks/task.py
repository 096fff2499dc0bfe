"""What a task is. Everything that depends on what the outputs of a network mean is asked of it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from evaluation.datasets import Dataset


@dataclass(frozen=True)
class Augmentation:
    """How much the training inputs are varied. A task uses what makes sense for it."""

    crop_padding: int = 0  # pixels by which an image may be shifted in each direction
    flip: bool = False  # mirror left to right with probability 1/2
    cutout: int = 0  # side of the blanked square; 0 blanks nothing


class Task(Protocol):
    """A task; constructed without arguments.

    ``inputs`` are (N, *input shape), ``outputs`` what a network makes of them, (N, number of outputs), and ``targets``
    (N, …) what the data set says.
    """

    def input_shape(self, dataset: Dataset) -> tuple[int, ...]:
        """Of one input of a network, without the batch: (C, H, W) for images."""

    def outputs(self, dataset: Dataset) -> int:
        """How many outputs a network needs."""

    def augment(self, inputs: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """A batch of normalised training inputs, varied at random; the only randomness is the generator's."""

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """What training minimises: a scalar, the mean over the batch.

        ``smoothing``, of at least 0 and below 1, is the probability that a target is taken for any; a task may ignore it.
        """

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How wrong each answer is: (N,), 0 (right) to 1 (as wrong as can be). Their mean is the error that is reported."""

    def answers(self, outputs: Tensor) -> Tensor:
        """The targets (N, …) for which these outputs stand."""
