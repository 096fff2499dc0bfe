"""CIFAR-10, CIFAR-100, Fashion-MNIST and SVHN from their official binary files. Pickled versions are never read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.datasets import formats
from evaluation.datasets.containers import stamp_of
from evaluation.datasets.decoded_cache import Decoded, kept_or_made
from evaluation.datasets.fetch import Copy, OfficialFile, find_copies
from evaluation.datasets.images import Dataset, ImageSet
from spaces.errors import InputError

PARTS = ("train", "test")


@dataclass(frozen=True)
class Part:
    """Training or test images: the members that hold them with their sizes in bytes, and how those are read."""

    members: Mapping[str, int]
    parse: Callable[..., ImageSet]  # of the contents, in that order; raises ValueError


@dataclass(frozen=True)
class Official:
    """A published data set."""

    title: str
    citation: str
    files: tuple[OfficialFile, ...]
    parts: Mapping[str, Part]
    classes: tuple[str, ...] | str  # or the member that names them, a line each
    class_count: int


def load(name: str, data_dir: Path | None) -> Dataset:
    """The data set of that name. All files are looked for, and checked, now; test images are decoded later.

    Raises InputError where a file is neither there nor to be had, or is not what it should be.
    """
    spec = OFFICIAL[name]
    copies = find_copies(name, spec.files, data_dir and data_dir.resolve())
    for member, size in spec.parts["test"].members.items():
        _require_size(copies, member, size)
    train = _part(name, spec, copies, "train")
    checked = (
        "MD5 checked" if all(copy.checked for copy in copies) else "extracted copy: sizes checked, but no checksum"
    )
    origin = f"{spec.title} from its official binary files ({checked}); {spec.citation}"
    return Dataset(name, origin, train.classes, train.data, lambda: _part(name, spec, copies, "test").data)


def _require_size(copies: Sequence[Copy], member: str, size: int) -> None:
    """Raises InputError where an extracted file has not the size that it must have: now, not after days of training."""
    for copy in copies:
        if (path := copy.extracted.get(member)) and path.stat().st_size != size:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes where {size:,} are due; get a whole copy")


def _part(name: str, spec: Official, copies: Sequence[Copy], part: str) -> Decoded:
    sizes = spec.parts[part].members
    used = [copy for copy in copies if set(copy.official.members) & set(sizes)]
    try:
        stamps = [[str(path), *stamp_of(path.stat())] for c in used for path in c.paths]
    except OSError as error:
        raise InputError(f"cannot read '{error.filename}': {error.strerror}") from None

    def make() -> Decoded:
        contents: dict[str, bytes] = {}
        for copy in used:
            contents |= copy.read({member: sizes[member] for member in sizes if member in copy.official.members})
        try:
            data = spec.parts[part].parse(*(contents[member] for member in sizes))
        except ValueError as error:
            raise InputError(f"{used[0].paths[0]}: {error}; get a good copy of '{name}'") from None
        return Decoded(data, _classes(spec, copies))

    return kept_or_made(f"{name}-{part}", [name, part, stamps], make)


def _classes(spec: Official, copies: Sequence[Copy]) -> tuple[str, ...]:
    if not isinstance(spec.classes, str):
        return spec.classes
    copy = next(copy for copy in copies if spec.classes in copy.official.members)
    text = copy.read({spec.classes: 1 << 16})[spec.classes].decode("utf-8", "replace")
    names = tuple(line.strip() for line in text.split("\n") if line.strip())
    if len(names) != spec.class_count:
        raise InputError(
            f"{copy.paths[0]}: '{spec.classes}' names {len(names)} classes where {spec.class_count} are due"
        )
    return names


# -- the data sets -----------------------------------------------------------------------------------------------------
# Counts of training and test images are arguments, so that tests can write small files in the same formats.

_KRIZHEVSKY = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


def _cifar(folder: str, batches: Sequence[str], labels: int, count: int, classes: int) -> Part:
    each = count // len(batches)

    def parse(*contents: bytes) -> ImageSet:
        parts = [formats.cifar(content, each, labels, classes) for content in contents]
        images, numbers = (np.concatenate([getattr(part, field) for part in parts]) for field in ("images", "labels"))
        return ImageSet(images, numbers)

    return Part({f"{folder}/{batch}.bin": each * (labels + 3072) for batch in batches}, parse)


def cifar10(train: int = 50_000, test: int = 10_000) -> Official:
    """60,000 images of 32×32 in ten classes. Address and MD5: https://www.cs.toronto.edu/~kriz/cifar.html."""
    folder, label_names = "cifar-10-batches-bin", "cifar-10-batches-bin/batches.meta.txt"
    parts = {
        "train": _cifar(folder, [f"data_batch_{number}" for number in range(1, 6)], 1, train, 10),
        "test": _cifar(folder, ["test_batch"], 1, test, 10),
    }
    file = OfficialFile(
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        (*parts["train"].members, *parts["test"].members, label_names),
    )
    return Official("CIFAR-10", _KRIZHEVSKY, (file,), parts, label_names, 10)


