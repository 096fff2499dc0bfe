"""Image data: those inside the package, official files, image folders and archives. Nothing here imports torch.

Test images are decoded by ``Dataset.test`` and nowhere else.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from evaluation.datasets import digits, fashion14, official
from evaluation.datasets.containers import ARCHIVE_SUFFIXES
from evaluation.datasets.folders import image_folder
from evaluation.datasets.images import Dataset, ImageSet, limited, split, split_index
from spaces.errors import InputError, suggest

__all__ = ["NAMES", "Dataset", "ImageSet", "load", "split", "split_index"]

FOLDS = {f"digits-fold{number}": functools.partial(digits.fold, number) for number in range(1, 1 + digits.FOLDS)}
EMBEDDED: dict[str, Callable[[], Dataset]] = {"digits": digits.load, "fashion14": fashion14.load, **FOLDS}
NAMES = (*EMBEDDED, *official.OFFICIAL)


def load(name: str, image_size: int = 0, data_dir: str = "", train_limit: int = 0) -> Dataset:
    """The data set called ``name``, or the image folder or archive at that path.

    ``image_size`` resizes the images of a folder; ``data_dir`` holds the official files of a named set; ``train_limit``
    keeps so many training images, as many of each class as its share. Raises InputError for anything else.
    """
    path = Path(name)
    if name in NAMES and image_size:
        raise InputError(f"--image-size is for image folders; the images of '{name}' keep their size")
    if name not in official.OFFICIAL and data_dir:
        raise InputError(f"--data-dir is for {', '.join(official.OFFICIAL)}; '{name}' has no use for it")
    if name in EMBEDDED:
        dataset = EMBEDDED[name]()
    elif name in official.OFFICIAL:
        dataset = official.load(name, Path(data_dir) if data_dir else None)
    else:
        require(name)
        dataset = image_folder(path, image_size)
    return limited(dataset, train_limit) if train_limit else dataset


def require(name: str) -> None:
    """Raises InputError where there is no data set of that name, and nothing at that path."""
    if name in NAMES or Path(name).exists():
        return
    if "/" in name or os.sep in name or name.endswith(ARCHIVE_SUFFIXES):
        raise InputError(f"data set '{name}' does not exist; give a folder with train/<class>/* and test/<class>/*")
    raise suggest(name, NAMES, "data set (neither built in nor a folder)")
