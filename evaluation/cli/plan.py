"""From the options of a command line to the runs that they ask for. Nothing here imports torch."""

import dataclasses
from pathlib import Path
from typing import Any

from evaluation import datasets
from evaluation.cli.early import require_names
from evaluation.settings.config import (
    COMPARISON_BUDGET,
    COMPARISON_BUDGETS,
    COMPARISON_SNAPSHOTS,
    Asked,
    Budget,
    Options,
    RunConfig,
    RunOptions,
    require_ranges,
)
from evaluation.settings.protocols import require_finite
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier


def plan_runs(asked: Asked, command: str) -> tuple[list[RunConfig], tuple[Multiplier, ...]]:
    """One RunConfig per method and seed, and their multipliers. Raises InputError for what no run could be made of."""
    options = asked.options
    Budget.parse(options.budget)
    require_names(options)
    require_ranges(options)
    for name, config in {**asked.methods, asked.space: asked.space_config}.items():
        require_finite(name, config)
    library = catalogue.library(options.multipliers or catalogue.names())
    shared = shared_settings(options) | _comparison_settings(options, list(asked.methods))
    plan = [
        RunConfig(
            method=name,
            method_config=dataclasses.asdict(config),
            space=asked.space,
            space_config=dataclasses.asdict(asked.space_config),
            protocol=asked.protocol,
            multipliers=tuple(multiplier.name for multiplier in library),
            tables={multiplier.name: multiplier.key for multiplier in library},
            command=command,
            **{**shared, "seed": seed},
        )
        # All methods of one seed, then of the next: a machine whose speed drifts then treats them alike.
        for seed in range(options.seed, options.seed + options.seeds)
        for name, config in asked.methods.items()
    ]
    return plan, library


def shared_settings(options: RunOptions) -> dict[str, Any]:
    """The options that a run's settings have under the same name and with the same meaning."""
    names = {field.name for field in dataclasses.fields(options)} & {f.name for f in dataclasses.fields(RunConfig)}
    own = {"method", "protocol", "multipliers", "space", "budget", "snapshots"}
    shared = {name: getattr(options, name) for name in names - own}
    # Folders and files are remembered by their full paths, so that --resume works from anywhere.
    if options.dataset not in datasets.NAMES and Path(options.dataset).exists():
        shared["dataset"] = str(Path(options.dataset).resolve())
    if options.data_dir:
        shared["data_dir"] = str(Path(options.data_dir).resolve())
    return shared


def _comparison_settings(options: Options, methods: list[str]) -> dict[str, Any]:
    """Budget and snapshots: where several methods are compared, they are the same for all."""
    compared = len(methods) > 1
    budget, snapshots = options.budget, options.snapshots
    if compared and not budget:
        budget = COMPARISON_BUDGETS.get(options.protocol, COMPARISON_BUDGET)
    if snapshots < 0:
        snapshots = COMPARISON_SNAPSHOTS if compared else 0
    return {"budget": budget, "snapshots": snapshots}
