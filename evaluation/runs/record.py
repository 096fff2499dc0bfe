"""The record of a finished run: everything that a table needs."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict

import torch

from evaluation.datasets import Dataset
from evaluation.runs.ledger import Ledger
from evaluation.runs.state import RunState
from evaluation.search.problem import SearchProblem
from evaluation.settings.config import SCHEMA, RunConfig
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.costs import COSTS
from spaces.costs.model import CostModel
from spaces.costs.trace import LayerCost, total_macs, total_params
from spaces.shape import NetworkShape
from spaces.space import Architecture


def record(
    config: RunConfig,
    dataset: Dataset,
    problem: SearchProblem,
    ledger: Ledger,
    state: RunState,
    final_shape: NetworkShape,
) -> dict:
    """The content of ``record.json``."""
    return {
        "schema": SCHEMA,
        "status": "complete",
        "method": config.method,
        "method_config": config.method_config,
        "space": config.space,
        "space_config": config.space_config,
        "dataset": dataset.name,
        "dataset_origin": dataset.origin,
        "dataset_fingerprint": dataset.fingerprint,
        "test_fingerprint": state.test_fingerprint,
        "train_limit": config.train_limit,
        "seed": config.seed,
        "protocol": {**asdict(config.protocol), "hash": config.protocol.hash},
        "scope": config.scope,
        "multiplier_choice": config.multiplier_choice,
        "energy_model": config.cost,
        "multipliers": list(config.multipliers),
        "tables": config.tables,
        "engine": config.engine,
        "deterministic": config.deterministic,
        "budget": config.budget,
        "snapshots": config.snapshots,
        "versions": _versions(),
        "command": config.command,
        "device": ledger.describe_device(),
        "ledger": ledger.to_json(),
        "search_training_seconds": problem.searched.seconds,
        "steps": state.lines,
        "reference_pj": problem.reference_cost,
        "hypervolume": state.anytime[-1]["hypervolume"] if state.anytime else None,
        "anytime": state.anytime,
        "evaluations": problem.searched.candidates,
        "cache_hits": problem.searched.hits,
        "finalists": [_finalist(index, problem, state, final_shape) for index in range(len(state.finalists))],
        "notes": state.notes,
        "failures": _candidate_failures(problem) + state.failures,
    }


def _finalist(index: int, problem: SearchProblem, state: RunState, final_shape: NetworkShape) -> dict:
    architecture: Architecture = state.finalists[index]
    rows = problem.space.costs(architecture, final_shape)
    judged = problem.judged.of(architecture.key)  # None where the architecture was given
    tested = {name: state.results.get(f"{index}-{name}", {}).get("accuracy") for name in ARITHMETICS}
    return {
        "architecture": architecture.to_json(),
        "key": architecture.key,
        "summary": architecture.short(),
        "params": total_params(rows),
        "macs": total_macs(rows),
        "accuracy": {"validation": 1.0 - judged.evaluation.error if judged else None, "test": tested},
        "energy": {name: _energy(model, rows) for name, model in COSTS.items() if not model.measured},
        "layers": _layers(rows, COSTS[problem.config.cost]),
    }


def _energy(model: CostModel, rows: Sequence[LayerCost]) -> dict:
    """Totals in pJ, relative savings, and the split by arithmetic and by operation."""
    found = {arithmetic: model.network(rows, arithmetic) for arithmetic in ARITHMETICS}
    approximate = found["approximate"].total
    parts = ("multiplications", "additions", "memory")
    return {
        **{f"{arithmetic}_pj": cost.total for arithmetic, cost in found.items()},
        "saving_vs_fp32": 1 - approximate / found["fp32"].total,
        "saving_vs_int8": 1 - approximate / found["int8"].total,
        "split": {
            arithmetic: {f"{part}_pj": {**cost.parts, **cost.apart}.get(part, 0.0) for part in parts}
            for arithmetic, cost in found.items()
        },
    }


def _layers(rows: Sequence[LayerCost], model: CostModel) -> list[dict]:
    """Where the energy goes, layer by layer, memory traffic left out; layers that cost nothing are not listed."""
    layers = [
        {
            "name": row.name,
            "kind": row.kind,
            "multiplier": row.multiplier.name if row.multiplier else None,
            "macs": row.macs,
            **{f"{arithmetic}_pj": model.layer(row, arithmetic).total for arithmetic in ARITHMETICS},
        }
        for row in rows
    ]
    return [layer for layer in layers if layer["fp32_pj"] > 0]


def _candidate_failures(problem: SearchProblem) -> list[dict]:
    """Of the search and of selection, each with what it cost."""
    return problem.searched.failures("candidate") + problem.judged.failures("selection")


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
