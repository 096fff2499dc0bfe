"""Carries the runs of a campaign out, in as many processes as were asked for."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from evaluation.campaigns.folder import CampaignFolder, Status
from evaluation.campaigns.plan import PlannedRun
from evaluation.campaigns.table import Progress
from evaluation.campaigns.work import RunWork
from evaluation.searching.executors.executor import Outcome
from evaluation.searching.executors.pool import Pool
from evaluation.searching.executors.processes import ProcessWorkers
from spaces.cli.terminal import Terminal


class NoLimits:
    """A run may take as long as it likes; see ``search.executors.executor.Limits``."""

    def exceeded(self, job: Any, seconds: float) -> bool:  # noqa: ARG002
        return False

    def note(self, job: Any, result: Any, seconds: float) -> None:
        """Nothing is to be learned."""


def carry_out(
    console: Terminal, folder: CampaignFolder, chosen: Sequence[PlannedRun], jobs: int, tell: Callable[[str], None]
) -> None:
    """Carry out all runs that are neither done nor failed.

    A process that dies is replaced, and its run gone on with, once; after that the run counts as failed.
    """
    left = [run for run in chosen if folder.status(run.name) in (Status.NEW, Status.BEGUN)]
    jobs = max(1, min(jobs, len(left)))
    progress = Progress(console, folder, chosen, jobs)
    pool = Pool(ProcessWorkers(RunWork(folder.path, jobs), jobs, has_children=True), NoLimits())
    waiting = iter(enumerate(left))
    try:
        with progress.live():
            for number, run in itertools.islice(waiting, jobs):
                progress.begin(run.name)
                pool.submit(number, run)
            for _ in left:
                number, outcome = pool.next()
                _note(progress, folder, left[number].name, outcome, tell)
                if (following := next(waiting, None)) is not None:
                    progress.begin(following[1].name)
                    pool.submit(*following)
    finally:
        pool.close()


def _note(progress: Progress, folder: CampaignFolder, name: str, outcome: Outcome, tell: Callable[[str], None]) -> None:
    if outcome.result is None:
        reason = f"{outcome.losses[-1].reason}; so it went {len(outcome.losses)} times"
        folder.fail(name, reason)
        progress.end(name, reason)
    elif outcome.result.in_use:
        tell(f"{outcome.result.failure}: it is left to that one")
        progress.running.pop(name, None)
    else:
        progress.end(name, outcome.result.failure)
