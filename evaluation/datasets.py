"""Image data: the built-in digits, or a folder of images. Test images are read by ``Dataset.test`` and nowhere else."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spaces.errors import InputError, suggest

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True)
class ImageSet:
    """Images (N, C, H, W) as uint8 and their class numbers (N,) as int64."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, index: np.ndarray) -> "ImageSet":
        return ImageSet(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A data set whose test part stays unread until ``test`` is called."""

    name: str
    origin: str  # what a report should say about where the images come from
    classes: tuple[str, ...]
    train: ImageSet
    test: Callable[[], ImageSet]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training images and labels: a resumed run must see the same data."""
        digest = hashlib.sha256(str(self.train.images.shape).encode())
        digest.update(np.ascontiguousarray(self.train.images).tobytes())
        digest.update(self.train.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def load(name: str, image_size: int = 0) -> Dataset:
    """The data set called ``name``, or the image folder at that path. Raises InputError for anything else."""
    if name == "digits":
        if image_size:
            raise InputError("--image-size is for image folders; 'digits' has 8×8 pixels")
        return _digits()
    path = Path(name)
    if path.is_dir():
        return _image_folder(path, image_size)
    if path.exists() or len(path.parts) > 1:
        raise InputError(f"data set '{name}' is not a folder; give a folder with train/<class>/* and test/<class>/*")
    raise suggest(name, ["digits"], "data set (neither built in nor a folder)")


def split(data: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """A stratified split into (rest, share). Raises InputError where a class is too small to be on both sides."""
    from sklearn.model_selection import train_test_split

    index = np.arange(len(data.labels))
    try:
        rest, taken = train_test_split(index, test_size=share, random_state=seed, stratify=data.labels)
    except ValueError as error:
        raise InputError(f"the training images cannot be split by class: {error}") from None
    return data.take(np.sort(rest)), data.take(np.sort(taken))


def _digits() -> Dataset:
    """1,797 handwritten digits of 8×8 pixels with 17 grey levels (Alpaydin & Kaynak, UCI, 1998), inside scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = split(ImageSet(images, digits.target.astype(np.int64)), DIGITS_TEST_SHARE, seed=0)
    origin = "1,797 8×8 digits of UCI, from scikit-learn; a fixed stratified fifth is the test set"
    return Dataset("digits", origin, tuple(str(name) for name in digits.target_names), train, lambda: test)


def _image_folder(root: Path, image_size: int) -> Dataset:
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise InputError(f"{root} has no folder '{part}'; a data set has train/<class>/* and test/<class>/*")
    classes = tuple(sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise InputError(f"{root}/train has {len(classes)} class folders; at least two are needed")
    listed = {part: _list_files(root / part, classes) for part in ("train", "test")}
    extra = sorted(e.name for e in (root / "test").iterdir() if e.is_dir() and e.name not in classes)
    if extra:
        raise InputError(f"{root}/test has classes that train lacks: {', '.join(extra[:5])}")
    train = _decode(listed["train"], None, image_size)
    shape = train.images.shape[1:]
    origin = f"image folder '{root.name}', decoded as it lies there (JPEG files are lossy copies)"
    return Dataset(root.name, origin, classes, train, lambda: _decode(listed["test"], shape, image_size))


def _list_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise InputError(f"{folder} lacks the class '{name}' that train has")
        found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise InputError(f"{folder / name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        files += [(path, label) for path in found]
    return files


def _decode(files: list[tuple[Path, int]], shape: tuple[int, ...] | None, image_size: int) -> ImageSet:
    """All images as one array: grey if the first one is (and then all), else RGB; of one size."""
    from PIL import Image

    images: np.ndarray | None = None
    for index, (path, _) in enumerate(files):
        try:
            with Image.open(path) as image:
                if image.mode.startswith("I") or image.mode == "F":
                    raise ValueError(f"its mode {image.mode} has more than 8 bits a channel; convert it to 8 bits")
                grey = shape[0] == 1 if shape else image.mode in ("1", "L")
                picture = image.convert("L" if grey else "RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"cannot read the image {path}: {error}") from None
        if image_size:
            picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
        pixels = pixels[None] if grey else pixels.transpose(2, 0, 1)
        shape = shape or pixels.shape
        if pixels.shape != shape:
            raise InputError(
                f"{path} is {pixels.shape[2]}×{pixels.shape[1]} pixels where others are {shape[2]}×{shape[1]}; "
                "resize all with --image-size"
            )
        if images is None:
            images = np.empty((len(files), *shape), dtype=np.uint8)
        images[index] = pixels
    return ImageSet(images, np.array([label for _, label in files], dtype=np.int64))
