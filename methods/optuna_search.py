"""Optuna's samplers as one more method: each suggests options, and is told error and cost.

Akiba, Sano, Yanase, Ohta, Koyama, KDD 2019 (arXiv 1907.10902). A space lists its decisions, each of which becomes a categorical
parameter; what is decided together is a network. A trial has two objectives, the error on validation and the cost:

    repeat: ask the sampler for an option of every decision
            train the network, or, where it is known already, take what is known
            tell the sampler error and cost

Nothing of Optuna is in a checkpoint: trials are kept as plain data, from which a study is made again, and every question has a
fresh sampler, seeded by the search's own generator. So a sampler cannot remember what a resumed search would not know.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from methods.archive import ArchiveSearch
from methods.method import Evaluation, Problem
from spaces.errors import InputError, suggest
from spaces.registry import deciding
from spaces.space import Architecture

if TYPE_CHECKING:
    import optuna

# Name → class in optuna.samplers, and its settings: ours by their names, or values
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpe": ("TPESampler", {"n_startup_trials": "starts", "multivariate": True}),  # decisions depend on one another
    "gp": ("GPSampler", {"n_startup_trials": "starts"}),
    "nsga2": ("NSGAIISampler", {"population_size": "population"}),
    "nsga3": ("NSGAIIISampler", {"population_size": "population"}),
    "random": ("RandomSampler", {}),
}
REPEATS = 5  # suggestions of what is known already, for every new network, before a random one takes its turn


@dataclass(frozen=True)
class OptunaConfig:
    """Settings of the search by Optuna; the defaults are Optuna's where it has them."""

    sampler: str = "tpe"
    """tpe (tree-structured Parzen estimators), gp (Gaussian processes), nsga2, nsga3 or random."""
    samples: int = 100
    """Networks to train in all; a budget takes its place."""
    starts: int = 10
    """Random trials before there is a model, of tpe and gp."""
    population: int = 50
    """Trials per generation, of nsga2 and nsga3."""
    batch: int = 1
    """Networks to suggest before any of them is trained; more than one keep more workers busy."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise suggest(self.sampler, SAMPLERS, "sampler of Optuna")
        if min(self.samples, self.starts, self.batch, self.proposals) < 1 or self.population < 2:
            raise InputError(
                "optuna needs at least one sample, start, network per step and proposal, and a population of at least 2"
            )


class OptunaSearch(ArchiveSearch):
    """See the module's docstring. Works on every space that lists its decisions."""

    Config = OptunaConfig
    native_space = "cells"
    needs: ClassVar[str] = "optuna"  # the package
    presets: ClassVar[dict[str, OptunaConfig]] = {
        "published": OptunaConfig(),
        # Ours: as great a part of few networks for the model.
        "quick": OptunaConfig(samples=12, starts=4, population=4),
        "fast": OptunaConfig(samples=8, starts=3, population=3, proposals=4),
    }

    def __init__(self, problem: Problem, config: OptunaConfig) -> None:
        super().__init__(problem, config.samples, config.proposals, config.batch)
        self.config = config
        make = _sampler(config)
        decisions = problem.space.decisions()
        if not decisions:
            known = " or ".join(deciding())
            raise InputError(f"optuna needs a space that lists its decisions ({known}), not '{problem.space.name}'")
        self.settled = {name: options[0] for name, options in decisions.items() if len(options) == 1}
        self.open = {name: options for name, options in decisions.items() if len(options) > 1}
        self.distributions = _distributions(self.open)
        self.make = make
        self.keys: list[str] = []  # of every trial, in their order
        self.study = self._new_study()

    def candidates(self, count: int) -> list[Architecture]:
        """What the sampler suggests and nobody knows; where it suggests little of that, random networks."""
        found: dict[str, Architecture] = {}
        for attempt in range(20 * REPEATS * count):
            if len(found) == count:
                break
            if attempt >= REPEATS * count:
                self.study.enqueue_trial({name: self._any(options) for name, options in self.open.items()})
            architecture = self.ask()
            if architecture.key in self.evaluations:
                self.tell(len(self.keys) - 1)
            else:
                found[architecture.key] = architecture
        return list(found.values())

    def _any(self, options: tuple[str, ...]) -> str:
        return options[int(self.problem.rng.integers(len(options)))]

    def ask(self) -> Architecture:
        """The network of a new trial."""
        self.study.sampler = self.make(int(self.problem.rng.integers(2**31)), self.distributions)
        trial = self.study.ask(self.distributions)
        architecture = self.problem.space.decided({**self.settled, **trial.params})
        self.keys.append(architecture.key)
        return architecture

    def tell(self, number: int) -> None:
        """What is known of a trial's network. What failed has an error of 1, at the cost that it would have."""
        self.study.tell(number, self._values(self.evaluations[self.keys[number]]))

    def _values(self, evaluation: Evaluation) -> list[float]:
        return [evaluation.error, self.problem.cost_of(self.architectures[evaluation.key])]

    def keep(self, architecture: Architecture, evaluation: Evaluation) -> None:
        known = architecture.key in self.evaluations
        super().keep(architecture, evaluation)
        if not known:
            for number, key in enumerate(self.keys):
                if key == architecture.key:
                    self.tell(number)

    # -- the study, which is made of plain data ----------------------------------------------------------------------

    def _new_study(self) -> "optuna.Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = optuna.storages.InMemoryStorage()
        return optuna.create_study(storage=self.storage, directions=["minimize", "minimize"])

    @property
    def _study_id(self) -> int:
        return self.storage.get_study_id_from_name(self.study.study_name)

    def state_dict(self) -> dict[str, Any]:
        trials = [
            {"params": dict(trial.params), "attributes": dict(trial.system_attrs), "key": key}
            for trial, key in zip(self.study.get_trials(deepcopy=False), self.keys, strict=True)
        ]
        attributes = dict(self.storage.get_study_system_attrs(self._study_id))
        return super().state_dict() | {"trials": trials, "attributes": attributes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from optuna.trial import TrialState, create_trial

        super().load_state_dict(state)
        self.study, self.keys = self._new_study(), [trial["key"] for trial in state["trials"]]
        for trial in state["trials"]:
            known = self.evaluations.get(trial["key"])
            self.study.add_trial(
                create_trial(
                    state=TrialState.RUNNING if known is None else TrialState.COMPLETE,
                    values=None if known is None else self._values(known),
                    params=trial["params"],
                    distributions=self.distributions,
                    system_attrs=trial["attributes"],
                )
            )
        for name, value in state["attributes"].items():
            self.storage.set_study_system_attr(self._study_id, name, value)


def _sampler(config: OptunaConfig) -> "Callable[[int, dict[str, Any]], optuna.samplers.BaseSampler]":
    """Seed and parameters → the sampler. Raises InputError where Optuna is not installed, or has no such sampler."""
    try:
        import optuna
    except ImportError:
        raise InputError(
            "--method optuna needs Optuna, which is not installed: pip install 'approxnas-bench[optuna]'"
        ) from None
    name, settings = SAMPLERS[config.sampler]
    cls = getattr(optuna.samplers, name, None)
    if cls is None:
        raise InputError(
            f"Optuna {optuna.__version__} has no {name}: pip install --upgrade optuna, or take another --optuna.sampler"
        )

    def make(seed: int, parameters: dict[str, Any]) -> "optuna.samplers.BaseSampler":
        own = {theirs: getattr(config, ours) if isinstance(ours, str) else ours for theirs, ours in settings.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = cls(seed=seed, **own)
        if (
            config.sampler != "random"
        ):  # all trials have all parameters, which a fresh sampler would find out one by one
            sampler.infer_relative_search_space = lambda study, trial: dict(parameters)  # noqa: ARG005
        return sampler

    return make


def _distributions(options: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """The parameters of a trial."""
    from optuna.distributions import CategoricalDistribution

    return {name: CategoricalDistribution(each) for name, each in options.items()}
