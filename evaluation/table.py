"""The command line: tables of trained networks.

    python -m evaluation.table info
    python -m evaluation.table front
    python -m evaluation.table query architecture.json
    python -m evaluation.table build evaluation/benchmark/plans/fashion14.toml --executor processes
    python -m evaluation.table verify --entries 10
    python -m evaluation.table compare --method random local_search zero --seeds 200 --budget 2e12macs --to comparison.jsonl
    python -m evaluation.table ranks comparison.jsonl

Bad input ends with one line that says what to do, and exit code 2. A build that was stopped goes on with the same command.
"""

import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.benchmark.commands import COMMANDS, Build, Front, Info, Query, Ranks, Transfer, Verify
from spaces.cli.commands import guarded, leave, say
from spaces.cli.flags import Parser, parse_subcommand, path
from spaces.cli.programs import program
from spaces.errors import InputError

PROGRAM = program("table")
DESCRIPTION = """Tables of trained networks: every network of a small space on every multiplier, trained several times, with
whole learning curves. Searches look candidates up in them with evaluation.run --evaluator table.

compare searches with many methods under many seeds and ranks them; its flags are those of evaluation.run, and --to FILE,
where searches are kept (comparison.jsonl), and --proposals, how many networks each hands over (20)."""
DIFFERS = 1  # exit code
COMPARE = "compare"  # takes the flags of evaluation.run
PROPOSALS = 20


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(
        lambda: _work(arguments),
        lambda: "stopped; the same command goes on",
    )


def _work(arguments: list[str]) -> int:
    if arguments[:1] == [COMPARE]:
        return _compare(arguments[1:])
    return run(parse_subcommand(COMMANDS, PROGRAM, DESCRIPTION, arguments), arguments)


def run(command: Any, arguments: list[str]) -> int:
    """Carry out a parsed command; returns the exit code."""
    if isinstance(command, Build):
        return _build(command, arguments)
    if isinstance(command, Ranks):
        return _ranks(command.comparison)
    if isinstance(command, Transfer):
        return _transfer(command)
    from evaluation.benchmark import presentation
    from evaluation.benchmark.table import BenchTable
    from spaces.cli.terminal import Terminal

    doubtful = getattr(command, "doubtful", True)  # to train entries again is no use of what they predict
    table, console = BenchTable.load(command.table, doubtful), Terminal()
    if isinstance(command, Info):
        console.print(presentation.info(table))
    elif isinstance(command, Front):
        console.print(presentation.front(table, command.cost))
    elif isinstance(command, Query):
        console.print(presentation.entry(table, presentation.named(table, command.architecture), command.cost))
    else:
        return _verify(command, table)
    return 0


def _build(command: Build, arguments: list[str]) -> int:
    from evaluation.benchmark.building import build
    from evaluation.benchmark.plan import TablePlan
    from evaluation.cli.processes import command_line
    from evaluation.runs.progress import RunProgress
    from evaluation.settings.config import Place, require_ranges
    from spaces.cli.terminal import Terminal

    place = Place(executor=command.executor, workers=command.workers)
    require_ranges(place)
    plan, out = TablePlan.read(command.plan), command.out or Path(f"{command.plan.stem}.npz")
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: a table is an .npz file; end its name in .npz")
    with RunProgress(Terminal(), str(out)) as progress:
        begun = False

        def show(done: int, total: int, note: str) -> None:
            nonlocal begun
            if not begun:
                progress.stage("trained", total, done)
                begun = True
            progress.step(done, note)

        made = build(
            plan, out, place, command.device, command_line("evaluation.table", arguments), show, command.so_far
        )
    if made.reliability:
        say(f"{out}: {made.reliability}")
    if made.doubt:
        say("That is not good enough to be used: train more networks (sample), or use it with --doubtful.")
    return 0


