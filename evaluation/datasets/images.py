"""What a data set is, and its parts."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spaces.errors import InputError

LIMIT_SEED = 2024  # of the subset that --train-limit takes: the same for all runs, whatever their seeds


@dataclass(frozen=True)
class ImageSet:
    """Images (N, C, H, W) as uint8 and their class numbers (N,) as int64."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, index: np.ndarray) -> "ImageSet":
        return ImageSet(self.images[index], self.labels[index])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of images and labels."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set whose test part stays unread until ``test`` is called."""

    name: str
    origin: str  # what a report should say about where the images come from
    classes: tuple[str, ...]
    train: ImageSet
    test: Callable[[], ImageSet]

    @functools.cached_property  # every checkpoint asks for it
    def fingerprint(self) -> str:
        """Of the training images and their labels: a resumed run must see the same data.

        Those of the test part have a fingerprint of their own, which is taken where they are read, in a run's last stage,
        and stands beside this one in the record (``Record.test_fingerprint``): runs on other test images share no table, and
        whatever reads them again must find the same ones.
        """
        return self.train.fingerprint


def split(data: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """A stratified split into (rest, share). Raises InputError where a class is too small to be on both sides."""
    rest, taken = split_index(data.labels, share, seed)
    return data.take(rest), data.take(taken)


def split_index(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``split`` as two sorted arrays of indices."""
    from sklearn.model_selection import train_test_split

    try:
        rest, taken = train_test_split(np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels)
    except ValueError as error:
        raise InputError(f"the training images cannot be split by class: {error}") from None
    return np.sort(rest), np.sort(taken)


def limited(dataset: Dataset, count: int) -> Dataset:
    """``dataset`` with ``count`` of its training images, a class's share as in the whole; the test images stay.

    Shares are rounded by the largest remainder. Of a class, a larger limit takes what a smaller one takes, and more.
    Raises InputError where a class would keep fewer than two images, or there are fewer than ``count``.
    """
    labels = dataset.train.labels
    total, classes = len(labels), len(dataset.classes)
    if count > total:
        raise InputError(f"--train-limit {count}: '{dataset.name}' has {total:,} training images; 0 takes them all")
    if count < 2 * classes:
        raise InputError(f"--train-limit {count} is too small: {classes} classes need at least {2 * classes} images")
    sizes = np.bincount(labels, minlength=classes)
    quota, remainder = np.divmod(sizes * count, total)
    most = np.argsort(-remainder, kind="stable")
    quota[most[: count - quota.sum()]] += 1
    if quota.min() < 2:
        small = dataset.classes[int(quota.argmin())]
        raise InputError(f"--train-limit {count} leaves class '{small}' fewer than two images; take a larger limit")
    rng = np.random.default_rng(LIMIT_SEED)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[: quota[label]] for label in range(classes)]
    origin = f"{dataset.origin}; a fixed stratified subset of {count:,} of the {total:,} training images"
    return dataclasses.replace(dataset, origin=origin, train=dataset.train.take(np.sort(np.concatenate(chosen))))
