"""One job after the other, in this process. A job that kills the process, or never ends, ends the run, too: it is resumed."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from evaluation.search.executors.executor import Limits, Outcome, Recipe
from spaces.cli.commands import say

LOOK = 10.0  # seconds between two looks at the clock while a job is worked on


class Serial:
    """See ``executor.Executor``."""

    def __init__(self, work: Callable[[Any], Any], recipe: Recipe, limits: Limits, place: object) -> None:  # noqa: ARG002
        self.work, self.limits = work, limits
        self.queue: deque[tuple[int, Any]] = deque()

    @property
    def parallel(self) -> int:
        """One."""
        return 1

    def submit(self, number: int, job: Any) -> None:
        self.queue.append((number, job))

    def next(self) -> tuple[int, Outcome]:
        number, job = self.queue.popleft()
        began = time.monotonic()
        with self._watched(job, began):
            result = self.work(job)
        self.limits.note(job, result, time.monotonic() - began)
        return number, Outcome(result)

    def withdraw(self) -> list[int]:
        numbers = [number for number, _ in self.queue]
        self.queue.clear()
        return numbers

    def close(self) -> None:
        self.queue.clear()

    @contextmanager
    def _watched(self, job: Any, began: float) -> Iterator[None]:
        """Nobody but a person can end a job of this process: one that takes too long is told."""
        ended = threading.Event()
        threading.Thread(target=self._watch, args=(job, began, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _watch(self, job: Any, began: float, ended: threading.Event) -> None:
        while not ended.wait(LOOK):
            took = time.monotonic() - began
            if self.limits.exceeded(job, took):
                say(
                    f"warning: a training has not ended after {took:.0f} s, many times what others took; if it hangs, stop "
                    "this run and go on with --resume and --executor processes, which ends such ones"
                )
                return
