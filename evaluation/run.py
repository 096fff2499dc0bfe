"""The command line: search, train, test and record.

    python -m evaluation.run --method approxdarts
    python -m evaluation.run --method approxdarts evoapproxnas random --seeds 3
    python -m evaluation.run --resume runs/approxdarts-digits-quick-s0-1

Bad input ends with one line that says what to do, and exit code 2. Ctrl-C ends with 130; --resume goes on.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import tyro

from evaluation.config import (
    COMPARISON_BUDGET,
    COMPARISON_BUDGETS,
    COMPARISON_SNAPSHOTS,
    Budget,
    Options,
    RunConfig,
)
from evaluation.protocols import LARGEST, Protocol, named_protocol, require_finite
from methods import METHODS
from spaces.errors import InputError, disk_errors_as_input_errors, suggest

if TYPE_CHECKING:  # torch is imported only when there is something to run: --help must answer at once
    import torch

    from evaluation.datasets import Dataset
    from spaces.multipliers.multiplier import Multiplier

BAD_INPUT, INTERRUPTED = 2, 130
TINY_IMAGE = 16  # pixels: below, two threads were slower than one on a machine with two cores
PROGRAM = "python -m evaluation.run"
DESCRIPTION = f"""Search networks on approximate multipliers, train the finalists, test them, record everything.

Methods: {", ".join(METHODS)}. The options of a method: {PROGRAM} --method NAME --help"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    planned: list[Path] = []  # folders of all runs
    try:
        with disk_errors_as_input_errors("; once that is mended, go on with --resume"):
            options, protocol, method_configs = parse(arguments)
            if options.resume:
                others = [a for a in arguments if a.startswith("--") and a.partition("=")[0] != "--resume"]
                if others:
                    raise InputError(
                        f"--resume goes on with the run's own settings; no other flag may be given ({others[0]})"
                    )
                return _go_on(options.resume, planned)
            command = shlex.join(["python", "-m", "evaluation.run", *arguments])
            return _start(*_plan(options, protocol, method_configs, command), options.out, planned)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        folders = shlex.join(map(str, planned))
        print(f"stopped; go on with: {PROGRAM} --resume {folders}" if folders else "stopped", file=sys.stderr)
        return INTERRUPTED


# -- parsing -----------------------------------------------------------------------------------------------------------


def parse(arguments: list[str]) -> tuple[Options, Protocol, dict[str, Any]]:
    """The options, the protocol and one config per method. Raises InputError; exits with 0 after --help."""
    early = _EarlyParser(add_help=False, allow_abbrev=False)
    early.add_argument("--method", nargs="+")
    early.add_argument("--protocol", default=Options.protocol)
    chosen, _ = early.parse_known_args(arguments)
    protocol = named_protocol(chosen.protocol)
    asking = "--help" in arguments or "-h" in arguments
    names = chosen.method or ([] if asking else list(Options.method))
    if len(set(names)) < len(names):
        raise InputError("a method is named twice; use --seeds for several runs of one method")
    configs = {name: METHODS[name] for name in names}
    everything = dataclasses.make_dataclass(
        "Everything",
        [
            ("options", tyro.conf.OmitArgPrefixes[Options], dataclasses.field(default=Options(protocol=protocol.name))),
            (
                "protocol",
                Annotated[type(protocol), tyro.conf.arg(name="protocol")],
                dataclasses.field(default=protocol),
            ),
            *(
                (name, cls.Config, dataclasses.field(default=cls.presets.get(protocol.name, cls.Config())))
                for name, cls in configs.items()
            ),
        ],
        frozen=True,
    )
    _check_flags(arguments, {"protocol": Protocol, **{name: cls.Config for name, cls in configs.items()}})
    parsed = _parse_with_tyro(everything, arguments)
    if "--multipliers" in arguments and not parsed.options.multipliers:
        raise InputError("--multipliers needs at least one circuit, table file or folder of tables")
    settings = parsed.protocol
    if settings != protocol:
        settings = dataclasses.replace(settings, name=f"{protocol.name}-custom")
    return parsed.options, settings, {name: getattr(parsed, name) for name in names}


