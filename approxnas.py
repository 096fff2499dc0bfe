"""The command ``approxnas``: every command line of the suite, from any folder.

    approxnas run --method approxdarts
    approxnas --help

The floors of the suite have names that other packages and a user's own folders have, too. Once this module is imported,
they are those that lie beside it, whatever else is on the path.
"""

import importlib
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
OWN_FLOORS = runpy.run_path(str(ROOT / "spaces" / "own_floors.py"))
BAD_INPUT = 2


class OwnFloors:
    """Finds the floors before any other finder does; see ``importlib.abc.MetaPathFinder``."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG003
        return PathFinder.find_spec(name, [str(ROOT)]) if path is None and name in OWN_FLOORS["FLOORS"] else None


sys.meta_path.insert(0, OwnFloors)  # here, so that processes that are spawned do so, too


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command that the first argument names, and return its exit code."""
    command, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if line := OWN_FLOORS["complaint"]():
        print(f"error: {line}", file=sys.stderr)
        return BAD_INPUT
    from spaces.cli import programs
    from spaces.cli.commands import guarded
    from spaces.errors import suggest

    if command in programs.MODULES:
        return importlib.import_module(programs.MODULES[command]).main(rest)

    def about() -> int:
        if command in ("--help", "-h"):
            print(programs.overview())
        elif command in ("--version", "-V"):
            print(f"{programs.SCRIPT} {programs.version()}")
        elif command.startswith("--tyro-"):
            from evaluation import completion

            completion.write([command, *rest])
        else:
            raise suggest(command, programs.MODULES, "command")
        return 0

    return guarded(about)


def script() -> NoReturn:
    """What the installed command calls."""
    code = main()
    from spaces.cli.commands import leave

    leave(code)


if __name__ == "__main__":
    script()
