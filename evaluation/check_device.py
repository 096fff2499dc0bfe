"""The command line: is everything exact on this device, and how fast is it?

    python -m evaluation.check_device                        # all of it, on the GPU if there is one
    python -m evaluation.check_device --quick --json check.json
    python -m evaluation.check_device --device cpu --budget 3m

The exit code is 0 where nothing is wrong, 1 where anything is, 2 for bad input.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from evaluation.cli.processes import guarded
from evaluation.settings.config import DEVICES, Budget
from spaces.cli.commands import leave
from spaces.cli.flags import Unset, flags_of, parse_with_tyro, require_known
from spaces.cli.programs import program
from spaces.errors import InputError, suggest

PROGRAM = program("check")
DESCRIPTION = """Check that every engine is exact on this device, that it agrees with the CPU and that training works, and
time it all beside fp32. Exit code 1 if anything is wrong."""


@dataclass(frozen=True)
class CheckOptions:
    """What to check, and for how long."""

    device: str = "auto"
    """auto, cpu or cuda; auto takes the GPU if there is one."""
    json: Unset[str] = ""
    """File to write the result to, for programs."""
    quick: bool = False
    """A selection of it all: a minute on two CPU cores."""
    budget: Unset[str] = ""
    """Begin no more checks after this time (90s, 3m, 1h) and say what was left out; exactness comes first."""


def main(arguments: list[str] | None = None) -> int:
    """Parse, check, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def work(_: list[Path]) -> int:
        options = parse(arguments)
        budget, file = seconds(options.budget), writable(options.json)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic; read when cuBLAS is first used
        from evaluation.device_check import program
        from evaluation.training.device import choose_device

        return program.run(choose_device(options.device), options.quick, budget, file)

    return guarded(PROGRAM, work)


def parse(arguments: list[str]) -> CheckOptions:
    """The options. Raises InputError; exits with 0 after --help."""
    require_known(arguments, flags_of(CheckOptions))
    options: CheckOptions = parse_with_tyro(CheckOptions, PROGRAM, DESCRIPTION, arguments)
    if options.device not in DEVICES:
        raise suggest(options.device, DEVICES, "device")
    return options


def seconds(budget: str) -> float | None:
    """A budget of time; None for no limit. Raises InputError for anything else."""
    try:
        parsed = Budget.parse(budget).seconds
    except InputError:
        parsed = None
    if budget and parsed is None:
        raise InputError(f"--budget '{budget}' is no time; write 90s, 3m or 1h")
    return parsed


def writable(path: str) -> Path | None:
    """The file to write, or None. Raises InputError now rather than after minutes of work."""
    if not path:
        return None
    file = Path(path)
    if file.is_dir():
        raise InputError(f"--json {path}: this is a folder; name a file")
    if not file.parent.is_dir():
        raise InputError(f"--json {path}: there is no folder '{file.parent}'")
    if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise InputError(f"--json {path}: it cannot be written; check the permissions of the folder and the file")
    return file


if __name__ == "__main__":
    leave(main())
