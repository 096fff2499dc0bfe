"""Files damaged or forged: the n-th mutant of a real file, the same every time."""

import copy
import json
from collections.abc import Callable

import numpy as np

WORDS = [
    bytes(1), b"\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"-1", b"0e999", b"9" * 40, b"NaN", b"null", b"[" * 300, b'"',
    b"\x1b[2J", b"\xe2\x80\xae", b"\n", b",", b"/*", b"..", b"../", b"PK\x03\x04", b"\x93NUMPY", b"GNU.sparse.size=-1\n",
]  # fmt: skip
VALUES: list[object] = [
    None, True, False, 0, -1, 1e308, -1e-308, 2**63, 2**64, 10**40, "", "x", "9" * 5000, "[bold]\x1b[31m", "=1+1", "\ud800",
    [], {}, [[]], [None], {"": None}, [0] * 50, "y" * 20_000, float("nan"), float("inf"),
]  # fmt: skip


def mutant(content: bytes, number: int) -> bytes:
    """``content`` with one to four changes, most of them near its beginning or its end, where headers are."""
    rng = np.random.default_rng([number, len(content)])
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        _change(data, rng)
    return bytes(data)


def _change(data: bytearray, rng: np.random.Generator) -> None:
    size = len(data)
    reach = max(1, size if rng.random() < 0.5 else min(size, 600))
    at = int(rng.integers(reach)) if rng.random() < 0.7 else max(0, size - 1 - int(rng.integers(reach)))
    kind = int(rng.integers(7))
    word = WORDS[int(rng.integers(len(WORDS)))]
    if kind == 0 and size:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1 and size:
        data[at] = int(rng.integers(256))
    elif kind == 2:
        data[at : at + len(word)] = word
    elif kind == 3:
        data[at:at] = word
    elif kind == 4:
        del data[at : at + int(rng.integers(1, 64))]
    elif kind == 5:
        data[at:at] = data[at : at + int(rng.integers(1, 600))]
    elif rng.random() < 0.3:
        del data[at:]


def mutant_json(content: bytes, number: int) -> bytes:
    """A JSON file of which one to three values, names or lists are others; every third is changed byte by byte instead."""
    if number % 3 == 0:
        return mutant(content, number)
    rng = np.random.default_rng([number, len(content)])
    data = copy.deepcopy(json.loads(content))
    for _ in range(int(rng.integers(1, 4))):
        data = _other_value(data, rng)
    return json.dumps(data).encode("utf-8", "surrogatepass")


def _other_value(data: object, rng: np.random.Generator) -> object:
    node, path = data, []
    while isinstance(node, (dict, list)) and node and rng.random() < 0.85:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        path.append((node, keys[int(rng.integers(len(keys)))]))
        node = path[-1][0][path[-1][1]]
    value = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    if not path:
        return value if rng.random() < 0.1 else data
    parent, key = path[-1]
    kind = int(rng.integers(4))
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[str(value)[:50]] = parent.pop(key)
    elif kind == 1:
        parent.append(value)
    else:
        parent[key] = value
    return data


Mutator = Callable[[bytes, int], bytes]
