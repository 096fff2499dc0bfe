"""Flags from dataclasses or from argparse: a wrong one is one line that suggests the nearest.

Both spellings of a flag are understood, --train-limit and --train_limit. --help answers and exits with 0.
"""

import argparse
import contextlib
import dataclasses
import inspect
import io
import itertools
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, Union

import tyro

from spaces.errors import InputError, suggest

T = TypeVar("T")
Unset = Annotated[T, tyro.conf.arg(help_behavior_hint="")]  # of a field whose default is "nothing": help shows none
_BARE = tyro.conf.arg(prefix_name=False)  # marks a field whose flag has no prefix


def given_flags(arguments: Iterable[str]) -> list[str]:
    """The flags among the arguments, without their values."""
    return [a.partition("=")[0].replace("_", "-") for a in arguments if a.startswith("--")]


def flags_of(cls: type, prefix: str = "") -> set[str]:
    """The flags that the fields of a dataclass make."""
    prefix = prefix.replace("_", "-")  # as in ``given_flags``
    names = {field.name.replace("_", "-"): field.type for field in dataclasses.fields(cls)}
    bare = {name for name, kind in names.items() if _BARE in getattr(kind, "__metadata__", ())}
    switches = {f"--{prefix}no-{name}" for name, kind in names.items() if kind in (bool, "bool")}
    return {f"--{'' if name in bare else prefix}{name}" for name in names} | switches


def require_known(arguments: Iterable[str], known: Iterable[str], kind: str = "flag") -> None:
    """Raises InputError for the first unknown flag, and suggests the nearest known one."""
    known = {"--help", *known}
    for flag in given_flags(arguments):
        if flag not in known:
            raise suggest(flag, known, kind)


def parse_with_tyro(
    cls: Any,
    program: str,
    description: str,
    arguments: Sequence[str],
    subcommand: str = "",
    config: Sequence[Any] = (),
    afterword: Callable[[], str] = str,
) -> Any:
    """An instance of a dataclass, or of one of a union of subcommands, of which the arguments name this one.

    ``config``: settings of tyro; ``afterword``: what follows the flags in --help. A wrong value raises InputError
    with tyro's explanation.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, prog=program, description=wrapped(description), args=arguments, config=config)
    except SystemExit as stop:
        if not stop.code:
            if after := afterword():
                print(f"\n{after}")
            raise
        # A framed text: a title, in plain ASCII a rule below it, then the explanation, wrapped, up to a rule.
        lines = [line.strip(" │╭╮╰╯─") for line in complaint.getvalue().splitlines()]
        lines = ["" if set(line) == {"-"} else line for line in lines[1:]]
        told = itertools.dropwhile(lambda line: not line, lines)
        reason = " ".join(itertools.takewhile(bool, told)) or "the arguments are not understood"
        raise InputError(f"{reason}; see {' '.join(filter(None, (program, subcommand)))} --help") from None


def parse_subcommand(commands: Mapping[str, type], program: str, description: str, arguments: Sequence[str]) -> Any:
    """An instance of the dataclass in ``commands`` that the first argument names. Raises InputError; --help exits with 0."""
    command = arguments[0] if arguments else ""
    if command in commands:
        known = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(commands[command])}
        require_known(arguments, known, f"flag of {command}")
    elif command not in ("--help", "-h"):
        if not command or command.startswith("-"):
            raise InputError(f"say what to do: {', '.join(commands)}; see {program} --help")
        raise suggest(command, commands, "command")
    return parse_with_tyro(
        union_of(commands), program, description, arguments, command, (tyro.conf.FlagCreatePairsOff,)
    )


def union_of(commands: Mapping[str, type]) -> Any:
    """The type from which tyro makes a command line with these subcommands."""
    about = {name: wrapped(inspect.getdoc(cls) or "") for name, cls in commands.items() if isinstance(cls, type)}
    own = (Annotated[cls, tyro.conf.subcommand(name, description=about.get(name))] for name, cls in commands.items())
    return Union[tuple(own)]  # noqa: UP007


def wrapped(text: str) -> str:
    """Paragraphs as wide as the terminal, which tyro does not wrap; it joins lines that begin with a letter, so indent."""
    width = shutil.get_terminal_size().columns
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n\n".join(textwrap.fill(paragraph, width, subsequent_indent="  ") for paragraph in paragraphs)


class Parser(argparse.ArgumentParser):
    """For flags whose value may be left out, and for those that decide which others there are."""

    def __init__(self, program: str, description: str = "", *, help_flag: bool = True) -> None:
        super().__init__(prog=program, description=description, add_help=help_flag, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Raises InputError for anything not understood, naming the nearest flag; exits with 0 after --help."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise suggest(unknown[0].partition("=")[0], flags, "flag")
        return options


def path(text: str) -> Path:
    """A path of the command line. An empty one, as from a shell variable that is not set, is none."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)