class _EarlyParser(argparse.ArgumentParser):
    """For the two flags that decide which others there are."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {PROGRAM} --help")


def _check_flags(arguments: list[str], groups: dict[str, type]) -> None:
    """Raises InputError for the first unknown flag, and suggests the nearest known one."""
    known = {"--help", *_flags(Options, "")}
    for name, cls in groups.items():
        known |= _flags(cls, f"{name}.")
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            method = flag[2:].partition(".")[0]
            if method in METHODS and method not in groups:
                raise InputError(f"{flag} belongs to method '{method}', which is not in --method")
            raise suggest(flag, known, "flag")


def _flags(cls: type, prefix: str) -> set[str]:
    names = {field.name.replace("_", "-"): field.type for field in dataclasses.fields(cls)}
    switches = {f"--{prefix}no-{name}" for name, kind in names.items() if kind in (bool, "bool")}
    return {f"--{prefix}{name}" for name in names} | switches


def _parse_with_tyro(cls: type, arguments: list[str]) -> Any:
    """Parse; a wrong value raises InputError with the first line of tyro's explanation."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, prog=PROGRAM, description=DESCRIPTION, args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        # A framed text: a title, then the explanation, wrapped, up to a rule.
        lines = [line.strip(" │╭╮╰╯─") for line in complaint.getvalue().splitlines()]
        reason = " ".join(itertools.takewhile(bool, lines[1:])) or "the arguments are not understood"
        raise InputError(f"{reason}; see {PROGRAM} --help") from None


def _plan(
    options: Options, protocol: Protocol, method_configs: dict[str, Any], command: str
) -> tuple[list[RunConfig], tuple["Multiplier", ...]]:
    """One RunConfig per method and seed, and their circuits. Raises InputError for what no run could be made of."""
    Budget.parse(options.budget)
    for name, lowest, highest in (
        ("seeds", 1, 10_000), ("seed", 0, 2**63), ("nodes", 1, 64), ("image_size", 0, LARGEST), ("threads", 0, 1024),
        ("rows", 1, 64), ("columns", 1, 256), ("levels_back", 1, 256), ("snapshots", -1, 1000),
    ):  # fmt: skip
        if not lowest <= getattr(options, name) <= highest:
            raise InputError(f"--{name.replace('_', '-')} must be between {lowest} and {highest}")
    for name, config in method_configs.items():
        require_finite(name, config)
    from spaces.multipliers import catalogue

    library = catalogue.library(options.multipliers or catalogue.names())
    names = {field.name for field in dataclasses.fields(Options)} & {f.name for f in dataclasses.fields(RunConfig)}
    own = {"method", "protocol", "multipliers", "seed", "dataset", "space", "budget", "snapshots"}
    shared = {name: getattr(options, name) for name in names - own}
    shared |= _comparison_settings(options, list(method_configs))
    # A folder is remembered by its full path, so that --resume works from anywhere.
    dataset = str(Path(options.dataset).resolve()) if Path(options.dataset).is_dir() else options.dataset
    plan = [
        RunConfig(
            method=name,
            method_config=dataclasses.asdict(config),
            seed=seed,
            protocol=protocol,
            multipliers=tuple(multiplier.name for multiplier in library),
            tables={multiplier.name: multiplier.key for multiplier in library},
            command=command,
            dataset=dataset,
            **shared,
        )
        # All methods of one seed, then of the next: a machine whose speed drifts then treats them alike.
        for seed in range(options.seed, options.seed + options.seeds)
        for name, config in method_configs.items()
    ]
    return plan, library


