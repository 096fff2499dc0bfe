"""Numbers from which the error of a bench network can be predicted, computed for many networks at once.

Cells that compute the same have the same numbers: all are sums, smallest and largest values over steps or over the paths
from a cell's input to its output, in which an edge that skips leaves no trace.
"""

from collections.abc import Sequence

import numpy as np

from spaces.bench.architecture import CONVOLUTIONS, POOL, SKIP
from spaces.bench.whole import Genes, WholeSpace
from spaces.multipliers.catalogue import power_ratio
from spaces.multipliers.multiplier import error_metrics

GAINS = {"conv_1x1": 0.4, "conv_3x3": 1.0}  # of a convolution for accuracy, roughly
NONE = 99.0  # where a network has no such path
DIGITS = 4  # sums in another order round otherwise


def features(whole: WholeSpace, genes: Genes) -> dict[str, np.ndarray]:
    """Each (networks,), by name."""
    names, library = whole.space.operations, whole.space.library
    inexact = np.log1p([error_metrics(multiplier).mre_pct for multiplier in library])
    power = np.array([power_ratio(multiplier) for multiplier in library])
    kinds = {name: genes.operations == names.index(name) for name in names if name != SKIP}
    pools = kinds.get(POOL, np.zeros(genes.operations.shape, bool))
    small, large = (kinds[name] for name in CONVOLUTIONS)
    convolves = small | large
    errors = inexact[genes.multipliers] * convolves
    weights = 9.0 * large + small  # products per pixel and pair of channels
    gains = sum(GAINS[name] * kinds[name] for name in CONVOLUTIONS) * np.exp(-inexact[genes.multipliers] / 2)
    found = {name: each.sum(axis=1) for name, each in kinds.items()}
    for name in CONVOLUTIONS:
        for at in range(len(library)):
            found[f"{name} on {at}"] = (kinds[name] & (genes.multipliers == at)).sum(axis=1)
    weighted = (weights * errors).sum(axis=1)
    found |= {
        "error of products": weighted,
        "mean error of products": weighted / np.maximum(weights.sum(axis=1), 1),
        "power of products": (weights * power[genes.multipliers]).sum(axis=1),
        "largest error": errors.max(axis=1),
        "error": errors.sum(axis=1),
        "mean error": errors.sum(axis=1) / np.maximum(convolves.sum(axis=1), 1),
        "gain": gains.sum(axis=1),
    }
    found |= _of_paths(_paths(whole.edges, whole.space.nodes), convolves, large, pools, errors, gains)
    found |= _of_depths(whole, genes.operations != names.index(SKIP), large, errors)
    return {name: np.round(values.astype(float), DIGITS) for name, values in found.items()}


def matrix(whole: WholeSpace, genes: Genes) -> np.ndarray:
    """(networks, features), float32."""
    return np.stack(list(features(whole, genes).values()), axis=1).astype(np.float32)


def _paths(edges: Sequence[tuple[int, int]], nodes: int) -> list[list[int]]:
    """Every way from the cell's input to its output, as numbers of edges."""
    ways: list[list[list[int]]] = [[[]], *([] for _ in range(nodes - 1))]
    for at, (source, node) in enumerate(edges):
        ways[node] += [[*way, at] for way in ways[source]]
    return ways[-1]


def _of_paths(
    paths: Sequence[Sequence[int]],
    convolves: np.ndarray,
    large: np.ndarray,
    pools: np.ndarray,
    errors: np.ndarray,
    gains: np.ndarray,
) -> dict[str, np.ndarray]:
    def summed(values: np.ndarray) -> np.ndarray:
        """(networks, paths)"""
        return np.stack([values[:, path].sum(axis=1) for path in paths], axis=1)

    count, wide, pooled, gain = summed(convolves), summed(large), summed(pools), summed(gains)
    worst = np.stack([errors[:, path].max(axis=1) for path in paths], axis=1)
    total = summed(errors)

    def least(where: np.ndarray) -> np.ndarray:
        """The error of the most accurate of the paths for which this holds."""
        return np.where(where, worst, NONE).min(axis=1)

    return {
        "longest path": count.max(axis=1),
        "shortest path": count.min(axis=1),
        "all paths": count.sum(axis=1),
        "widest path": wide.max(axis=1),
        "all wide": wide.sum(axis=1),
        "most pools": pooled.max(axis=1),
        "fewest pools": pooled.min(axis=1),
        "paths without convolution": (count == 0).sum(axis=1),
        "paths without anything": ((count == 0) & (pooled == 0)).sum(axis=1),
        "least error": worst.min(axis=1),
        "mean error of paths": worst.mean(axis=1),
        "least sum of errors": total.min(axis=1),
        "largest sum of errors": total.max(axis=1),
        "least error with a convolution": least(count > 0),
        "least error with a large one": least(wide > 0),
        "least error of the longest": least(count == count.max(axis=1, keepdims=True)),
        "least error of the widest": least(wide == wide.max(axis=1, keepdims=True)),
        "largest gain": gain.max(axis=1),
        "gain of paths": gain.sum(axis=1),
    }


def _of_depths(whole: WholeSpace, works: np.ndarray, large: np.ndarray, errors: np.ndarray) -> dict[str, np.ndarray]:
    """By the depth of steps: the most steps that what they read has gone through, and their own."""
    nodes = np.zeros((whole.space.nodes, len(works)), int)
    depths = np.zeros(works.shape, int)
    for at, (source, node) in enumerate(whole.edges):
        reached = nodes[source] + works[:, at]
        depths[:, at] = reached * works[:, at]
        nodes[node] = np.maximum(nodes[node], reached)
    found = {"depth": nodes[-1]}
    for depth in range(1, whole.space.nodes):
        found[f"large at depth {depth}"] = (large & (depths == depth)).sum(axis=1)
        found[f"error at depth {depth}"] = (errors * (depths == depth)).max(axis=1)
    return found