def _compare(arguments: list[str]) -> int:
    """Flags are those of evaluation.run, and --to and --proposals."""
    from evaluation.benchmark.trajectories import Trajectory, TrajectoryFile, compare
    from evaluation.cli.config_files import expanded
    from evaluation.cli.plan import plan_runs
    from evaluation.run import all_flags, parse
    from evaluation.runs.progress import RunProgress
    from spaces.cli.terminal import Terminal

    own = Parser(f"{PROGRAM} {COMPARE}", f"Search on a table. All other flags are those of {program('run')}.")
    add = own.add_argument
    add("--to", type=path, default=Path("comparison.jsonl"), help="where searches are kept (default: comparison.jsonl)")
    add("--proposals", type=int, default=PROPOSALS, help=f"networks that each hands over (default: {PROPOSALS})")
    options, rest = own.parse_known_args(arguments)
    if options.proposals < 1:
        raise InputError("--proposals must be at least 1")
    asked = parse(["--evaluator", "table", *expanded(rest, all_flags)])
    methods = {name: _proposing(config, options.proposals) for name, config in asked.methods.items()}
    if not asked.options.budget:
        raise InputError("searches are compared under a budget; say which, such as --budget 2e12macs")
    configs, library = plan_runs(asked._replace(methods=methods), "")
    seeds = range(asked.options.seed, asked.options.seed + asked.options.seeds)
    file = TrajectoryFile(options.to)
    with RunProgress(Terminal(), str(options.to)) as progress:
        begun = False

        def show(done: int, total: int, latest: Trajectory | None) -> None:
            nonlocal begun
            if not begun:
                progress.stage("searches", total, done)
                begun = True
            progress.step(done, f"{latest.method}, seed {latest.seed}" if latest else "")

        compare({config.method: config for config in configs}, library, seeds, file, show)
    return _ranks(options.to)


def _proposing(config: Any, count: int) -> Any:
    """A method's settings with so many proposals, where it has them: a front is longer than what is trained in full."""
    return replace(config, proposals=count) if hasattr(config, "proposals") else config


def _ranks(file: Path) -> int:
    from evaluation.benchmark import presentation
    from evaluation.benchmark.trajectories import TrajectoryFile
    from spaces.cli.terminal import Terminal

    if not file.exists():
        raise InputError(f"'{file}' does not exist; table compare writes such files")
    Terminal().print(presentation.ranks(TrajectoryFile(file)))
    return 0


def _transfer(command: Transfer) -> int:
    from evaluation import datasets
    from evaluation.benchmark.table import BenchTable
    from evaluation.benchmark.transfer import agreement, transfer
    from evaluation.runs.progress import RunProgress
    from evaluation.training.device import choose_device, use_threads
    from spaces.cli.terminal import Terminal

    if min(command.networks, command.seeds) < 1 or min(command.image_size, command.train_limit) < 0:
        raise InputError("--networks and --seeds must be at least 1, --image-size and --train-limit not negative")
    table = BenchTable.load(command.table)
    if not isinstance(table, BenchTable):
        raise InputError("a surrogate's networks are predicted, not trained: there is nothing to transfer")
    dataset = datasets.load(command.data, command.image_size, command.data_dir, command.train_limit)
    use_threads(1, 1)
    device = choose_device(command.device)
    with RunProgress(Terminal(), str(command.to)) as progress:
        begun = False

        def show(done: int, total: int, note: str) -> None:
            nonlocal begun
            if not begun:
                progress.stage("trained", total, done)
                begun = True
            progress.step(done, note)

        found = transfer(table, dataset, command.networks, command.seeds, device, command.to, show)
    for name, group in (("front", {"front"}), ("random", {"random"}), ("all", {"front", "random"})):
        own = [each for each in found if each.group in group]
        told, there = agreement(own), (fmean(each.table for each in own), fmean(each.other for each in own))
        say(
            f"{name}: {told.networks} networks, mean error {there[0]:.1%} in the table and {there[1]:.1%} on the other images; "
            f"Kendall's τ {told.tau:.2f}, 95 % interval {told.low:.2f} to {told.high:.2f}"
        )
    return 0


def _verify(command: Verify, table: Any) -> int:
    from evaluation.benchmark.verifying import verify

    if command.entries < 1:
        raise InputError("--entries must be at least 1")
    wrong = 0
    for checked in verify(table, command.entries, command.seed, command.device):
        say(checked.line)
        wrong += not checked.within
    say(f"{command.entries} entries, {wrong} beyond what trainings differ by")
    return DIFFERS if wrong else 0


if __name__ == "__main__":
    leave(main())
