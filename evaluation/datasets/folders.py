"""Data sets of image files: ``train/<class>/*`` and ``test/<class>/*``, in a folder or an archive."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from evaluation.datasets.containers import Container, Listing, open_container, plain_name
from evaluation.datasets.decode import IMAGE_SUFFIXES, decode
from evaluation.datasets.decoded_cache import Decoded, kept_or_made
from evaluation.datasets.images import Dataset, ImageSet
from evaluation.datasets.progress import Watch
from spaces.errors import InputError

PARTS = ("train", "test")
LEFT_BEHIND = {"thumbs.db", "desktop.ini"}  # by file managers


def image_folder(path: Path, image_size: int) -> Dataset:
    """The images at ``path``, whose decoded arrays are kept in the cache. Raises InputError."""
    path = path.resolve()
    container = open_container(path)
    name = plain_name(path)
    train = _part(container, name, "train", image_size, None)
    shape = train.data.images.shape[1:]

    def test() -> ImageSet:
        return _part(container, name, "test", image_size, shape).data

    return Dataset(name, _origin(container, train, image_size), train.classes, train.data, test)


def _part(container: Container, name: str, part: str, image_size: int, shape: tuple[int, ...] | None) -> Decoded:
    stamp = container.stamp(part)

    def make() -> Decoded:
        found = find_images(container.listing, container.path)
        files = [file for group in found.files[part] for file in group]
        watch = Watch(f"decoding the {part} images of {name}", len(files))
        images, formats = decode(container, files, image_size, shape, watch)
        if open_container(container.path).stamp(part) != stamp:  # or they would be kept as what they were
            raise InputError(f"the {part} images of {container.path} changed while they were read; start again")
        labels = np.repeat(np.arange(len(found.classes)), [len(group) for group in found.files[part]])
        return Decoded(ImageSet(images, labels.astype(np.int64)), found.classes, formats)

    if container.path.is_dir():  # looked at every time: it costs little
        find_images(container.listing, container.path)
    key = [str(container.path), part, stamp, image_size, list(shape or ())]
    return kept_or_made(f"{name}-{part}", key, make)


def _origin(container: Container, train: Decoded, image_size: int) -> str:
    """What the training images are; the test images are unread so far."""
    lossy = train.formats.get("JPEG", 0)
    kinds = " and ".join(f"{count:,} {kind}" for kind, count in train.formats.items())
    text = f"{container.kind} '{container.path.name}', training images from {kinds} files"
    if lossy:
        text += " (JPEG is lossy: no exact copies of their originals)"
    return f"{text}, resized to {image_size}×{image_size}" if image_size else text


@dataclass(frozen=True)
class Found:
    """The image files of a data set: by part, a list for each class."""

    classes: tuple[str, ...]
    files: Mapping[str, list[list[str]]]


def find_images(listing: Listing, where: Path) -> Found:
    """Which files there are, in the order of classes and names. Raises InputError where it is no data set."""
    folders = _by_parent(listing.folders)
    top = folders.get("", [])
    # An archive may hold everything below one folder of its own.
    prefix = f"{top[0]}/" if len(top) == 1 and top[0] not in PARTS else ""
    for part in PARTS:
        if prefix + part not in listing.folders:
            raise InputError(f"{where} has no folder '{part}'; a data set has train/<class>/* and test/<class>/*")
    classes = tuple(folders.get(f"{prefix}train", []))
    if len(classes) < 2:
        raise InputError(f"{where}/{prefix}train has {len(classes)} class folders; at least two are needed")
    extra = [name for name in folders.get(f"{prefix}test", []) if name not in classes]
    if extra:
        raise InputError(f"{where}/{prefix}test has classes that train lacks: {', '.join(extra[:5])}")
    files = _by_parent(listing.files)
    return Found(
        classes, {part: [_class_files(listing, files, where, prefix + part, c) for c in classes] for part in PARTS}
    )


def _class_files(listing: Listing, files: Mapping[str, list[str]], where: Path, part: str, name: str) -> list[str]:
    folder = f"{part}/{name}"
    if folder not in listing.folders:
        raise InputError(f"{where}/{part} lacks the class '{name}' that train has")
    deeper = sorted(place for place in listing.folders if place.startswith(f"{folder}/"))
    if deeper:
        raise InputError(f"{where}/{deeper[0]} is a folder inside a class; images lie directly in the class's folder")
    found = [file for file in files.get(folder, []) if not file.startswith(".") and file.lower() not in LEFT_BEHIND]
    others = [file for file in found if PurePosixPath(file).suffix.lower() not in IMAGE_SUFFIXES]
    known = ", ".join(sorted(IMAGE_SUFFIXES))
    if others:
        raise InputError(f"{where}/{folder} holds {len(others)} files that are no images ({known}), as {others[0]}")
    if not found:
        raise InputError(f"{where}/{folder} holds no images ({known})")
    if len(found) < 2 and PurePosixPath(part).name == "train":
        raise InputError(f"{where}/{folder} holds one image; a part of every class is kept for validation: add another")
    return [f"{folder}/{file}" for file in found]


def _by_parent(names: frozenset[str]) -> dict[str, list[str]]:
    """Folder → names in it, sorted."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        parent, _, own = name.rpartition("/")
        found.setdefault(parent, []).append(own)
    return found
