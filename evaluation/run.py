"""The command line: search, train, test and record.

    python -m evaluation.run --method approxdarts
    python -m evaluation.run --method approxdarts evoapproxnas random --seeds 3
    python -m evaluation.run --resume runs/approxdarts-digits-quick-s0-1

    torchrun --nproc-per-node 2 -m evaluation.run --method approxdarts    # finalists are trained on two devices

Bad input ends with one line that says what to do, and exit code 2. Ctrl-C ends with 130, SIGTERM with 143 and SIGHUP with
129; --resume goes on.
"""

import dataclasses
import functools
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from evaluation.cli.flags import (
    EarlyParser,
    command_line,
    flags_of,
    given_flags,
    guarded,
    parse_with_tyro,
    require_alone,
    require_folders,
    require_known,
    settled_protocol,
)
from evaluation.settings.config import (
    COMPARISON_BUDGET,
    COMPARISON_BUDGETS,
    COMPARISON_SNAPSHOTS,
    Budget,
    Options,
    RunConfig,
    RunOptions,
    require_ranges,
)
from evaluation.settings.protocols import Protocol, named_protocol, require_finite
from methods import METHODS
from spaces import stopping
from spaces.commands import BAD_INPUT, leave, say
from spaces.errors import InputError, suggest

if TYPE_CHECKING:  # torch is imported only when there is something to run: --help must answer at once
    import torch

    from evaluation.datasets import Dataset
    from evaluation.runs.folder import RunFolder
    from evaluation.runs.stages import Run
    from spaces.multipliers.multiplier import Multiplier

TINY_IMAGE = 16  # pixels: below, two threads were slower than one on a machine with two cores
PROGRAM = "python -m evaluation.run"
DESCRIPTION = f"""Search networks on approximate multipliers, train the finalists, test them, record everything.

Methods: {", ".join(METHODS)}. The options of a method: {PROGRAM} --method NAME --help"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def work(planned: list[Path]) -> int:
        options, protocol, method_configs = parse(arguments)
        require_folders(arguments, options.resume)
        if options.resume:
            require_alone(arguments, "--device")
            return go_on(options.resume, planned, device=options.device if "--device" in given_flags(arguments) else "")
        command = command_line("evaluation.run", arguments)
        return start(*_plan(options, protocol, method_configs, command), options.out, planned)

    return guarded(PROGRAM, work, take_part)


# -- parsing -----------------------------------------------------------------------------------------------------------


def parse(arguments: list[str]) -> tuple[Options, Protocol, dict[str, Any]]:
    """The options, the protocol and one config per method. Raises InputError; exits with 0 after --help."""
    early = EarlyParser(PROGRAM)
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
    parsed = parse_with_tyro(everything, PROGRAM, DESCRIPTION, arguments)
    if "--multipliers" in arguments and not parsed.options.multipliers:
        raise InputError("--multipliers needs at least one circuit, table file or folder of tables")
    settings = settled_protocol(parsed.protocol, protocol.name)
    return parsed.options, settings, {name: getattr(parsed, name) for name in names}


def _check_flags(arguments: list[str], groups: dict[str, type]) -> None:
    """Raises InputError for the first unknown flag, and for one of a method that is not asked for."""
    known = flags_of(Options).union(*(flags_of(cls, f"{name}.") for name, cls in groups.items()))
    for flag in given_flags(arguments):
        method = flag[2:].partition(".")[0].replace("-", "_")
        if flag not in known and method in METHODS and method not in groups:
            raise InputError(f"{flag} belongs to method '{method}', which is not in --method")
    require_known(arguments, known)


def _plan(
    options: Options, protocol: Protocol, method_configs: dict[str, Any], command: str
) -> tuple[list[RunConfig], tuple["Multiplier", ...]]:
    """One RunConfig per method and seed, and their circuits. Raises InputError for what no run could be made of."""
    Budget.parse(options.budget)
    require_ranges(options)
    for name, config in method_configs.items():
        require_finite(name, config)
    from spaces.multipliers import catalogue

    library = catalogue.library(options.multipliers or catalogue.names())
    shared = shared_settings(options) | _comparison_settings(options, list(method_configs))
    plan = [
        RunConfig(
            method=name,
            method_config=dataclasses.asdict(config),
            protocol=protocol,
            multipliers=tuple(multiplier.name for multiplier in library),
            tables={multiplier.name: multiplier.key for multiplier in library},
            command=command,
            **{**shared, "seed": seed},
        )
        # All methods of one seed, then of the next: a machine whose speed drifts then treats them alike.
        for seed in range(options.seed, options.seed + options.seeds)
        for name, config in method_configs.items()
    ]
    return plan, library


def shared_settings(options: RunOptions) -> dict[str, Any]:
    """The options that a run's settings have under the same name and with the same meaning."""
    from evaluation import datasets

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


