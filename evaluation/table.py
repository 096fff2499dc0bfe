"""The command line: tables of trained networks.

    python -m evaluation.table info
    python -m evaluation.table front fashion14
    python -m evaluation.table build evaluation/benchmark/plans/fashion14.toml --executor processes

Bad input ends with one line that says what to do, and exit code 2. A build that was stopped goes on with the same command.
"""

import argparse
import sys
from pathlib import Path

from spaces.cli.commands import guarded, leave
from spaces.cli.flags import Parser, path

PROGRAM = "python -m evaluation.table"


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: _work(_parser().parse(arguments)), lambda: "stopped; the same command goes on")


def _parser() -> Parser:
    parser = Parser(PROGRAM, "Tables of trained networks")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train the networks of a plan")
    build.add_argument("plan", type=path)
    build.add_argument("--out", type=path, default=None)
    build.add_argument("--executor", default="serial")
    build.add_argument("--workers", type=int, default=0)
    build.add_argument("--device", default="auto")
    return parser


def _work(options: argparse.Namespace) -> int:
    from evaluation.benchmark.building import build
    from evaluation.benchmark.plan import TablePlan
    from evaluation.runs.progress import RunProgress
    from evaluation.settings.config import Place
    from spaces.cli.terminal import Terminal

    plan = TablePlan.read(options.plan)
    out = options.out or Path(options.plan).with_suffix(".npz")
    command = f"{PROGRAM} build {options.plan}"
    with RunProgress(Terminal(), f"{out}") as progress:
        progress.stage("trained", 1)

        def show(done: int, total: int, note: str) -> None:
            progress.expect(total)
            progress.step(done, note)

        build(plan, out, Place(executor=options.executor, workers=options.workers), options.device, command, show)
    return 0


if __name__ == "__main__":
    leave(main())
