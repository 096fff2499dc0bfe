"""SIGTERM: batch systems send it before they take a machine away. What is finished is in the checkpoint by then.

The main thread gets an exception, so that files are closed and locks let go. Where that does not reach it in time, in a
long native call or in a wait for another process, a second thread ends the process. A file in the middle of being
written is never the one that counts: see ``checkpoints.save``.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 128 + signal.SIGTERM
GRACE = 6.0  # seconds for the exception to end the process
_LEFT = b"\0"


class Terminated(BaseException):
    """SIGTERM has come. No failure of anything, so that nothing takes it for one."""


@contextmanager
def on_sigterm(farewell: Callable[[], str]) -> Iterator[None]:
    """Inside, SIGTERM raises Terminated; after ``GRACE`` seconds more the process prints ``farewell`` and ends.

    Further SIGTERMs are ignored from then on. Outside the main thread, which alone gets signals, nothing happens, nor on
    Windows, which has none.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watch = threading.Thread(target=_watch, args=(reading, farewell), daemon=True)
    watch.start()
    # Python writes a signal's number here at once, whatever the main thread is doing.
    told_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handled_before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _raise:
            signal.signal(signal.SIGTERM, handled_before)
        signal.set_wakeup_fd(told_before)
        os.write(writing, _LEFT)
        watch.join()
        os.close(reading)
        os.close(writing)


def _raise(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _watch(reading: int, farewell: Callable[[], str]) -> None:
    """Ends the process where a SIGTERM is not followed in time by the end of the block."""
    deadline = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], left)[0]:
            os.write(sys.__stderr__.fileno(), f"{farewell()}\n".encode())
            os._exit(EXIT_CODE)
        told = os.read(reading, 1)
        if told == _LEFT:
            return
        if told == bytes([signal.SIGTERM]) and deadline is None:
            deadline = time.monotonic() + GRACE
