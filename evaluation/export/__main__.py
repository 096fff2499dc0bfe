"""The command line: export a finalist of a finished run.

    python -m evaluation.export runs/approxdarts-digits-quick-s0-1 --finalist 1 --to my_network

Bad input ends with one line that says what to do, and exit code 2.
"""

import sys
from pathlib import Path

from evaluation.cli.processes import guarded
from spaces.cli.commands import leave
from spaces.cli.flags import Parser, path
from spaces.cli.programs import program

PROGRAM = program("export")
DESCRIPTION = """Export a trained finalist: weight codes, scales, the circuit of every layer and its truth table, an ONNX
file of the network under exact products. What was written is read back and compared bit for bit."""


def parser() -> Parser:
    """Of the command line: ``run``, ``finalist`` and ``to``."""
    made = Parser(PROGRAM, DESCRIPTION)
    made.add_argument("run", type=path, help="folder of a finished run")
    made.add_argument("--finalist", type=int, default=1, help="which finalist, from 1 (default: 1)")
    made.add_argument("--to", type=path, required=True, help="folder to write; must not exist, or be empty")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Parse, export, say what was checked, and return the exit code."""

    def work(_: list[Path]) -> int:
        options = parser().parse(sys.argv[1:] if arguments is None else arguments)
        from evaluation.export.exporting import export_finalist

        print(export_finalist(options.run, options.finalist, options.to))
        return 0

    return guarded(PROGRAM, work)


if __name__ == "__main__":
    leave(main())
