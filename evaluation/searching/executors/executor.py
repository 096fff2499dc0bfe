"""What an executor is, and what it gives back. Nothing here imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Loss:
    """An attempt at a job of which nothing came: its worker ended, or it took too long."""

    reason: str
    seconds: float  # of one device


@dataclass(frozen=True)
class Outcome:
    """The end of a job: its result, or None where every attempt was lost."""

    result: Any
    losses: tuple[Loss, ...] = ()


class Recipe(Protocol):
    """How a process sets itself up for its work; pickled once for every worker."""

    def work(self, number: int) -> Callable[[Any], Any]:
        """The function from a job to its result, in worker ``number``, from 0. Raises InputError where it cannot be had."""


class Limits(Protocol):
    """How long jobs may take."""

    def exceeded(self, job: Any, seconds: float) -> bool:
        """Whether a job that has not ended after so many seconds counts as hung."""

    def note(self, job: Any, result: Any, seconds: float) -> None:
        """A job of this kind took so long, and this came of it."""


class Executor(Protocol):
    """Constructed as ``cls(work, recipe, limits, place)``: the work in this process, how others get ready for it, how long a
    job may take, and the settings that say where (``evaluation.settings.config.Place``).

    Nothing is started before the first job is submitted.
    """

    @property
    def parallel(self) -> int:
        """Jobs that it can work on at once. Where that is 1, jobs are begun only when they are waited for."""

    def submit(self, number: int, job: Any) -> None:
        """Queue a job. Numbers are unique; jobs are begun in the order of submission."""

    def next(self) -> tuple[int, Outcome]:
        """The end of a job, whichever ends first. Raises InputError where no worker can work."""

    def withdraw(self) -> list[int]:
        """Take back the jobs that were not begun; their numbers."""

    def close(self) -> None:
        """End all workers at once, whatever they do."""
