"""One job after the other, in this process. A job that kills the process, or never ends, ends the run, too: it is resumed."""

from collections import deque
from collections.abc import Callable
from typing import Any

from evaluation.search.executors.executor import Limits, Outcome, Recipe


class Serial:
    """See ``executor.Executor``."""

    def __init__(self, work: Callable[[Any], Any], recipe: Recipe, limits: Limits, place: object) -> None:  # noqa: ARG002
        self.work = work
        self.queue: deque[tuple[int, Any]] = deque()

    @property
    def parallel(self) -> int:
        """One."""
        return 1

    def submit(self, number: int, job: Any) -> None:
        self.queue.append((number, job))

    def next(self) -> tuple[int, Outcome]:
        number, job = self.queue.popleft()
        return number, Outcome(self.work(job))

    def withdraw(self) -> list[int]:
        numbers = [number for number, _ in self.queue]
        self.queue.clear()
        return numbers

    def close(self) -> None:
        self.queue.clear()
