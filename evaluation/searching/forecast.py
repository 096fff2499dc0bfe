"""How long a job may take, from what others of its kind took."""

from collections.abc import Callable
from typing import Protocol

from spaces.space import Architecture

HUNG = 20.0  # times what its work took others at most, after which a job counts as hung
ENOUGH = 10  # jobs of a kind that are looked at in any case
SHORTEST = 120.0  # seconds, before which none does: machines pause, too


class Timed(Protocol):
    """A job that trains a network for some epochs."""

    architecture: Architecture
    epochs: int

    @property
    def kind(self) -> str:
        """Jobs of one kind take as long as their work, MACs × epochs, says, and what is the same for all of them."""


class Ended(Protocol):
    """What came of it."""

    @property
    def failed(self) -> bool:
        """Whether it ended before its time."""


class Forecast:
    """See ``executors.executor.Limits``. ``costs``: architecture → (cost, parameters, MACs)."""

    def __init__(self, costs: Callable[[Architecture], tuple[float, int, int]]) -> None:
        self.costs = costs
        self.took: dict[str, list[float]] = {}  # seconds of the jobs that were looked at, by kind
        self.slowest: dict[str, float] = {}  # seconds per unit of work, by kind of job

    def note(self, job: Timed, result: Ended, seconds: float) -> None:
        if result.failed:  # may have taken a moment, and says nothing of those that train to their end
            return
        known = self.took.setdefault(job.kind, [])
        # What many jobs cost is not worth finding out: the first ones, and those that take longest, tell enough.
        if len(known) >= ENOUGH and seconds <= max(known):
            return
        known.append(seconds)
        if work := self._work(job):
            self.slowest[job.kind] = max(self.slowest.get(job.kind, 0.0), seconds / work)

    def exceeded(self, job: Timed, seconds: float) -> bool:
        if seconds < SHORTEST or job.kind not in self.slowest:
            return False
        work = self._work(job)
        # Of small networks, what does not grow with their work (loading images, say) is the larger part.
        return work > 0 and seconds > HUNG * max(self.slowest[job.kind] * work, min(self.took[job.kind]))

    def _work(self, job: Timed) -> int:
        try:
            return self.costs(job.architecture)[2] * job.epochs
        except Exception:  # the job will say so
            return 0
