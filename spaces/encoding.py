"""Architectures as vectors, for models that predict from them."""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

HASHED = 256  # places for what stands where; some share one


def hashed(
    edges: Iterable[tuple[str, str, str, str]], operations: Sequence[str], multipliers: Sequence[str]
) -> np.ndarray:
    """(features,) float32, from lines (where, source, operation, multiplier).

    First how often each operation and each multiplier occurs, then what stands where: one-hot in (place, source, operation)
    and in (place, multiplier), at places that are given by a hash, so that any table can be encoded (Weinberger et al.,
    Feature Hashing for Large Scale Multitask Learning, ICML 2009).
    """
    columns = {name: column for column, name in enumerate([*operations, *multipliers])}
    encoded = np.zeros(len(columns) + HASHED, dtype=np.float32)
    for where, source, operation, multiplier in edges:
        for name in (operation, multiplier):
            if name in columns:
                encoded[columns[name]] += 1
        for fact in ((where, source, operation), (where, "", multiplier)):
            encoded[len(columns) + zlib.crc32("|".join(fact).encode()) % HASHED] += 1
    return encoded
