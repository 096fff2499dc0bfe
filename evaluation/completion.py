"""Completion of ``approxnas`` in shells: one command line with all subcommands and flags, from which tyro makes a script.

approxnas --tyro-print-completion bash >> ~/.bash_completion
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from evaluation import table, train
from evaluation.cli.flags import flag_groups
from evaluation.settings.config import Options
from evaluation.settings.protocols import named_protocol
from methods import METHODS
from spaces.cli import programs
from spaces.cli.flags import union_of
from spaces.errors import InputError, suggest
from spaces.files.saving import save_text
from spaces.multipliers import __main__ as multipliers
from spaces.registry import SPACES

SHELLS = ("bash", "zsh", "fish")
WRITE, PRINT = "--tyro-write-completion", "--tyro-print-completion"
PARSERS = {  # of command lines that are argparse's
    "campaign": "evaluation.campaign",
    "report": "reports.build",
    "paper": "reports.paper.__main__",
    "export": "evaluation.export.__main__",
}


def write(arguments: Sequence[str]) -> None:
    """Carry out ``--tyro-print-completion SHELL``, or ``--tyro-write-completion SHELL FILE``. Raises InputError otherwise."""
    flag, *rest = arguments
    if flag not in (WRITE, PRINT):
        raise suggest(flag, (WRITE, PRINT), "flag")
    if len(rest) != (2 if flag == WRITE else 1):
        raise InputError(
            f"{flag} needs a shell ({', '.join(SHELLS)}){' and a file' if flag == WRITE else ' and nothing else'}"
        )
    if rest[0] not in SHELLS:
        raise suggest(rest[0], SHELLS, "shell")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(everything(), prog=programs.SCRIPT, args=[PRINT, rest[0]])
    # A line break in a flag's help would make a completion of what follows it.
    lines = (
        line.replace(r"\n", " ") if line.startswith("COMPLETION_SPEC") else line
        for line in shown.getvalue().splitlines()
    )
    script = "\n".join(lines) + "\n"
    if flag == WRITE:
        save_text(Path(rest[1]), script)
    else:
        print(script, end="")


def everything() -> Any:
    """All command lines as a type for tyro."""
    protocol = named_protocol(Options.protocol)
    groups: dict[str, tuple[type, Any]] = {}
    for registry in (METHODS, SPACES):
        groups |= {name: (cls.Config, cls.Config()) for name, cls in registry.items() if name in registry.built_in}
    search = flag_groups(Options(), protocol, groups)
    return union_of(
        {
            "run": search,
            "compare": search,
            "train": flag_groups(train.TrainOptions(), protocol),
            "table": _nested(table.COMMANDS),
            "multipliers": _nested(multipliers.COMMANDS),
            "check": importlib.import_module(programs.MODULES["check"]).CheckOptions,
            **{name: _of_argparse(importlib.import_module(module).parser()) for name, module in PARSERS.items()},
        }
    )


def _nested(commands: Mapping[str, type]) -> Any:
    unprefixed: Any = tyro.conf.OmitSubcommandPrefixes
    return unprefixed[dataclasses.make_dataclass("Nested", [("command", union_of(commands))])]


def _of_argparse(parser: argparse.ArgumentParser) -> type:
    """A dataclass with the flags of a parser; what their values are does not matter here."""
    flags = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    kinds = {action.dest: (bool, False) if action.nargs == 0 else (str, "") for action in flags}
    fields = [(name, kind, dataclasses.field(default=default)) for name, (kind, default) in kinds.items()]
    return dataclasses.make_dataclass("Flags", fields)
