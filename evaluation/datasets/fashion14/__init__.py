"""Fashion-MNIST in small: 10,000 + 10,000 grey images of 14×14 pixels, inside the package.

Each pixel is the rounded mean of 2×2 of the official ones (Xiao, Rasul and Vollgraf, arXiv 1708.07747). The training images
are a fixed stratified sixth of the official ones, the test images all of them. ``build`` made the two files.
"""

import lzma
from importlib import resources

import numpy as np

from evaluation.datasets.images import Dataset, ImageSet
from evaluation.datasets.official import FASHION_CLASSES

COUNT, SIDE = 10_000, 14
ORIGIN = (
    "Fashion-MNIST (Zalando SE, MIT licence) at 14×14, means of 2×2 pixels; 10,000 of its training images, stratified, and "
    "its 10,000 test images"
)


def load() -> Dataset:
    """See the module; test images are unpacked when they are asked for."""
    return Dataset("fashion14", ORIGIN, FASHION_CLASSES, unpacked("train"), lambda: unpacked("test"))


def unpacked(part: str) -> ImageSet:
    """The images of "train" or "test"."""
    content = lzma.decompress(resources.files(__name__).joinpath(f"{part}.xz").read_bytes())
    values = np.frombuffer(content, np.uint8)
    return ImageSet(values[COUNT:].reshape(COUNT, 1, SIDE, SIDE), values[:COUNT].astype(np.int64))


def packed(images: ImageSet) -> bytes:
    """The inverse: a byte for every label, then one for every pixel, compressed."""
    content = images.labels.astype(np.uint8).tobytes() + images.images.tobytes()
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def halved(images: ImageSet) -> ImageSet:
    """Images of half the side: rounded means of 2×2 pixels."""
    pixels = images.images.astype(np.uint16)
    sums = pixels.reshape(*pixels.shape[:2], SIDE, 2, SIDE, 2).sum(axis=(3, 5))
    return ImageSet(((sums + 2) // 4).astype(np.uint8), images.labels)
