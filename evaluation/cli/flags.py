"""Flags from dataclasses: every field is a flag, an unknown flag is an error that suggests the nearest one."""

import argparse
import contextlib
import dataclasses
import io
import itertools
import os
import shlex
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import tyro

from evaluation.settings.protocols import Protocol, named_protocol
from spaces import commands
from spaces.commands import BAD_INPUT
from spaces.errors import InputError, suggest


def guarded(program: str, work: Callable[[list[Path]], int], take_part: Callable[[], None] = lambda: None) -> int:
    """``commands.guarded``, with the advice to go on with ``--resume`` after a stop.

    ``work`` adds the run folders it is about to run to the list that it is given. Where torchrun started several
    processes, the first does so, and the others ``take_part``.
    """
    if _together() and os.environ.get("RANK", "0") != "0":
        return _guarded_part(take_part)
    planned: list[Path] = []

    def farewell() -> str:
        folders = shlex.join(map(str, planned))
        return f"stopped; go on with: {program} --resume {folders}" if folders else "stopped"

    advice = "; once that is mended, go on with --resume"
    return commands.guarded(lambda: _within_memory(lambda: work(planned)), farewell, advice)


def _within_memory(work: Callable[[], int]) -> int:
    """Raises InputError where memory does not suffice for what nobody else has an advice for."""
    try:
        if not _together():
            return work()  # without torch, which takes its time
        from evaluation.training import distributed

        with distributed.joined():
            return work()
    except (RuntimeError, MemoryError) as error:
        from evaluation.training import memory

        if not memory.is_full(error):
            raise
        raise InputError("out of memory: the images do not fit; use --device cpu, or fewer of them") from error


def _guarded_part(take_part: Callable[[], None]) -> int:
    from evaluation.training import distributed

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it writes no files: a stop may end it at once, even in a wait
    try:
        with distributed.joined():
            take_part()
    except Exception as error:  # whatever it is, this process can do no more; the first one says how to go on
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        commands.say(f"error in process {os.environ['RANK']}: {reason.splitlines()[0]}")
        return BAD_INPUT
    return 0


def take_part() -> None:
    """Train in step with the first of torchrun's processes; imported where there is one."""
    from evaluation.cli import executing

    executing.take_part()


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command that a person typed, for the record."""
    start = ["python"]
    if _together():
        size, local = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        machines = [] if size == local else ["--nnodes", str(size // local)]
        start = ["torchrun", *machines, "--nproc-per-node", str(local)]
    return shlex.join([*start, "-m", module, *arguments])


def _together() -> bool:
    """Whether torchrun started several processes. Some schedulers set WORLD_SIZE, too."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and "TORCHELASTIC_RUN_ID" in os.environ


class EarlyParser(argparse.ArgumentParser):
    """For the flags that decide which others there are."""

    def __init__(self, program: str) -> None:
        super().__init__(prog=program, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def flags_of(cls: type, prefix: str = "") -> set[str]:
    """The flags that the fields of a dataclass make."""
    prefix = prefix.replace("_", "-")  # as in ``given_flags``: both spellings are understood
    names = {field.name.replace("_", "-"): field.type for field in dataclasses.fields(cls)}
    switches = {f"--{prefix}no-{name}" for name, kind in names.items() if kind in (bool, "bool")}
    return {f"--{prefix}{name}" for name in names} | switches


def given_flags(arguments: Iterable[str]) -> list[str]:
    """The flags among the arguments, without their values."""
    return [a.partition("=")[0].replace("_", "-") for a in arguments if a.startswith("--")]


def require_known(arguments: Iterable[str], known: Iterable[str]) -> None:
    """Raises InputError for the first unknown flag, and suggests the nearest known one."""
    known = {"--help", *known}
    for flag in given_flags(arguments):
        if flag not in known:
            raise suggest(flag, known, "flag")


def require_folders(arguments: Sequence[str], folders: Sequence[Path]) -> None:
    """Raises InputError for --resume without a folder, as from an empty variable: it must not start something new."""
    if "--resume" in given_flags(arguments) and not folders:
        raise InputError("--resume needs at least one run folder")


def require_alone(arguments: Sequence[str], *allowed: str) -> None:
    """Raises InputError where another flag than those ``allowed`` comes with --resume."""
    others = [flag for flag in given_flags(arguments) if flag not in ("--resume", *allowed)]
    if others:
        but = f" but {' and '.join(allowed)}" if allowed else ""
        raise InputError(f"--resume goes on with the run's own settings; no other flag{but} may be given ({others[0]})")


def parse_with_tyro(cls: type, program: str, description: str, arguments: Sequence[str]) -> Any:
    """Parse; a wrong value raises InputError with the first line of tyro's explanation."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, prog=program, description=description, args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        # A framed text: a title, then the explanation, wrapped, up to a rule.
        lines = [line.strip(" │╭╮╰╯─") for line in complaint.getvalue().splitlines()]
        reason = " ".join(itertools.takewhile(bool, lines[1:])) or "the arguments are not understood"
        raise InputError(f"{reason}; see {program} --help") from None


def settled_protocol(parsed: Protocol, named: str) -> Protocol:
    """The protocol as the flags changed it, under a name that says so."""
    protocol = named_protocol(named)
    return parsed if parsed == protocol else dataclasses.replace(parsed, name=f"{protocol.name}-custom")
