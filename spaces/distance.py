"""How far apart two networks of a space are: the architecture distance of D-DARTS (arXiv 2108.09306).

    d(a, b) of two edges: the share of {place, source, operation, multiplier} in which they differ (Hamming)
    H(A, B) of two cells = max(max_{a ∈ A} min_{b ∈ B} d(a, b), max_{b ∈ B} min_{a ∈ A} d(a, b))        (Hausdorff)

and of two networks the mean over their cells: position by position where they have as many, else of every cell and the nearest
one of the other network, in both directions. The paper weighs operations by how well networks do with them, by figures that
could not be read; here all count alike, and multipliers count, too.
"""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from spaces.errors import InputError
from spaces.registry import SPACES
from spaces.space import Architecture, Edge

Part = list[tuple[str, str, str, str]]  # the edges of a cell: place in it, source, operation, multiplier


def distance(first: Architecture, second: Architecture) -> float:
    """0 of networks with one key, 1 where no edge has anything in common with any other one's.

    What the table of edges does not show, such as the multiplier of the stem, does not count. Raises InputError for networks of
    two spaces.
    """
    if first.space != second.space:
        raise InputError(f"networks of '{first.space}' and '{second.space}' have no distance: compare within one space")
    if first.key == second.key:
        return 0.0
    one, other = (parts(SPACES[each.space].edges(each)) for each in (first, second))
    if len(one) == len(other):
        return fmean(between(a, b) for a, b in zip(one, other))
    return fmean((_nearest(one, other), _nearest(other, one)))


def distances(architectures: Sequence[Architecture]) -> tuple[tuple[float, ...], ...]:
    """Of each to each, in their order."""
    return tuple(tuple(distance(one, other) for other in architectures) for one in architectures)


def parts(edges: Sequence[Edge]) -> list[Part]:
    """The edges of every cell; of a network that is not made of cells, all of them."""
    found: dict[str, Part] = {}
    for edge in edges:
        cell, _, place = edge.where.rpartition(", ")
        found.setdefault(cell, []).append((place, edge.source, edge.operation, edge.multiplier))
    return list(found.values()) or [[]]


def between(one: Part, other: Part) -> float:
    """H of two cells; 1 where one of them has no edges."""
    if not one or not other:
        return float(one != other)
    numbers = {fact: number for number, fact in enumerate({fact for edge in (*one, *other) for fact in edge})}
    a, b = (np.array([[numbers[fact] for fact in edge] for edge in part]) for part in (one, other))
    farthest = max((theirs != edge).sum(axis=1).min() for mine, theirs in ((a, b), (b, a)) for edge in mine)
    return float(farthest) / a.shape[1]


def _nearest(one: Sequence[Part], other: Sequence[Part]) -> float:
    """The mean distance of a cell of ``one`` to the nearest of ``other``."""
    return fmean(min(between(a, b) for b in other) for a in one)
