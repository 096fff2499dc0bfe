"""Stops: Ctrl-C, SIGTERM, which batch systems send before they take a machine away, and SIGHUP of a lost terminal.

The main thread gets an exception, so that files are closed and locks let go. Where that does not reach it in time, in a
long native call or in a wait for another process, a second thread ends the process. Inside ``postponed`` a stop waits;
and where something swallowed the exception, the next ``postponed`` raises it again, before anything is written.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE = 6.0  # seconds for the exception to end the process
_LEFT = b"\0"


class Stopped(KeyboardInterrupt):
    """A stop has come. No failure of anything, so that nothing takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Stop:
    """The first stop that came, or 0; later ones change nothing."""

    number: int = 0

    @property
    def exit_code(self) -> int:
        return 128 + self.number


_now: Stop | None = None  # of the block that watches for stops, if there is one
_postponed = 0  # blocks in which a stop has to wait
_closing = False


@contextmanager
def postponed() -> Iterator[None]:
    """A stop that comes inside is raised at the end; one that came before, at the beginning.

    Where no ``on_stop`` is active, and outside the main thread, which alone gets signals, nothing changes.
    """
    global _postponed
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _raise_if_due()
    _postponed += 1
    try:
        yield
    finally:
        _postponed -= 1
        _raise_if_due()


def _raise_if_due() -> None:
    if _now is not None and _now.number and not _postponed:
        raise Stopped(_now.number)


@contextmanager
def on_stop(farewell: Callable[[], str]) -> Iterator[Stop]:
    """Inside, a stop raises Stopped; after ``GRACE`` seconds more the process prints ``farewell`` and ends.

    Further stops are ignored from then on, and a signal that was ignored before stays so, as under nohup. Outside the
    main thread nothing happens, nor on Windows, which has no such signals.
    """
    global _now, _closing
    stop = Stop()
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield stop
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watch = threading.Thread(target=_watch, args=(reading, farewell), daemon=True)
    watch.start()
    # Python writes a signal's number here at once, whatever the main thread is doing.
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in STOPS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    outer, _now, _closing = _now, stop, True
    told_before, sys.unraisablehook = sys.unraisablehook, _quiet(sys.unraisablehook)
    try:
        for number in before:
            signal.signal(number, _handle)
        _closing = False
        _raise_if_due()  # one that came in between
        yield stop
    finally:
        _closing = True  # a stop is noted from here on, but raised no more
        for number, handler in before.items():
            if signal.getsignal(number) is _handle:
                # After a stop the process ends: an impatient second one says nothing.
                signal.signal(number, signal.SIG_IGN if stop.number else handler)
        _now, _closing = outer, False
        sys.unraisablehook = told_before
        signal.set_wakeup_fd(woken_before)
        os.write(writing, _LEFT)
        watch.join()
        os.close(reading)
        os.close(writing)


def _handle(number: int, _frame: object) -> None:
    if _now is None or _now.number:
        return
    _now.number = number
    if not _postponed and not _closing:
        raise Stopped(number)


def _quiet(tell: Callable[[Any], object]) -> Callable[[Any], object]:
    """Where a stop comes inside a finaliser, Python can only report it; the next ``postponed`` raises it again."""

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Stopped):
            tell(unraisable)

    return hook


def _watch(reading: int, farewell: Callable[[], str]) -> None:
    """Ends the process where a stop is not followed in time by the end of the block."""
    deadline, code = None, 0
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], left)[0]:
            if sys.__stderr__ is not None:
                with contextlib.suppress(OSError):  # the terminal may be gone
                    os.write(sys.__stderr__.fileno(), f"{farewell()}\n".encode(errors="backslashreplace"))
            os._exit(code)
        byte = os.read(reading, 1)
        if byte == _LEFT:
            return
        if byte[0] in STOPS and deadline is None:
            deadline, code = time.monotonic() + GRACE, 128 + byte[0]
