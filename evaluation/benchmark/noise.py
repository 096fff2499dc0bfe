"""By how much one training of a network differs from another: learned from networks that were trained several times."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

RIDGE = 1e-6  # added to the variances, so that there is a root


class Noise(NamedTuple):
    """Normal deviations of whole curves, of networks whose trainings differ more the worse they are."""

    level: np.ndarray  # (2,): the logarithm of the deviation of the last number of a curve is linear in ``position``
    root: np.ndarray  # (numbers, numbers): the deviation's triangular factor, in units of that of the last number
    pooled: float  # standard deviation of the last number over all networks
    known: tuple[
        float, float
    ]  # positions of the networks that it was learned from; beyond them it is as at the nearest

    def scale(self, position: np.ndarray) -> np.ndarray:
        """Standard deviation of the last number of curves, by the log odds of their predicted last numbers."""
        return np.exp(self.level[0] + self.level[1] * np.clip(position, *self.known))

    def draw(self, position: float, rng: np.random.Generator) -> np.ndarray:
        """A deviation (numbers,)."""
        return self.scale(np.array(position)) * (self.root @ rng.standard_normal(len(self.root)))


def learned(curves: Sequence[np.ndarray], positions: np.ndarray) -> Noise:
    """Of the curves (trainings, numbers) of several networks, by maximum likelihood.

    Raises ValueError where no network was trained twice, or all trainings came out alike.
    """
    repeated = [(each, position) for each, position in zip(curves, positions) if len(each) > 1]
    if not repeated:
        raise ValueError("no network was trained twice")
    freedom = np.array([len(each) - 1 for each, _ in repeated], float)
    squares = np.array([((each[:, -1] - each[:, -1].mean()) ** 2).sum() for each, _ in repeated])
    where = np.array([position for _, position in repeated])
    pooled = float(np.sqrt(squares.sum() / freedom.sum()))
    if not pooled > 0:
        raise ValueError("all trainings came out alike")

    def surprise(level: np.ndarray) -> float:
        variances = np.exp(np.clip(2 * (level[0] + level[1] * where), -50, 50))
        return float((freedom * np.log(variances) + squares / variances).sum())

    level = minimize(surprise, np.array([np.log(pooled), 0.0]), method="Nelder-Mead").x
    scales = np.exp(level[0] + level[1] * where)
    deviations = np.concatenate([(each - each.mean(axis=0)) / by for (each, _), by in zip(repeated, scales)])
    covariance = deviations.T @ deviations / freedom.sum()
    root = np.linalg.cholesky(covariance + RIDGE * np.eye(len(covariance)))
    return Noise(level, root, pooled, (float(where.min()), float(where.max())))
