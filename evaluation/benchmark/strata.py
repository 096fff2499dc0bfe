"""A sample of a space in which all kinds of networks are there, the rare ones too."""

from collections import Counter
from collections.abc import Hashable
from statistics import fmean

import numpy as np

from spaces.errors import InputError
from spaces.multipliers.catalogue import power_ratio
from spaces.space import Architecture, Space

DRAWN = 40  # for each network of the sample
POWERS = 3  # parts of the range of powers


def spread(space: Space, count: int, rng: np.random.Generator) -> list[Architecture]:
    """So many networks of different keys, by turns from all strata: how often each operation occurs, and the mean power.

    Any beginning of the list is spread alike. Raises InputError where the space has fewer networks.
    """
    strata: dict[Hashable, list[Architecture]] = {}
    for _ in range(DRAWN * count):
        drawn = space.sample(rng)
        strata.setdefault(_stratum(space, drawn), []).append(drawn)
    piles = [strata[name] for name in sorted(strata, key=repr)]
    found: dict[str, Architecture] = {}
    while piles and len(found) < count:
        for at in rng.permutation(len(piles)).tolist():
            if len(found) < count and piles[at]:
                drawn = piles[at].pop()
                found.setdefault(drawn.key, drawn)
        piles = [pile for pile in piles if pile]
    if len(found) < count:
        raise InputError(f"the space has hardly more than {len(found)} networks; lower sample, or leave it out for all")
    return list(found.values())


def _stratum(space: Space, architecture: Architecture) -> Hashable:
    edges = space.edges(architecture)
    powers = {multiplier.name: power_ratio(multiplier) for multiplier in space.library}
    used = [powers[edge.multiplier] for edge in edges if edge.multiplier]
    low, high = min(powers.values()), max(powers.values())
    part = int(POWERS * (fmean(used) - low) / (high - low)) if used and high > low else 0
    return tuple(sorted(Counter(edge.operation for edge in edges).items())), min(part, POWERS - 1)
