"""A pool of workers, each of which has one job at a time; what is left is queued here.

A worker that dies or hangs is replaced, and its job tried once more; what an attempt cost is in the job's outcome. Since the
pool knows who does what, nothing is done twice and nothing gets lost.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from evaluation.searching.executors.executor import Limits, Loss, Outcome
from spaces.errors import InputError

ATTEMPTS = 2  # at a job
FAILED_STARTS = 3  # in a row, after which no further one is tried
PATIENCE = 0.5  # seconds between two looks at the clock: jobs may take too long


class Died(Exception):
    """A worker is no more; the text says why, as far as that is known."""


@dataclass(frozen=True)
class Ready:
    """A worker's first message: it is set up."""


@dataclass(frozen=True)
class Done:
    """A job's result, and the seconds that it took."""

    result: Any
    seconds: float


@dataclass(frozen=True)
class Refused:
    """A worker cannot be set up, or its work raised an error, which is no failure of a candidate."""

    message: str
    is_input: bool  # whether the error is an InputError


class Worker(Protocol):
    """A process somewhere that has one job at a time. Its first message is Ready, each further one Done."""

    def send(self, job: Any) -> None:
        """Give it a job. Raises Died."""

    def answers(self) -> bool:
        """Whether it is still there, while it waits for a job."""

    def receive(self) -> Ready | Done | Refused:
        """Its message; to be called where there is one, or it died. Raises Died."""

    def kill(self) -> None:
        """End it, whatever it does."""


class Workers(Protocol):
    """Where workers come from."""

    @property
    def count(self) -> int:
        """How many there can be at once."""

    def start(self, number: int) -> Worker:
        """A new worker at place ``number`` of ``count``, which gets ready by itself."""

    def wait(self, workers: Sequence[Any], seconds: float | None) -> list[Any]:
        """Those that have a message, or that died; after so many seconds at the latest."""

    def close(self) -> None:
        """Let go of whatever the workers needed."""


@dataclass
class _Task:
    number: int
    job: Any
    losses: list[Loss] = field(default_factory=list)
    began: float = 0.0


class Pool:
    """An executor; see ``executor.Executor``."""

    def __init__(self, workers: Workers, limits: Limits) -> None:
        self.workers, self.limits = workers, limits
        self.queue: deque[_Task] = deque()
        self.places: dict[int, Worker] = {}
        self.idle: list[int] = []  # places whose worker waits for a job
        self.busy: dict[int, _Task] = {}
        self.failed_starts = 0

    @property
    def parallel(self) -> int:
        """As many as there are workers."""
        return self.workers.count

    def submit(self, number: int, job: Any) -> None:
        self.queue.append(_Task(number, job))
        self._assign()

    def withdraw(self) -> list[int]:
        numbers = [task.number for task in self.queue if not task.losses]
        self.queue = deque(task for task in self.queue if task.losses)
        return numbers

    def next(self) -> tuple[int, Outcome]:
        while True:
            self._assign()
            if not (self.busy or self.queue):
                raise RuntimeError("no job is under way that could be waited for")
            by_worker = {id(worker): place for place, worker in self.places.items()}
            for worker in self.workers.wait(list(self.places.values()), PATIENCE):
                if (ended := self._hear(by_worker[id(worker)])) is not None:
                    return ended
            for place, task in list(self.busy.items()):
                took = time.monotonic() - task.began
                if self.limits.exceeded(task.job, took):
                    ended = self._lose(place, f"it had not ended after {took:.0f} s, many times what others took")
                    if ended is not None:
                        return ended

    def close(self) -> None:
        self.queue.clear()
        self.busy.clear()
        self.idle.clear()
        for worker in self.places.values():
            worker.kill()
        self.places.clear()
        self.workers.close()

    def _assign(self) -> None:
        """Give jobs to idle workers; start as many workers as there is work for."""
        while self.queue and self.idle:
            place = self.idle.pop(0)
            # What took one worker may have taken others that idled; the last attempt at a job is not to be wasted on them.
            if self.queue[0].losses and not self.places[place].answers():
                self.places.pop(place).kill()
                continue
            task = self.queue.popleft()
            self.busy[place], task.began = task, time.monotonic()
            try:
                self.places[place].send(task.job)
            except Died:  # told again by ``receive``
                continue
        starting = len(self.places) - len(self.idle) - len(self.busy)
        free = [place for place in range(self.parallel) if place not in self.places]
        for place in free[: max(0, len(self.queue) - starting)]:
            self.places[place] = self.workers.start(place)

    def _hear(self, place: int) -> tuple[int, Outcome] | None:
        """Take the message of a worker; the end of a job, if it is one."""
        try:
            message = self.places[place].receive()
        except Died as death:
            return self._lose(place, str(death))
        if isinstance(message, Refused):
            raise InputError(message.message) if message.is_input else RuntimeError(message.message)
        self.failed_starts = 0
        self.idle.append(place)
        if isinstance(message, Ready):
            return None
        task = self.busy.pop(place)
        self.limits.note(task.job, message.result, message.seconds)
        self._assign()  # before the result is looked at: the worker need not wait for that
        return task.number, Outcome(message.result, tuple(task.losses))

    def _lose(self, place: int, reason: str) -> tuple[int, Outcome] | None:
        """The worker is gone, or to be so. Its job's end, if it was the last attempt."""
        self.places.pop(place).kill()
        task = self.busy.pop(place, None)
        if task is None:
            if place in self.idle:
                self.idle.remove(place)
                return None
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise InputError(f"{self.failed_starts} workers in a row ended before they were ready: {reason}")
            return None
        task.losses.append(Loss(reason, time.monotonic() - task.began))
        if len(task.losses) < ATTEMPTS:
            self.queue.appendleft(task)
            return None
        return task.number, Outcome(None, tuple(task.losses))
