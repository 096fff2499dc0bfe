"""One job after the other, in this process. A job that kills the process, or never ends, ends the run, too: it is resumed."""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from evaluation.searching.executors.executor import Limits, Outcome, Recipe
from spaces.cli.commands import say

LOOK = 10.0  # seconds between two looks at the clock while a job is worked on


class Serial:
    """See ``executor.Executor``."""

    def __init__(self, work: Callable[[Any], Any], recipe: Recipe, limits: Limits, place: object) -> None:  # noqa: ARG002
        self.work, self.limits = work, limits
        self.queue: deque[tuple[int, Any]] = deque()
        self.at_work: tuple[Any, float] | None = None  # the job, and when it was begun
        self.watched = False

    @property
    def parallel(self) -> int:
        """One."""
        return 1

    def submit(self, number: int, job: Any) -> None:
        self.queue.append((number, job))

    def next(self) -> tuple[int, Outcome]:
        number, job = self.queue.popleft()
        if not self.watched:
            self.watched = True
            threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()
        began = time.monotonic()
        self.at_work = (job, began)
        try:
            result = self.work(job)
        finally:
            self.at_work = None
        self.limits.note(job, result, time.monotonic() - began)
        return number, Outcome(result)

    def withdraw(self) -> list[int]:
        numbers = [number for number, _ in self.queue]
        self.queue.clear()
        return numbers

    def close(self) -> None:
        self.queue.clear()


def _watch(executor: "weakref.ref[Serial]") -> None:
    """Nobody but a person can end a job of this process: one that takes too long is told, once."""
    told = None
    while (serial := executor()) is not None:
        at_work = serial.at_work
        if at_work is not None and at_work is not told:
            job, began = at_work
            took = time.monotonic() - began
            if serial.limits.exceeded(job, took):
                told = at_work
                say(
                    f"warning: a training has not ended after {took:.0f} s, many times what others took; if it hangs, stop "
                    "this run and go on with --resume and --executor processes, which ends such ones"
                )
        del serial
        time.sleep(LOOK)
