"""Image classification: one output per class, cross-entropy, and the share of wrong answers as the error."""

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.datasets import Dataset
from evaluation.training.tasks.task import Augmentation


class ImageClassification:
    """Targets are class numbers, (N,) int64."""

    def input_shape(self, dataset: Dataset) -> tuple[int, ...]:
        return tuple(dataset.train.images.shape[1:])

    def outputs(self, dataset: Dataset) -> int:
        return len(dataset.classes)

    def augment(self, inputs: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Shift, mirror and blank a square, as far as the settings ask for it."""
        if settings.crop_padding:
            inputs = random_crop(inputs, settings.crop_padding, generator)
        if settings.flip:
            inputs = random_flip(inputs, generator)
        if settings.cutout:
            inputs = random_cutout(inputs, settings.cutout, generator)
        return inputs

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 where the class with the highest output is not the image's: (N,) bool."""
        return self.answers(outputs) != targets

    def answers(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1)


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
