"""Evaluators for tests of executors; workers import them from here."""

import hashlib
import os
import signal
from pathlib import Path

from evaluation.searching.candidates import Job, Result, train
from methods.method import Evaluation


class NoOp:
    """Makes up results, at once: what is left is the executor's own time."""

    def __init__(self, conditions) -> None:
        self.conditions = conditions

    def evaluate(self, job: Job) -> Result:
        key = job.architecture.key
        error = int(hashlib.sha256(key.encode()).hexdigest()[:4], 16) / 2**16
        evaluation = Evaluation(key, error, *self.conditions.costs(job.architecture), epochs=job.epochs)
        return Result(evaluation, 1.0)


class KillsOnce:
    """Trains, but the worker that comes to the second candidate kills itself."""

    def __init__(self, conditions) -> None:
        self.conditions = conditions

    def evaluate(self, job: Job) -> Result:
        folder = Path(os.environ["TEST_KILLS"])
        try:
            (folder / job.architecture.key[:16]).mkdir()
        except FileExistsError:  # it is done again
            return train(job, self.conditions)
        if len(list(folder.iterdir())) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(job, self.conditions)
