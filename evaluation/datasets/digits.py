"""The data set that needs no download."""

import numpy as np

from evaluation.datasets.images import Dataset, ImageSet, split

TEST_SHARE = 0.2
FOLDS = 5
_ORIGIN = "1,797 8×8 digits of UCI, from scikit-learn"


def load() -> Dataset:
    """1,797 handwritten digits of 8×8 pixels with 17 grey levels (Alpaydin & Kaynak, UCI, 1998), inside scikit-learn."""
    images, classes = _everything()
    train, test = split(images, TEST_SHARE, seed=0)
    return Dataset("digits", f"{_ORIGIN}; a fixed stratified fifth is the test set", classes, train, lambda: test)


def fold(number: int) -> Dataset:
    """The same digits, of which another fifth is the test set in each of ``FOLDS`` folds, from 1: every image in one."""
    from sklearn.model_selection import StratifiedKFold

    images, classes = _everything()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(images.labels, images.labels)
    train, test = (images.take(part) for part in list(folds)[number - 1])
    origin = f"{_ORIGIN}; the test set is fold {number} of {FOLDS}, stratified and fixed"
    return Dataset(f"digits-fold{number}", origin, classes, train, lambda: test)


def _everything() -> tuple[ImageSet, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, None]
    return ImageSet(images, data.target.astype(np.int64)), tuple(str(name) for name in data.target_names)