def _comparison_settings(options: Options, methods: list[str]) -> dict[str, Any]:
    """Space, budget and snapshots: where several methods are compared, they are the same for all."""
    compared = len(methods) > 1
    space = options.space
    if space == "auto":
        space = "cells" if compared else METHODS[methods[0]].native_space
    budget, snapshots = options.budget, options.snapshots
    if compared and not budget:
        budget = COMPARISON_BUDGETS.get(options.protocol, COMPARISON_BUDGET)
    if snapshots < 0:
        snapshots = COMPARISON_SNAPSHOTS if compared else 0
    return {"space": space, "budget": budget, "snapshots": snapshots}


# -- running -----------------------------------------------------------------------------------------------------------


def _start(plan: list[RunConfig], library: tuple["Multiplier", ...], out: Path, planned: list[Path]) -> int:
    """Check the whole plan, make its run folders, and run them."""
    from evaluation.records import RunFolder
    from evaluation.runner import Run

    device = choose_device(plan[0].device)
    dataset = _dataset(plan[0].dataset, plan[0].image_size)
    for config in {config.method: config for config in plan}.values():
        Run(config, dataset, device, library).check()
    paths: list[Path] = []
    try:
        for config in plan:
            paths += [RunFolder.create(out, config, library).path]
    except InputError:
        for path in paths:
            shutil.rmtree(path)
        raise
    return _go_on(paths, planned, fresh=True)


def _go_on(paths: Sequence[Path], planned: list[Path], fresh: bool = False) -> int:
    """Run what is left to do in every folder, one after the other, and compare them. Returns the exit code.

    One that fails does not stop the others. ``fresh`` folders that fail before their first step are removed.
    """
    from rich.console import Console

    from evaluation import comparison
    from evaluation.records import CONFIG
    from evaluation.state import STATE

    planned += {path.resolve(): path for path in paths}.values()  # each once
    for path in planned:
        if not (path / CONFIG).exists():
            raise InputError(f"'{path}' is not a run folder: it has no {CONFIG}")
    finished, failed = [], False
    for path in list(planned):
        try:
            finished.append(_execute(path))
        except InputError as error:
            if fresh and not (path / STATE).exists():
                shutil.rmtree(path)
                planned.remove(path)
            if len(paths) == 1:
                raise
            print(f"error: {path}: {error}", file=sys.stderr)
            failed = True
    if len(finished) > 1:
        comparison.show(Console(), finished)
    return BAD_INPUT if failed else 0


def _execute(path: Path) -> dict:
    """Run what is left to do in a run folder, show and return its record."""
    from rich.console import Console

    from evaluation import summary
    from evaluation.progress import RunProgress
    from evaluation.records import RunFolder
    from evaluation.runner import Run
    from spaces.arithmetic import emulate

    place = RunFolder(path)
    config = place.config()
    dataset = _dataset(config.dataset, config.image_size)
    use_threads(config.threads, dataset.train.images.shape[2])
    emulate.use_engine(config.engine)
    run = Run(config, dataset, choose_device(config.device), place.library(config))
    console = Console()
    with RunProgress(console, str(path)) as progress:
        record = run.execute(place, progress)
    summary.show(console, record, str(path))
    return record


@functools.lru_cache(maxsize=1)
def _dataset(name: str, image_size: int) -> "Dataset":
    """The data set, decoded once for all runs on it."""
    from evaluation import datasets

    return datasets.load(name, image_size)


def choose_device(name: str) -> "torch.device":
    """The device for "auto", "cpu" or "cuda". Raises InputError where it is not there."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise suggest(name, ["auto", "cpu", "cuda"], "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this torch sees no CUDA device; use --device cpu, or install a CUDA build")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def use_threads(count: int, image_height: int) -> None:
    """Set torch's CPU threads; see ``Options.threads``."""
    import torch

    _all_threads()
    if count == 0:
        count = 1 if image_height < TINY_IMAGE else _all_threads()
    torch.set_num_threads(count)


@functools.cache
def _all_threads() -> int:
    """The number that torch would use by itself, asked for before it was ever set."""
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    sys.exit(main())
