"""The table of a space too large to be trained: what all its networks would come to, predicted from a sample that was.

Boosted trees predict whole learning curves. Each of ``FOLDS`` members leaves out a part of the sample, and what it predicts of
that part says how good the surrogate is. The trainings are in the file, so that this is worked out whenever it is read.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import kendalltau

from evaluation.benchmark import noise as noises
from evaluation.benchmark import trees
from evaluation.benchmark.header import Entry, Header, Kept, Table, exact
from evaluation.benchmark.plan import TablePlan
from evaluation.benchmark.table_files import Contents, read_contents, write_contents
from evaluation.benchmark.trees import Trees
from evaluation.searching.seeds import derived_seed
from spaces.bench.features import features, matrix
from spaces.bench.space import BenchSpace
from spaces.bench.whole import WholeSpace
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.space import Architecture

FOLDS = 5
DRAWS = 20  # of noise, for the highest τ
LEAST_TAU, LARGEST_RATIO = 0.8, 1.5
LEAST_SHARE = 0.95  # of the highest τ, where that is lower: with single trainings it can be below 0.8
LAST = slice(-1, None)  # the test error after all epochs
MOST_KEPT = 100_000  # networks
_TRAINED = ("network", "seed", "validation", "test", "seconds")
_TREES = ("base", "features", "thresholds", "values")


class Scores(NamedTuple):
    """How well the test errors of networks that a member has not seen are predicted."""

    tau: float  # Kendall's, with the means over their trainings
    highest_tau: float  # what a predictor that is right would have here, since trainings differ by noise
    rmse: float  # from single trainings
    noise: float  # by which these differ among each other: pooled standard deviation
    networks: int
    trainings: int

    @property
    def accepted(self) -> bool:
        """NaN is no good score."""
        return self.tau >= self.least_tau and self.rmse <= LARGEST_RATIO * self.noise

    @property
    def least_tau(self) -> float:
        """What is asked; less where noise keeps even a predictor that is right from that."""
        return min(LEAST_TAU, LEAST_SHARE * self.highest_tau)

    def __str__(self) -> str:
        return (
            f"predicted from {self.trainings} trainings of {self.networks} networks; held out: Kendall's τ {self.tau:.3f} "
            f"(≥ {self.least_tau:.3f} asked; {self.highest_tau:.3f} if it were right, since trainings differ), "
            f"RMSE {self.rmse:.2%} = {self.rmse / self.noise:.2f} × seed noise (≤ {LARGEST_RATIO} asked)"
        )


class SurrogateTable(Table):
    """See the module. ``arrays`` are those of ``Contents``: the trainings, and the members' trees."""

    seeds = 1 << 20  # as many trainings as anybody asks for: they differ by noise that is drawn

    def __init__(self, header: Header, architectures: Sequence[Architecture], arrays: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError where the trainings do not tell the noise."""
        self.header, self.sample, self.arrays = header, list(architectures), dict(arrays)
        self.whole = _whole(header.plan)
        self.members = [Trees(*(self.arrays[name][member] for name in _TREES)) for member in range(FOLDS)]
        self._x = _matrix(self.whole, self.sample)
        self._curves = _curves(header, arrays)
        self._known: dict[int, np.ndarray] = {}
        position = self._predicted(self._x, LAST)[:, 0]
        self.model = noises.learned([self._curves[self.of(at)] for at in range(len(self.sample))], position)
        self._seconds = np.linalg.lstsq(self._counts(self._x), self.arrays["seconds"][:, -1][self._first], rcond=None)[
            0
        ]

    @classmethod
    def fitted(
        cls, header: Header, architectures: Sequence[Architecture], arrays: Mapping[str, np.ndarray]
    ) -> "SurrogateTable":
        """Learn from trainings: ``network``, ``seed`` (trainings,), ``validation``, ``test``, ``seconds`` (trainings, epochs).

        Raises ValueError where they do not tell the noise.
        """
        x, curves = _matrix(_whole(header.plan), architectures), _curves(header, arrays)
        y = np.stack([logit(curves[arrays["network"] == at].mean(axis=0)) for at in range(len(architectures))])
        folds = np.arange(len(architectures)) % FOLDS
        members = [trees.fit(x[folds != fold], y[folds != fold], fold) for fold in range(FOLDS)]
        stacked = {name: np.stack([getattr(member, name) for member in members]) for name in _TREES}
        return cls(header, architectures, {**arrays, **stacked})

    # -- how good it is ----------------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> Scores:
        """Worked out from the trainings in the file."""
        folds = np.arange(len(self.sample)) % FOLDS
        predicted = np.empty(len(self.sample))
        for fold, member in enumerate(self.members):
            predicted[folds == fold] = expit(member.predict(self._x[folds == fold], LAST)[:, 0])
        measured = self._curves[:, -1]
        means = np.array([measured[self.of(at)].mean() for at in range(len(self.sample))])
        rmse = float(np.sqrt(((predicted[self.arrays["network"]] - measured) ** 2).mean()))
        tau = float(kendalltau(predicted, means).statistic)
        return Scores(tau, self._highest_tau(means), rmse, self.model.pooled, len(self.sample), len(measured))

    def _highest_tau(self, means: np.ndarray) -> float:
        """Kendall's τ of true errors with the means of as many trainings as were done, over draws of the noise.

        True errors are taken for the measured ``means`` (networks,), drawn together until their variance is that of the means
        without the noise's: the spread does not depend on what is predicted.
        """
        deviation = self.model.scale(logit(means)) / np.sqrt(np.bincount(self.arrays["network"], minlength=len(means)))
        share = max(0.0, 1.0 - float((deviation**2).mean() / means.var()))
        true, rng = means.mean() + np.sqrt(share) * (means - means.mean()), np.random.default_rng(0)
        draws = [true + deviation * rng.standard_normal(len(true)) for _ in range(DRAWS)]
        return float(np.mean([kendalltau(true, drawn).statistic for drawn in draws]))

    @property
    def reliability(self) -> str:
        return str(self.scores)

    @property
    def doubt(self) -> str:
        return "" if self.scores.accepted else f"the surrogate is not good enough: {self.scores}"

    @property
    def noise(self) -> float:
        return self.model.pooled

    # -- what it says of networks ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.whole.count

    def at(self, architecture: Architecture) -> int:
        return self.whole.number(architecture)  # type: ignore[arg-type]

    def architecture(self, number: int) -> Architecture:
        return self.whole.architecture(number)

    def curves(self, number: int) -> np.ndarray:
        """(2 epochs + 1,): log odds of the errors on validation and on test images after every epoch, and seconds in all."""
        if number not in self._known:
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            x = matrix(self.whole, self.whole.genes(np.array([number])))
            seconds = self._counts(x) @ self._seconds
            self._known[number] = np.append(self._predicted(x)[0], max(float(seconds[0]), 0.0))
        return self._known[number]

    def query(self, architecture: Architecture, epochs: int | None = None) -> Entry:
        epoch, curves = self.epoch(epochs), self.curves(self.at(architecture))
        validation, test = expit(curves[[epoch, self.epochs + epoch]]).tolist()
        return Entry(validation, test, float(curves[-1]) * (epoch + 1) / self.epochs)

    def training(self, architecture: Architecture, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A draw from the noise, the same whenever it is asked for."""
        curves = self.curves(self.at(architecture))
        rng = np.random.default_rng(derived_seed("surrogate", architecture.key, number))
        deviation = self.model.draw(curves[-2], rng)[: self.epochs]
        images = self.header.validation_images
        errors = np.round(np.clip(expit(curves[: self.epochs]) + deviation, 0, 1) * images) / images
        return errors, curves[-1] * np.arange(1, self.epochs + 1) / self.epochs

    def reference_test_error(self, architecture: Architecture, arithmetic: str) -> float:  # noqa: ARG002
        """On exact multipliers, also for fp32, in which none of its networks was trained."""
        return self.query(exact(architecture, self.header.plan)).test_error

    @cached_property
    def _errors(self) -> np.ndarray:
        return expit(self._predicted(matrix(self.whole, self.whole.genes(np.arange(len(self)))), LAST)[:, 0])

    def errors(self) -> np.ndarray:
        """Predicts all its networks, at the first time, which takes a quarter of a minute."""
        return self._errors

    def costs(self, cost: str) -> np.ndarray:
        return self.whole.costs(self.shape, COSTS[cost])

    # -- what it was made of -----------------------------------------------------------------------------------------

    def of(self, at: int) -> np.ndarray:
        """The trainings of the sample's network of this number."""
        return np.flatnonzero(self.arrays["network"] == at)

    def kept(self, rng: np.random.Generator) -> Kept:
        at = int(rng.integers(len(self.arrays["network"])))
        architecture = self.sample[int(self.arrays["network"][at])]
        return Kept(architecture, int(self.arrays["seed"][at]), self.arrays["validation"][at], self.arrays["test"][at])

    def _predicted(self, x: np.ndarray, outputs: slice = slice(None)) -> np.ndarray:
        """Log odds (rows, outputs): means over all members."""
        return np.mean([member.predict(x, outputs) for member in self.members], axis=0)

    def _counts(self, x: np.ndarray) -> np.ndarray:
        """(rows, 1 + kinds): how often each kind of step occurs, on which seconds depend."""
        names = _names(self.whole)
        kinds = [at for at, name in enumerate(names) if " on " in name or name == "avg_pool_3x3"]
        return np.column_stack([np.ones(len(x)), x[:, kinds]])

    @cached_property
    def _first(self) -> np.ndarray:
        return np.array([self.of(at)[0] for at in range(len(self.sample))])

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the table. Raises OSError."""
        arrays = {name: self.arrays[name] for name in (*_TRAINED, *_TREES)}
        write_contents(path, Contents(self.header, self.sample, arrays, _names(self.whole)))

    @classmethod
    def read(cls, path: Path) -> "SurrogateTable":
        """Raises InputError for anything but a whole surrogate of this version."""
        contents = read_contents(path, _require)
        return cls(contents.header, contents.architectures, contents.arrays)


def _whole(plan: TablePlan) -> WholeSpace:
    space = plan.make_space()
    assert isinstance(space, BenchSpace)  # no plan for a surrogate has another one
    return WholeSpace(space)


def _matrix(whole: WholeSpace, architectures: Sequence[Architecture]) -> np.ndarray:
    return matrix(whole, whole.genes(np.array([whole.number(each) for each in architectures])))  # type: ignore[arg-type]


def _names(whole: WholeSpace) -> tuple[str, ...]:
    """Of the features."""
    return tuple(features(whole, whole.genes(np.array([0]))))


def _curves(header: Header, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(trainings, 2 epochs): errors on validation images, then on test images; never 0 or 1, which have no odds."""
    images = {"validation": header.validation_images, "test": header.test_images}
    return np.concatenate([(arrays[name] + 0.5) / (count + 1) for name, count in images.items()], axis=1)


def _require(contents: Contents) -> None:
    header, arrays, sampled = contents.header, contents.arrays, len(contents.architectures)
    if not header.plan.surrogate:
        raise InputError("it is no surrogate")
    whole, epochs, trainings = _whole(header.plan), header.protocol.selection_epochs, len(arrays["seed"])
    names = _names(whole)
    if contents.features != names:
        raise InputError("it predicts from other features than this version does; build it again")
    for architecture in contents.architectures:
        whole.number(architecture)  # type: ignore[arg-type]
    wanted: dict[str, tuple[int, ...]] = {"network": (trainings,), "seed": (trainings,)}
    wanted |= dict.fromkeys(_TRAINED[2:], (trainings, epochs))
    count, inner = arrays["features"].shape[1:]
    wanted |= dict.fromkeys(("features", "thresholds"), (FOLDS, count, inner))
    wanted |= {"values": (FOLDS, count, inner + 1, 2 * epochs), "base": (FOLDS, 2 * epochs)}
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise InputError(f"its array {name} is {arrays[name].shape}, not {shape}")
    if (inner + 1) & inner or arrays["features"].max(initial=0) >= len(names) or arrays["features"].dtype.kind != "u":
        raise InputError("its trees are none")
    if set(arrays["network"].tolist()) != set(range(sampled)) or sampled < FOLDS or trainings == sampled:
        raise InputError("its trainings are not those of its networks, some of them trained again")
    if any(np.isnan(array).any() for array in arrays.values()) or not np.isfinite(arrays["values"]).all():
        raise InputError("it holds numbers that cannot be")
    answers = {"validation": header.validation_images, "test": header.test_images}
    if any((arrays[name] > most).any() or (arrays[name] < 0).any() for name, most in answers.items()):
        raise InputError("it holds numbers of wrong answers that cannot be")
