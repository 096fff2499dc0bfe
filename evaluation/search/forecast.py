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
        """Jobs of one kind take as long as their work, MACs × epochs, says."""


class Forecast:
    """See ``executors.executor.Limits``. ``costs``: architecture → (cost, parameters, MACs)."""

    def __init__(self, costs: Callable[[Architecture], tuple[float, int, int]]) -> None:
        self.costs = costs
        self.longest: dict[str, list[float]] = {}  # seconds of the jobs that were looked at, by kind
        self.slowest: dict[str, float] = {}  # seconds per unit of work, by kind of job

    def note(self, job: Timed, seconds: float) -> None:
        known = self.longest.setdefault(job.kind, [])
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
        return work > 0 and seconds > HUNG * self.slowest[job.kind] * work

    def _work(self, job: Timed) -> int:
        try:
            return self.costs(job.architecture)[2] * job.epochs
        except Exception:  # the job will say so
            return 0
