"""Factors in signed bytes, for matrix units that multiply bytes and add up 32-bit integers."""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spaces.multipliers.factors import Factors, candidates
from spaces.multipliers.multiplier import SIZE
from spaces.multipliers.products import ProductTable

LOW, HIGH = -128, 127
MOST_CHANNELS = 64  # beyond, looking every product up is faster than so many channels
_DIGIT = 128  # the base of the digits of a factor that is too large for a byte

# One product of factors: u (256,) and v (256,) integers, and the power of two it counts with.
_Term = tuple[np.ndarray, np.ndarray, int]


@dataclass(frozen=True, eq=False)
class ByteFactors:
    """table[a, b] = Σ_r weight_r · u[a, r] · v[r, b] + constant[b], by index.

    ``u`` (256, R) and ``v`` (R, 256) are int8, ``weight`` (R,) int64 powers of two, in ascending order, ``constant``
    (256,) int64.
    """

    u: np.ndarray
    v: np.ndarray
    weight: np.ndarray
    constant: np.ndarray

    @property
    def channels(self) -> int:
        return self.u.shape[1]


def _fits(values: np.ndarray) -> bool:
    return bool(values.min() >= LOW and values.max() <= HIGH)


def _balance(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same product with its common divisor on the side that has room for it."""
    divisor_u, divisor_v = (max(1, math.gcd(*side.tolist())) for side in (u, v))
    u, v, common = u // divisor_u, v // divisor_v, divisor_u * divisor_v
    for share in range(1, common + 1) if common <= SIZE * SIZE else ():
        if common % share == 0 and _fits(u * share) and _fits(v * (common // share)):
            return u * share, v * (common // share)
    return u, v * common


def _digits(values: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """values = low + base·high with −base/2 ≤ low < base/2."""
    low = (values + base // 2) % base - base // 2
    return low, (values - low) // base


def _split_weights(u: np.ndarray, v: np.ndarray, weight: int) -> Iterator[_Term]:
    """The product as terms whose v fits a byte; u does already.

    The high digit of v is worth a power of two, which u carries where it has room, and otherwise the term's weight.
    """
    if not v.any() or not u.any():
        return
    if _fits(v):
        yield u, v, weight
        return
    room = max((shift for shift in range(8) if _fits(u << shift)), default=0)
    low, high = _digits(v, 1 << room) if room else (v, v)
    if room and _fits(high):
        yield from _split_weights(u, low, weight)
        yield u << room, high, weight
        return
    low, high = _digits(v, _DIGIT)
    yield u, low, weight
    yield from _split_weights(u, high, weight * _DIGIT)


def _split(u: np.ndarray, v: np.ndarray, weight: int = 1) -> Iterator[_Term]:
    if _fits(u):
        yield from _split_weights(u, v, weight)
        return
    low, high = _digits(u, _DIGIT)
    yield from _split(low, v, weight)
    yield from _split(high, v, weight * _DIGIT)


def as_bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Masks and flips (R,), uint8, with values = (index & mask) ^ flip for the bytes ``values`` (256, R); None without.

    Such features can be cut out of the index; others must be looked up.
    """
    held = np.ascontiguousarray(values).view(np.uint8)
    flips = held[0]
    masks = np.bitwise_or.reduce(held ^ flips, axis=0)
    index = np.arange(SIZE, dtype=np.uint8)[:, None]
    return (masks, flips) if np.array_equal((index & masks) ^ flips, held) else None


def _prefer_bits(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same product with u cut out of the index, where a sign or a power of two that v gives or takes makes it so."""
    for sign, shift in itertools.product((1, -1), range(8)):
        moved, rest = sign * u << shift, sign * v >> shift
        if (
            _fits(moved)
            and _fits(rest)
            and (rest << shift == sign * v).all()
            and as_bits(moved[:, None].astype(np.int8))
        ):
            return moved, rest
    return u, v


def _in_bytes(factors: Factors) -> ByteFactors:
    constant = np.zeros(SIZE, dtype=np.int64)
    terms: list[_Term] = []
    for u, v in zip(factors.u.T, factors.v):
        u, v = _balance(u, v)
        if not _fits(u) and u.max() - u.min() < SIZE:  # an offset makes it fit; what it adds depends on b alone
            offset = u.min() - LOW
            constant += offset * v
            u = u - offset
        terms += _split(u, v)
    terms = [(*_prefer_bits(u, v), weight) for u, v, weight in terms if u.any() and v.any()]
    terms.sort(key=lambda term: term[2])
    u = np.array([term[0] for term in terms], dtype=np.int8).reshape(-1, SIZE).T
    v = np.array([term[1] for term in terms], dtype=np.int8).reshape(-1, SIZE)
    return ByteFactors(np.ascontiguousarray(u), v, np.array([term[2] for term in terms], dtype=np.int64), constant)


@functools.lru_cache(maxsize=256)
def byte_factors(table: ProductTable) -> ByteFactors | None:
    """The table's factors in bytes with the fewest channels; None where there are none, or too many to be of use."""
    found = [_in_bytes(factors) for factors in candidates(table) if factors.rank <= MOST_CHANNELS]
    best = min(found, key=lambda f: (f.channels + 2 * len(set(f.weight)), bool(f.constant.any())), default=None)
    if best is None or best.channels > MOST_CHANNELS:
        return None
    again = (best.u * best.weight) @ best.v.astype(np.int64) + best.constant
    if not np.array_equal(again, table.table):
        raise AssertionError(f"the byte factors of {table.name} do not multiply out")
    return best


def known_byte_factors(table: ProductTable) -> ByteFactors:
    """The same of a table that has them: an engine asks first."""
    factors = byte_factors(table)
    assert factors is not None
    return factors