def cifar100(train: int = 50_000, test: int = 10_000) -> Official:
    """60,000 images of 32×32; the 100 fine classes. Address and MD5: https://www.cs.toronto.edu/~kriz/cifar.html."""
    folder, label_names = "cifar-100-binary", "cifar-100-binary/fine_label_names.txt"
    parts = {part: _cifar(folder, [part], 2, count, 100) for part, count in zip(PARTS, (train, test))}
    file = OfficialFile(
        "cifar-100-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        (*parts["train"].members, *parts["test"].members, label_names),
    )
    return Official("CIFAR-100", _KRIZHEVSKY, (file,), parts, label_names, 100)


FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def fashion_mnist(train: int = 60_000, test: int = 10_000) -> Official:
    """70,000 grey images of 28×28. Addresses and MD5: README of https://github.com/zalandoresearch/fashion-mnist.

    The MD5 of the contents were taken of the published files' contents.
    """
    parts = {
        part: Part(
            {f"{prefix}-images-idx3-ubyte": 16 + count * 784, f"{prefix}-labels-idx1-ubyte": 8 + count},
            lambda images, labels, count=count: formats.idx_pair(images, labels, count, 10),
        )
        for part, prefix, count in (("train", "train", train), ("test", "t10k", test))
    }
    site = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    files = tuple(
        OfficialFile(f"{member}.gz", f"{site}/{member}.gz", md5, (member,), content)
        for member, md5, content in (
            ("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            ("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            ("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            ("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        )
    )
    return Official("Fashion-MNIST", "Xiao, Rasul and Vollgraf, arXiv 1708.07747", files, parts, FASHION_CLASSES, 10)


def svhn(train: int = 73_257, test: int = 26_032) -> Official:
    """99,289 cropped house numbers of 32×32, without the "extra" part. Address: http://ufldl.stanford.edu/housenumbers.

    The page states no checksums; these are those of torchvision (torchvision/datasets/svhn.py).
    """
    most = 1 << 30  # bytes; the files are compressed inside, so that their sizes say nothing
    parts = {
        part: Part({f"{part}_32x32.mat": most}, lambda content, count=count: formats.svhn(content, count))
        for part, count in zip(PARTS, (train, test))
    }
    files = tuple(
        OfficialFile(
            f"{part}_32x32.mat", f"http://ufldl.stanford.edu/housenumbers/{part}_32x32.mat", md5, (f"{part}_32x32.mat",)
        )
        for part, md5 in zip(PARTS, ("e26dedcc434d2e4c54c9b2d4a06d8373", "eb5a983be6a315427106f1b164d9cef3"))
    )
    digits = tuple("0123456789")
    return Official("SVHN (cropped digits)", "Netzer et al., NIPS workshop, 2011", files, parts, digits, 10)


OFFICIAL = {"cifar10": cifar10(), "cifar100": cifar100(), "fashion-mnist": fashion_mnist(), "svhn": svhn()}