def start(plan: list[RunConfig], library: tuple["Multiplier", ...], out: Path, planned: list[Path]) -> int:
    """Check the whole plan, make its run folders, and run them."""
    from evaluation.runs.folder import RunFolder
    from evaluation.runs.stages import Run

    _set_determinism(plan[0].deterministic)
    device = choose_device(plan[0].device)
    dataset = _dataset(plan[0].dataset, plan[0].image_size, plan[0].data_dir, plan[0].train_limit)
    for config in {config.method: config for config in plan}.values():
        Run(config, dataset, device, library).check()
    try:
        for config in plan:
            with stopping.postponed():  # a folder that is there is one that a stop names
                planned.append(RunFolder.create(out, config, library).path)
    except InputError:
        for path in planned:
            shutil.rmtree(path)
        raise
    return go_on(list(planned), planned, fresh=True)


def go_on(paths: Sequence[Path], planned: list[Path], fresh: bool = False, device: str = "") -> int:
    """Run what is left to do in every folder, one after the other, and compare them. Returns the exit code.

    One that fails does not stop the others. ``fresh`` folders that fail before their first step are removed. ``device``
    is another one than their settings ask for.
    """
    from evaluation.cli import comparison
    from evaluation.runs.folder import CONFIG
    from evaluation.runs.state import STATE
    from spaces.terminal import Terminal

    planned[:] = {path.resolve(): path for path in paths}.values()  # each once
    for path in planned:
        if not (path / CONFIG).exists():
            raise InputError(f"'{path}' is not a run folder: it has no {CONFIG}")
    finished, failed = [], False
    for path in list(planned):
        try:
            finished.append(_execute(path, device))
        except InputError as error:
            if fresh and not (path / STATE).exists():
                shutil.rmtree(path)
                planned.remove(path)
            if len(paths) == 1:
                raise
            say(f"error: {path}: {error}")
            failed = True
    if len(finished) > 1:
        comparison.show(Terminal(), finished)
    return BAD_INPUT if failed else 0


def _execute(path: Path, device: str) -> dict:
    """Run what is left to do in a run folder, show and return its record."""
    from evaluation.cli import summary
    from evaluation.runs.folder import RECORD, RunFolder, read_finished
    from evaluation.runs.progress import RunProgress
    from spaces.terminal import Terminal

    console, finished = Terminal(), path / RECORD
    if finished.exists():  # to show it takes neither its data nor a folder that can be written
        record = read_finished(finished)
        console.print(str(path), style="bold", highlight=False)
    else:
        place = RunFolder(path)
        run = _open(place, device)
        with RunProgress(console, str(path)) as progress:
            record = run.execute(place, progress)
    summary.show(console, record, str(path))
    return record


def take_part() -> None:
    """Train in step with the first of torchrun's processes, which does all else, until it is done."""
    from evaluation.runs.folder import RunFolder
    from evaluation.training import distributed

    place, run = "", None
    while job := distributed.receive():
        if job["folder"] != place:
            place, run = job["folder"], None  # the memory of the last one first
            run = _open(RunFolder(Path(place)), job["device"])
        run.take_part(job)


def _open(place: "RunFolder", device: str) -> "Run":
    """The run of a folder, on the ``device`` or on that of its settings, ready to go on."""
    from evaluation.runs.stages import Run
    from spaces.arithmetic import emulate

    config = place.config()
    _set_determinism(config.deterministic)
    dataset = _dataset(config.dataset, config.image_size, config.data_dir, config.train_limit)
    use_threads(config.threads, dataset.train.images.shape[2])
    emulate.use_engine(config.engine)
    chosen = choose_device(device or config.device, f"go on with --resume {shlex.quote(str(place.path))} --device cpu")
    return Run(config, dataset, chosen, place.library(config))


def _set_determinism(wanted: bool) -> None:
    """See ``Options.deterministic``. Results depend on no measured time otherwise: every engine gives the same sums."""
    import torch

    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(wanted)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads any
    torch.backends.cudnn.benchmark = False


@functools.lru_cache(maxsize=1)
def _dataset(name: str, image_size: int, data_dir: str, train_limit: int) -> "Dataset":
    """The data set, decoded once for all runs on it."""
    from evaluation import datasets

    return datasets.load(name, image_size, data_dir, train_limit)


def choose_device(name: str, advice: str = "use --device cpu") -> "torch.device":
    """The device for "auto", "cpu" or "cuda". Raises InputError, which ends with ``advice``, where it is not there."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise suggest(name, ["auto", "cpu", "cuda"], "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: this torch sees no CUDA device; install a CUDA build, or {advice}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    from evaluation.training import distributed
    from spaces.arithmetic.precision import forbid_tf32

    forbid_tf32()  # fp32 baselines are of fp32 networks
    return distributed.own_device(name)


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
    leave(main())
