"""The official binary formats as arrays. Pure functions of bytes; they raise ValueError with the reason."""

import io
import math

import numpy as np

from evaluation.datasets.images import ImageSet

CIFAR_SHAPE = (3, 32, 32)


def cifar(content: bytes, count: int, label_bytes: int, classes: int) -> ImageSet:
    """Records of ``label_bytes`` labels, the last of which counts, and 3 × 32 × 32 pixels, channel by channel.

    CIFAR-100 has two labels, coarse and fine (https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version").
    """
    width = label_bytes + math.prod(CIFAR_SHAPE)
    if len(content) != count * width:
        raise ValueError(f"it has {len(content):,} bytes where {count:,} records of {width:,} are due")
    records = np.frombuffer(content, np.uint8).reshape(count, width)
    images = records[:, label_bytes:].reshape(count, *CIFAR_SHAPE)
    return ImageSet(images, _labels(records[:, label_bytes - 1], classes))


def idx(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """An array of unsigned bytes in the IDX format: 0, 0, 8 (the type), rank, big-endian sizes, then the values.

    Source: http://yann.lecun.com/exdb/mnist, "The IDX file format".
    """
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    if content[: len(header)] != header:
        raise ValueError(f"it does not begin as an IDX file of {' × '.join(f'{size:,}' for size in shape)} bytes")
    if len(content) != len(header) + math.prod(shape):
        raise ValueError(f"it has {len(content):,} bytes where {len(header) + math.prod(shape):,} are due")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def idx_pair(images: bytes, labels: bytes, count: int, classes: int) -> ImageSet:
    """Grey images of 28 × 28 pixels and their labels."""
    return ImageSet(idx(images, (count, 28, 28))[:, None], _labels(idx(labels, (count,)), classes))


def svhn(content: bytes, count: int) -> ImageSet:
    """MATLAB variables X (32 × 32 × 3 × N, uint8) and y (N × 1), in which 10 stands for the digit 0.

    Source: http://ufldl.stanford.edu/housenumbers, "Format 2: Cropped Digits".
    """
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = variables["X"], variables["y"]
    except Exception as error:  # a file that is not MATLAB's fails in many ways
        raise ValueError(f"no MATLAB file with X and y ({str(error).splitlines()[0]})") from None
    if images.shape != (32, 32, 3, count) or images.dtype != np.uint8 or labels.shape != (count, 1):
        raise ValueError(
            f"X is {images.shape} {images.dtype} and y {labels.shape}; 32×32×3×{count} bytes and {count}×1 are due"
        )
    if not ((labels >= 1) & (labels <= 10)).all():
        raise ValueError("labels must lie between 1 and 10")
    return ImageSet(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), _labels(labels[:, 0] % 10, 10))


def _labels(values: np.ndarray, classes: int) -> np.ndarray:
    if values.max(initial=0) >= classes:
        raise ValueError(f"it has label {values.max()} where {classes} classes are due")
    return values.astype(np.int64)
