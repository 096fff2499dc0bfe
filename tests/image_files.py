"""Image folders and archives of small pictures."""

import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def png(pixels: np.ndarray, mode: str | None = None, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, form)
    return file.getvalue()


def pixels_of(name: str, size: tuple[int, int] = (5, 4)) -> np.ndarray:
    """Pixels (H, W, C) that depend on the name."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (*size, 3)).astype(np.uint8)


FILES = {
    f"{part}/{label}/{number}.png"
    for part, count in (("train", 3), ("test", 2))
    for label in ("cat", "dog", "eel")
    for number in range(count)
}


def tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


PACK = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}


def as_archive(path: Path, files: dict[str, bytes]) -> Path:
    """In the form that the suffix says, the last file first: an archive need not be sorted."""
    files = dict(reversed(files.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        path.write_bytes(PACK[path.name[path.name.index(".") :]](tar(files)))
    return path
