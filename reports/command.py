"""What the command lines of reports share: flags that are explained when wrong."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from spaces.errors import InputError, suggest


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
