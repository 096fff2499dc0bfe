"""The command line: compare search methods, and the controls that a comparison needs.

    approxnas compare --dataset fashion14
    approxnas compare --method gdas pcdarts random zero --seeds 7 --budget 2e13macs

It is ``evaluation.run`` with two flags that have other values unless they are given: --method, with two published methods
and three controls, and --seeds.
"""

import sys
from collections.abc import Sequence

from evaluation import run
from spaces.cli.commands import BAD_INPUT, leave, say
from spaces.cli.flags import Parser, given_flags, wrapped
from spaces.cli.programs import program
from spaces.errors import InputError, disk_errors_as_input_errors

PROGRAM = program("compare")
METHODS = ("approxdarts", "evoapproxnas", "random", "local_search", "zero")
SEEDS = 3
DESCRIPTION = f"""usage: {PROGRAM} [flags]

The flags are those of {program("run")}, listed below; --method is {" ".join(METHODS)} and --seeds {SEEDS} unless given.
All methods get the same space and the same --budget, seed by seed; a table at the end says which is better, and how sure
that is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, compare, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "--help" in arguments or "-h" in arguments:
        with disk_errors_as_input_errors():  # its reader may have gone
            print(f"{wrapped(DESCRIPTION)}\n", flush=True)
        return run.main(arguments)
    try:
        return run.main(with_defaults(arguments))
    except InputError as error:  # of ours; run has told its own
        say(f"error: {error}")
        return BAD_INPUT


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The flags of ``evaluation.run``. Raises InputError where there is nothing to compare."""
    given = given_flags(arguments)
    if "--resume" in given:
        raise InputError(f"a comparison goes on with: {program('run')} --resume, and the folders of its runs")
    early = Parser(PROGRAM, help_flag=False)
    early.add_argument("--method", nargs="*", default=METHODS)
    methods = early.parse_known_args(arguments)[0].method
    if len(methods) < 2:
        raise InputError("a comparison needs at least two methods after --method")
    usual = {"--method": METHODS, "--seeds": (str(SEEDS),)}
    return [part for flag, values in usual.items() if flag not in given for part in (flag, *values)] + [*arguments]


if __name__ == "__main__":
    leave(main())
