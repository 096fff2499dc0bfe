"""Neighbours of a bench architecture: one operation or the multiplier of one site differs."""

from collections.abc import Sequence

import numpy as np

from spaces.bench.architecture import BenchArchitecture, BenchEdge
from spaces.errors import InputError

ATTEMPTS = 1000


def mutate(
    architecture: BenchArchitecture,
    rng: np.random.Generator,
    operations: Sequence[str],
    ties: Sequence[int],
    library: Sequence[str],
) -> BenchArchitecture:
    """See ``BenchSpace.mutate``. ``ties`` has the site of every edge, ``library`` the names of the multipliers."""
    for _ in range(ATTEMPTS):
        at = int(rng.integers(len(ties)))
        if rng.integers(2):
            operation = operations[int(rng.integers(len(operations)))]
            name = _known(architecture, ties, at) or _drawn(library, rng)
            child = architecture.with_edge(at, BenchEdge(operation, name))
        else:
            child = _with_site(architecture, ties, ties[at], _drawn(library, rng))
        if child.key != architecture.key:
            return child
    raise InputError("this architecture has no neighbour in the space")


def _known(architecture: BenchArchitecture, ties: Sequence[int], at: int) -> str | None:
    """The multiplier that the edge's site has already, on this edge or another one."""
    tied = [at, *(other for other, site in enumerate(ties) if site == ties[at])]
    known = (architecture.edges[other].multiplier for other in tied)
    return next((name for name in known if name), None)


def _with_site(architecture: BenchArchitecture, ties: Sequence[int], site: int, name: str) -> BenchArchitecture:
    for at, tied in enumerate(ties):
        if tied == site and architecture.edges[at].multiplier:
            architecture = architecture.with_edge(at, BenchEdge(architecture.edges[at].operation, name))
    return architecture


def _drawn(library: Sequence[str], rng: np.random.Generator) -> str:
    return library[int(rng.integers(len(library)))]
