"""Jobs that are under way: handed to an executor, and waited for one by one, in whatever order they end."""

from typing import Any

from evaluation.searching.executors.executor import Executor, Outcome


class JobQueue:
    """Jobs by number; their outcomes stay here until they are asked for."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.under_way: set[int] = set()
        self.ended: dict[int, Outcome] = {}
        self.numbers = 0

    @property
    def parallel(self) -> int:
        """How many jobs are worked on at once."""
        return self.executor.parallel

    def begin(self, job: Any) -> int:
        """Have a job done. Returns its number."""
        self.numbers += 1
        self.under_way.add(self.numbers)
        self.executor.submit(self.numbers, job)
        return self.numbers

    def holds(self, number: int) -> bool:
        """Whether the job of this number is under way, or has ended and was not asked for."""
        return number in self.under_way or number in self.ended

    def outcome(self, number: int) -> Outcome:
        """Of one job; waits for it."""
        return self.first_of({number})[1]

    def first_of(self, numbers: set[int]) -> tuple[int, Outcome]:
        """Number and outcome of one of these jobs; waits until one has ended."""
        while not (found := self.ended.keys() & numbers):
            self._take()
        number = min(found)
        return number, self.ended.pop(number)

    def withdraw(self) -> None:
        """Take back what was not begun."""
        self.under_way.difference_update(self.executor.withdraw())

    def drop(self) -> float:
        """Forget all jobs. Those that were begun are waited for: returns their device-seconds, which were spent."""
        self.withdraw()
        while self.under_way:
            self._take()
        seconds = sum(spent(outcome) for outcome in self.ended.values())
        self.ended.clear()
        return seconds

    def close(self) -> None:
        """End all workers at once."""
        self.executor.close()
        self.under_way.clear()
        self.ended.clear()

    def _take(self) -> None:
        number, outcome = self.executor.next()
        self.under_way.discard(number)
        self.ended[number] = outcome


def spent(outcome: Outcome) -> float:
    """Device-seconds of a job, all attempts included."""
    own = outcome.result.seconds if outcome.result is not None else 0.0
    return own + sum(loss.seconds for loss in outcome.losses)
