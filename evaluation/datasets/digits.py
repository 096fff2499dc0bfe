"""1,797 grey digits of 8×8 pixels, inside scikit-learn: no download."""

import numpy as np

from evaluation.datasets.images import Dataset, ImageSet, split

TEST_SHARE = 0.2


def load() -> Dataset:
    """1,797 handwritten digits of 8×8 pixels with 17 grey levels (Alpaydin & Kaynak, UCI, 1998), inside scikit-learn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = split(ImageSet(images, data.target.astype(np.int64)), TEST_SHARE, seed=0)
    origin = "1,797 8×8 digits of UCI, from scikit-learn; a fixed stratified fifth is the test set"
    return Dataset("digits", origin, tuple(str(name) for name in data.target_names), train, lambda: test)
