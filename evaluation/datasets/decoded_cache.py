"""Decoded images, kept in the cache folder: an array as .npy, what belongs to it as JSON. Losing them costs time alone."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from evaluation.datasets.images import ImageSet
from spaces import cache

VERSION = 1  # of the decoding: arrays of other versions are not read


@dataclass(frozen=True)
class Decoded:
    """One part of a data set as it is kept."""

    data: ImageSet
    classes: tuple[str, ...]
    formats: dict[str, int] = field(default_factory=dict)  # files by image format, where there are image files


def kept_or_made(name: str, key: object, make: Callable[[], Decoded]) -> Decoded:
    """What was kept for ``key`` (anything that JSON can hold: sources, sizes, times), else ``make()``, kept for next time.

    The images of what was kept are memory-mapped, copy on write. Torn or foreign files are ignored and written again.
    """
    digest = hashlib.sha256(json.dumps([VERSION, key], sort_keys=True).encode()).hexdigest()
    stem = f"datasets/{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{digest[:16]}"
    known = _load(stem, digest)
    if known is not None:
        return known
    made = make()
    images = np.ascontiguousarray(made.data.images)
    cache.save_array(stem, images)
    about = {
        "key": digest,
        "shape": list(images.shape),
        "sha256": hashlib.sha256(images.data).hexdigest(),
        "classes": list(made.classes),
        "formats": made.formats,
        "labels": made.data.labels.tolist(),
    }
    cache.save_json(stem, about)
    return made


def _load(stem: str, digest: str) -> Decoded | None:
    about, images = cache.load_json(stem), cache.load_array(stem)
    if not isinstance(about, dict) or images is None:
        return None
    try:
        labels = np.array(about["labels"], dtype=np.int64)
        whole = (
            about["key"] == digest
            and images.dtype == np.uint8
            and images.ndim == 4
            and images.shape == (len(labels), *about["shape"][1:])
            and about["sha256"] == hashlib.sha256(images.data).hexdigest()
        )
        if not whole:
            return None
        return Decoded(ImageSet(images, labels), tuple(about["classes"]), dict(about["formats"]))
    except Exception:  # a torn or foreign file, which fails in many ways: decode again
        return None
