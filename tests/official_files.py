"""The official data sets, tiny and in their official formats."""

import dataclasses
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from scipy.io import savemat

from evaluation.datasets import official

TRAIN, TEST = 20, 6
BUILD = {
    "cifar10": official.cifar10,
    "cifar100": official.cifar100,
    "fashion-mnist": official.fashion_mnist,
    "svhn": official.svhn,
}


def pictures(count: int, size: int, channels: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C), as people draw them, and labels that include the first and the last class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    labels[:2] = 0, classes - 1
    return rng.integers(0, 256, (count, size, size, channels)).astype(np.uint8), labels


def planes(image: np.ndarray) -> bytes:
    """All red values row by row, then green, then blue."""
    size = range(len(image))
    return bytes(int(image[y][x][c]) for c in range(image.shape[2]) for y in size for x in size)


def cifar_files(coarse: bool, train: tuple, test: tuple) -> dict[str, bytes]:
    def records(images: np.ndarray, labels: np.ndarray) -> bytes:
        return b"".join(
            (bytes([label % 20]) if coarse else b"") + bytes([label]) + planes(image)
            for image, label in zip(images, labels)
        )

    if coarse:
        names = "\n".join(f"fine {n}" for n in range(100)) + "\n"
        files = {"train.bin": records(*train), "test.bin": records(*test), "fine_label_names.txt": names.encode()}
        return {f"cifar-100-binary/{name}": content for name, content in files.items()}
    names = "airplane automobile bird cat deer dog frog horse ship truck\n\n".replace(" ", "\n")
    each = TRAIN // 5
    files = {f"data_batch_{n + 1}.bin": records(*(part[n * each : (n + 1) * each] for part in train)) for n in range(5)}
    files |= {"test_batch.bin": records(*test), "batches.meta.txt": names.encode()}
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def tar_gz(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def idx_images(images: np.ndarray) -> bytes:
    return bytes([0, 0, 8, 3, 0, 0, 0, len(images), 0, 0, 0, 28, 0, 0, 0, 28]) + images.tobytes()


def idx_labels(labels: np.ndarray) -> bytes:
    return bytes([0, 0, 8, 1, 0, 0, 0, len(labels)]) + bytes(labels.tolist())


def mat(images: np.ndarray, labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    written = np.array([[label or 10] for label in labels], dtype=np.uint8)  # the digit 0 is written as 10
    savemat(file, {"X": np.stack(list(images), axis=3), "y": written}, do_compression=True)
    return file.getvalue()


def members(name: str, train: tuple, test: tuple) -> dict[str, bytes]:
    """What lies in a folder of extracted files."""
    if name.startswith("cifar"):
        return cifar_files(name == "cifar100", train, test)
    if name == "svhn":
        return {"train_32x32.mat": mat(*train), "test_32x32.mat": mat(*test)}
    return {
        f"{prefix}-{kind}": content
        for prefix, (images, labels) in (("train", train), ("t10k", test))
        for kind, content in (("images-idx3-ubyte", idx_images(images)), ("labels-idx1-ubyte", idx_labels(labels)))
    }


def published(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """What the site of the data set offers."""
    if name.startswith("cifar"):
        return {f"cifar-{name[5:]}-binary.tar.gz": tar_gz(files)}
    if name == "svhn":
        return files
    return {f"{member}.gz": gzip.compress(content) for member, content in files.items()}


def parts(name: str) -> tuple[tuple, tuple]:
    classes = 100 if name == "cifar100" else 10
    size, channels = (28, 1) if name == "fashion-mnist" else (32, 3)
    return pictures(TRAIN, size, channels, classes, seed=1), pictures(TEST, size, channels, classes, seed=2)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def register(monkeypatch, name: str, files: dict[str, bytes], site: str = "") -> None:
    """A small data set takes the place of ``name``: counts and checksums are those of ``files``."""
    spec = BUILD[name](TRAIN, TEST)
    changed = [
        dataclasses.replace(
            file,
            md5=hashlib.md5(files[file.name]).hexdigest() if file.name in files else file.md5,
            content_md5=hashlib.md5(gzip.decompress(files[file.name])).hexdigest()
            if file.content_md5 and file.name in files
            else file.content_md5,
            url=f"{site}/{file.name}" if site else file.url,
        )
        for file in spec.files
    ]
    monkeypatch.setitem(official.OFFICIAL, name, dataclasses.replace(spec, files=tuple(changed)))
