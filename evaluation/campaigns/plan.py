"""The plan of a campaign: a TOML file that asks for every combination of its lists.

    methods = ["random", "evoapproxnas"]
    spaces = ["cells"]                               # "auto" where it is left out
    datasets = ["digits", "fashion14"]               # "digits"
    protocols = ["quick"]                            # "quick"
    multipliers = [["mul8s_1L2H", "mul8s_1KV8"]]     # lists of them; every built-in one
    seeds = 5                                        # 0 to 4, or a list

    [settings]                                       # of every run, as in a file for evaluation.run --config
    budget = "200evals"
    random.samples = 50

Nothing here imports torch.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.cli.config_files import as_flags, read_toml
from evaluation.cli.plan import plan_runs
from evaluation.cli.processes import command_line
from evaluation.datasets.containers import plain_name
from evaluation.run import all_flags, parse
from evaluation.settings.config import PLACE, RANGES, RunConfig
from spaces.errors import InputError, suggest
from spaces.files.schema import typed
from spaces.multipliers.multiplier import Multiplier

AXES = {"spaces": "--space", "datasets": "--dataset", "protocols": "--protocol", "multipliers": "--multipliers"}
PLANNED = {"method", "seed", "seeds", "out", "resume", "config", "print_config", "space", "dataset", "multipliers"}
MOST = 100_000  # runs of a plan


@dataclass(frozen=True)
class Axes:
    """The lists of a plan."""

    methods: tuple[str, ...]
    spaces: tuple[str, ...] = ("auto",)
    datasets: tuple[str, ...] = ("digits",)
    protocols: tuple[str, ...] = ("quick",)
    multipliers: tuple[tuple[str, ...], ...] = ((),)
    seeds: int | tuple[int, ...] = 1


@dataclass(frozen=True)
class PlannedRun:
    """A run of a campaign. Its name ends with a part of its key, so that equal settings have equal folders."""

    config: RunConfig
    library: tuple[Multiplier, ...]

    @property
    def key(self) -> str:
        """SHA-256 of all settings that a result depends on."""
        left_out = {"command", *PLACE}
        settings = {name: value for name, value in self.config.to_json().items() if name not in left_out}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Of its folder."""
        config = self.config
        dataset = plain_name(Path(config.dataset))
        stem = f"{config.method}-{config.space}-{dataset}-{config.protocol.name}-s{config.seed}-{self.key[:8]}"
        return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)


def read_plan(path: Path) -> list[PlannedRun]:
    """All runs of a plan, each once: seed by seed, so that after a part of the time all methods have got as far.

    Raises InputError for an unknown key, with the nearest one, and for what no run could be made of.
    """
    content = read_toml(path)
    settings = content.pop("settings", {})
    known = [*Axes.__dataclass_fields__, "settings"]
    for key in content:
        if key not in known:
            raise suggest(key, known, f"key in {path}:")
    if not isinstance(settings, dict):
        raise InputError(f"{path}: settings must be a table, [settings]")
    axes: Axes = typed(content, Axes, str(path))
    for name in known[:-1]:
        if name != "seeds" and not getattr(axes, name):
            raise InputError(f"{path}: {name} is empty")
    flags = as_flags(settings, _settable(), f"{path}, settings")
    seeds = _seeds(axes, path)
    lists: Sequence[Sequence[Any]] = [getattr(axes, name) for name in AXES]
    runs: dict[str, PlannedRun] = {}
    together = [_together(axes.methods, values, flags) for values in itertools.product(*lists)]
    if len(together) * len(seeds) * len(axes.methods) > MOST:
        raise InputError(f"{path}: a plan may have up to {MOST:,} runs")
    for seed in seeds:
        for run in itertools.chain.from_iterable(together):
            one = replace(run, config=replace(run.config, seed=seed, command=_command(run.config, flags, seed)))
            runs.setdefault(one.name, one)
    return list(runs.values())


def _settable() -> set[str]:
    """Flags of evaluation.run that a plan does not set by its lists."""
    return {flag for flag in all_flags() if flag[2:].replace("-", "_") not in PLANNED | {"protocol"}}


def _seeds(axes: Axes, path: Path) -> Sequence[int]:
    seeds = range(axes.seeds) if isinstance(axes.seeds, int) else tuple(dict.fromkeys(axes.seeds))
    if not seeds:
        raise InputError(f"{path}: seeds is empty")
    lowest, highest = RANGES["seed"]
    if not (lowest <= min(seeds) and max(seeds) <= highest):
        raise InputError(f"{path}: seeds must lie between {lowest} and {highest}")
    return seeds


def _together(methods: tuple[str, ...], values: tuple[Any, ...], flags: list[str]) -> list[PlannedRun]:
    """The runs of all methods in one combination of the lists, with the first seed: compared as by evaluation.run."""
    arguments = ["--method", *methods]
    for flag, value in zip(AXES.values(), values):
        names = [value] if isinstance(value, str) else list(value)
        arguments += [flag, *names] if names else []
    configs, library = plan_runs(parse([*arguments, *flags]), "")
    return [PlannedRun(config, library) for config in configs]


def _command(config: RunConfig, flags: list[str], seed: int) -> str:
    """A command that makes the same run alone."""
    own = [f"--method={config.method}", f"--space={config.space}", f"--dataset={config.dataset}", f"--seed={seed}"]
    own += [f"--protocol={config.protocol.name.removesuffix('-custom')}", f"--budget={config.budget}"]
    own += [f"--snapshots={config.snapshots}", "--multipliers", *config.multipliers]
    return command_line("evaluation.run", [*own, *flags])
