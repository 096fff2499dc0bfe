"""What all command lines share: one line and an exit code of its own for bad input, and for a stop."""

import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from spaces import stopping
from spaces.errors import InputError, disk_errors_as_input_errors
from spaces.files.untrusted_text import terminal_line

BAD_INPUT = 2


def say(line: str) -> None:
    """One line on stderr, if that is still there: the terminal may be gone."""
    with suppress(OSError, ValueError):
        print(terminal_line(line), file=sys.stderr, flush=True)


def guarded(work: Callable[[], int], farewell: Callable[[], str] = lambda: "stopped", advice: str = "") -> int:
    """Run ``work`` and return its exit code; bad input and a stop end with one line and a code of their own.

    ``farewell`` is what a stop ends with, ``advice`` what follows where a disk is full or may not be written.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal need not know every character of a table or a file's name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _in_one_line
    stop = stopping.Stop()
    try:
        with stopping.on_stop(farewell) as stop:
            code = _complaining(work, advice, stop)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not stop.number:  # Ray makes a SIGTERM a Ctrl-C
            stop.number = getattr(error, "number", stopping.STOPS[0])
        if not stop.number:
            raise
    if stop.number:  # whatever else went wrong since then came of it
        say(farewell())
        return stop.exit_code
    return code


def _in_one_line(message: Warning | str, *_args: object, **_named: object) -> str:
    """As errors are shown: where in the code a warning comes from helps nobody at a terminal."""
    return f"{terminal_line(f'warning: {message}')}\n"


def _complaining(work: Callable[[], int], advice: str, stop: stopping.Stop) -> int:
    try:
        with disk_errors_as_input_errors(advice):
            return work()
    except InputError as error:
        if not stop.number:
            say(f"error: {error}")
        return BAD_INPUT


def leave(code: int) -> NoReturn:
    """End the process with ``code``. All is done and said, so that a stop has nothing to do any more."""
    for number in stopping.STOPS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        sys.stdout.flush()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # under torchrun, threads of the process group may abort a tidy end
        os._exit(code)
    sys.exit(code)
