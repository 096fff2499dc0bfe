"""From a run that has ended to its record."""

import importlib.metadata
import math
import platform
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from statistics import fmean

import torch

from evaluation.datasets import Dataset
from evaluation.runs.accounts import account_of
from evaluation.runs.ledger import Ledger
from evaluation.runs.record import (
    Accuracy,
    CostFigures,
    Device,
    Failure,
    Finalist,
    Judged,
    Layer,
    LedgerRow,
    Moment,
    ProtocolUsed,
    Record,
)
from evaluation.runs.state import RunState
from evaluation.searching.data import split_seed
from evaluation.searching.problem import SearchProblem
from evaluation.settings.baselines import recorded_arithmetics
from evaluation.settings.config import RunConfig
from spaces.costs import COSTS
from spaces.costs.model import CostModel
from spaces.costs.trace import LayerCost, total_macs, total_params
from spaces.distance import distances
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.shape import NetworkShape
from spaces.space import Architecture

SETTINGS = (
    "method", "method_config", "space", "space_config", "train_limit", "task", "evaluator", "seed", "scope",
    "multiplier_choice", "cost", "tables", "engine", "deterministic", "budget", "snapshots", "command",
)  # fmt: skip


def record_of(
    config: RunConfig,
    dataset: Dataset,
    problem: SearchProblem,
    ledger: Ledger,
    state: RunState,
    final_shape: NetworkShape,
) -> Record:
    """The record of the run that these have led to."""
    protocol = asdict(config.protocol)
    anytime, booked = typed(state.anytime, tuple[Moment, ...]), typed(ledger.to_json(), dict[str, LedgerRow])
    searched, judged = config.architecture is None, _judged(problem, state)
    return Record(
        **{name: getattr(config, name) for name in SETTINGS},
        dataset=dataset.name,
        dataset_origin=dataset.origin,
        dataset_fingerprint=dataset.fingerprint,
        test_fingerprint=state.test_fingerprint,
        split_seed=split_seed(config.protocol, config.seed),
        protocol=ProtocolUsed(protocol.pop("name"), config.protocol.hash, protocol),
        multipliers=tuple(config.multipliers),
        versions=_versions(),
        device=typed(ledger.describe_device(), Device),
        ledger=booked,
        account=account_of(config.budget, booked, problem.searched.candidates, state.selected) if searched else None,
        search_training_seconds=problem.searched.seconds,
        steps=state.lines,
        reference_cost=problem.reference_cost,
        hypervolume=anytime[-1].hypervolume if anytime else None,
        anytime=anytime,
        judged=judged,
        rank_correlations=rank_correlations(judged) if searched else None,
        evaluations=problem.searched.candidates,
        cache_hits=problem.searched.hits,
        finalists=tuple(_finalist(index, problem, state, final_shape) for index in range(len(state.finalists))),
        distances=distances(state.finalists),
        notes=(*state.notes, *unequal_epochs(judged)),
        failures=_failures(problem, state),
    )


def _judged(problem: SearchProblem, state: RunState) -> tuple[Judged, ...]:
    """The proposals, in their order."""
    found = []
    for key in (architecture.key for architecture in state.proposals):
        evaluations = [trial.evaluation for trial in problem.judged.known(key)]
        signals = {name: values[key] for name, values in state.signals.items() if key in values}
        searched = problem.searched.of(key)
        epochs = searched.evaluation.epochs_in_all if searched else None
        if evaluations:
            found.append(Judged(key, evaluations[0].cost, tuple(e.error for e in evaluations), signals, epochs))
    return tuple(found)


def unequal_epochs(judged: Sequence[Judged]) -> list[str]:
    """What to bear in mind where children went on with inherited weights."""
    epochs = [each.searched_epochs for each in judged if each.searched_epochs is not None]
    if len(set(epochs)) < 2:
        return []
    return [
        f"errors in the search are not comparable: weights were trained for {min(epochs)} to {max(epochs)} epochs in all, "
        "inherited ones included; judged errors are of trainings from scratch"
    ]


def rank_correlations(judged: Sequence[Judged]) -> dict[str, float | None]:
    """Kendall's τ-b of each signal with the mean judged error; None where there are fewer than three, or all are equal."""
    from scipy.stats import kendalltau

    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for each in judged for name in each.signals):
        pairs = [(each.signals[name], fmean(each.errors)) for each in judged if name in each.signals]
        tau = float(kendalltau(*zip(*pairs)).statistic) if len(pairs) >= 3 else math.nan
        found[name] = tau if math.isfinite(tau) else None
    return found


def _finalist(index: int, problem: SearchProblem, state: RunState, final_shape: NetworkShape) -> Finalist:
    architecture: Architecture = state.finalists[index]
    rows = problem.space.costs(architecture, final_shape)
    judged = problem.judged.of(architecture.key)  # None where the architecture was given
    arithmetics = recorded_arithmetics(problem.config.baselines)
    tested = {name: state.results.get(f"{index}-{name}", {}).get("accuracy") for name in arithmetics}
    return Finalist(
        architecture=architecture.to_json(),
        key=architecture.key,
        summary=architecture.short(),
        params=total_params(rows),
        macs=total_macs(rows),
        accuracy=Accuracy(1.0 - judged.evaluation.error if judged else None, tested),
        costs=_costs(rows, problem.config.cost, arithmetics),
        layers=_layers(rows, COSTS[problem.config.cost], arithmetics),
    )


def _costs(rows: Sequence[LayerCost], guiding: str, arithmetics: Sequence[str]) -> dict[str, CostFigures]:
    """By every model that can be computed; the one that guided the search can."""
    found = {}
    for name in COSTS:
        with nullcontext() if name == guiding else suppress(InputError):  # such as a layer that nobody has timed
            if name == guiding or not COSTS[name].measured:
                found[name] = _figures(COSTS[name], rows, arithmetics)
    return found


def _figures(model: CostModel, rows: Sequence[LayerCost], arithmetics: Sequence[str]) -> CostFigures:
    found = {arithmetic: model.network(rows, arithmetic) for arithmetic in arithmetics}
    return CostFigures(
        unit=model.unit,
        values={name: cost.total for name, cost in found.items()},
        split={name: dict(cost.parts) for name, cost in found.items()},
        apart={name: dict(cost.apart) for name, cost in found.items() if cost.apart},
    )


def _layers(rows: Sequence[LayerCost], model: CostModel, arithmetics: Sequence[str]) -> tuple[Layer, ...]:
    """Where the cost goes, layer by layer, what the model tells apart left out; layers that cost nothing are not listed."""
    layers = (
        Layer(
            name=row.name,
            kind=row.kind,
            multiplier=row.multiplier.name if row.multiplier else None,
            macs=row.macs,
            costs={arithmetic: model.layer(row, arithmetic).total for arithmetic in arithmetics},
        )
        for row in rows
    )
    return tuple(layer for layer in layers if any(layer.costs.values()))


def _failures(problem: SearchProblem, state: RunState) -> tuple[Failure, ...]:
    """Of candidates in the search and in selection, each with what it cost, and of finalists."""
    found = problem.searched.failures("candidate") + problem.judged.failures("selection") + state.failures
    return typed(found, tuple[Failure, ...])


def _versions() -> dict:
    names = ("approxnas-bench", "torch", "numpy", "scikit-learn", "moocore", "deap")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["cuda"] = torch.version.cuda
    return versions
