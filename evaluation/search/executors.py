"""Where the jobs of a batch are worked on, and in which order. Results do not depend on either.

A new executor is one file and one line in ``EXECUTORS``, or an entry point in the group ``approxnas.executors``.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from evaluation.search.candidates import Job, Result
from spaces.plugins import Registry


class Executor(Protocol):
    """Constructed without arguments."""

    def run(self, evaluate: Callable[[Job], Result], jobs: Sequence[Job]) -> Generator[tuple[Job, Result], None, None]:
        """Every job with its result, as soon as it is there, in any order.

        Who asks for no further result (a budget is spent) closes the generator: no other job may be begun then.
        """


class InProcess:
    """One job after the other, in this process."""

    def run(self, evaluate: Callable[[Job], Result], jobs: Sequence[Job]) -> Generator[tuple[Job, Result], None, None]:
        for job in jobs:
            yield job, evaluate(job)


EXECUTORS: Registry[Callable[[], Executor]] = Registry(
    "executor", "approxnas.executors", {"in_process": "evaluation.search.executors:InProcess"}
)
