"""Gradient-boosted trees as plain arrays: how they predict, and how they are fitted.

All trees have the same depth, and are stored as heaps: the children of node n are 2 n + 1 and 2 n + 2. Where a tree ends
earlier, all leaves below that node hold its value.
"""

from typing import NamedTuple

import numpy as np

DEPTH = 4
ROUNDS = 150
RATE = 0.05
ROWS = 0.6  # share of the rows that a tree sees
COLUMNS = 0.4  # share of the features that are tried for a split
SMALLEST_LEAF = 3
AT_ONCE = 1 << 21  # rows × trees


class Trees(NamedTuple):
    """A boosted ensemble: its prediction is ``base`` plus the sum of the trees' leaves."""

    base: np.ndarray  # (outputs,)
    features: np.ndarray  # (trees, 2^depth − 1): which feature a node looks at
    thresholds: np.ndarray  # (trees, 2^depth − 1): what is larger goes to the second child
    values: np.ndarray  # (trees, 2^depth, outputs)

    def predict(self, x: np.ndarray, outputs: slice = slice(None)) -> np.ndarray:
        """Of rows (rows, features) of float32: (rows, outputs)."""
        trees, inner = self.features.shape
        rows = max(1, AT_ONCE // trees)
        first = np.arange(trees) * inner
        features, thresholds, values = self.features.ravel(), self.thresholds.ravel(), self.values[:, :, outputs]
        leaves = np.ascontiguousarray(values).reshape(trees * (inner + 1), -1)
        parts = []
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            at = np.arange(len(part))[:, None]
            node = np.zeros((len(part), trees), np.intp)
            for _ in range((inner + 1).bit_length() - 1):
                here = node + first
                node = 2 * node + 1 + (part[at, features[here]] > thresholds[here])
            parts.append(leaves[node - inner + np.arange(trees) * (inner + 1)].sum(axis=1, dtype=float))
        return self.base[outputs] + np.concatenate(parts)


def fit(x: np.ndarray, y: np.ndarray, seed: int) -> Trees:
    """Boost trees on rows (rows, features) with targets (rows, outputs) by squared error (Friedman, 2001 and 2002).

    Each tree predicts all outputs at once, from a random part of the rows, and of the features at every node.
    """
    from sklearn.tree import DecisionTreeRegressor  # takes a second to import

    rng = np.random.default_rng(seed)
    base, rows = y.mean(axis=0), max(2, round(ROWS * len(y)))
    predicted = np.tile(base, (len(y), 1))
    grown = []
    for _ in range(ROUNDS):
        drawn = rng.choice(len(y), rows, replace=False)
        tree = DecisionTreeRegressor(
            max_depth=DEPTH,
            max_features=COLUMNS,
            min_samples_leaf=SMALLEST_LEAF,
            random_state=int(rng.integers(1 << 31)),
        ).fit(x[drawn], (y - predicted)[drawn])
        grown.append(_heap(tree.tree_))
        leaves = grown[-1]
        predicted += Trees(np.zeros(len(base)), *(part[None] for part in leaves)).predict(x)
    return Trees(base, *(np.stack(parts) for parts in zip(*grown)))


def _heap(tree: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, thresholds and leaves of one of scikit-learn's trees, the leaves times the rate."""
    left, right, value = tree.children_left, tree.children_right, tree.value[:, :, 0]  # type: ignore[attr-defined]
    features, thresholds = np.zeros(2**DEPTH - 1, np.uint8), np.full(2**DEPTH - 1, np.inf)
    values = np.zeros((2**DEPTH, value.shape[1]), np.float32)
    under = {0: 0}  # node here → node there
    for node in range(2 ** (DEPTH + 1) - 1):
        there = under[node]
        ends = left[there] < 0
        if node >= len(features):
            values[node - len(features)] = RATE * value[there]
            continue
        if not ends:
            features[node], thresholds[node] = tree.feature[there], tree.threshold[there]  # type: ignore[attr-defined]
        under[2 * node + 1], under[2 * node + 2] = (there, there) if ends else (left[there], right[there])
    return features, thresholds, values
