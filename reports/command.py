"""What the command lines of reports share: flags that are explained when wrong, and exit codes."""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from spaces.errors import InputError, suggest

BAD_INPUT, INTERRUPTED = 2, 130


def path(text: str) -> Path:
    """A path of the command line. An empty one, as from a shell variable that is not set, is none."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """Complains in one line, as the other command lines do."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Raises InputError for anything not understood, naming the nearest flag; exits with 0 after --help."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise suggest(unknown[0].partition("=")[0], flags, "flag")
        return options


def guarded(work: Callable[[], None]) -> int:
    """Run ``work`` and return the exit code: bad input ends with one line and 2, Ctrl-C with 130."""
    for stream in (sys.stdout, sys.stderr):  # a terminal need not know every character of a table or a file's name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        work()
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    return 0
