"""What commands that run networks do besides: advice to go on, memory that does not suffice, several processes of torchrun."""

import os
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from spaces.cli import commands
from spaces.cli.commands import BAD_INPUT
from spaces.errors import InputError


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

    advice = "; after fixing that, go on with --resume"
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
