"""How a candidate is evaluated. Training is the first way; a table of results is another.

A new evaluator is one file and one line in ``EVALUATORS``, or an entry point in the group ``approxnas.evaluators``.
"""

from collections.abc import Callable
from typing import Protocol

from evaluation.search.candidates import Job, Result, train
from evaluation.search.conditions import Conditions
from spaces.plugins import Registry


class Evaluator(Protocol):
    """Constructed as ``cls(conditions)``."""

    def evaluate(self, job: Job) -> Result:
        """The result of a job, which depends on nothing else. Raises no error for a candidate that fails."""


class Training:
    """Trains every candidate."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions

    def evaluate(self, job: Job) -> Result:
        return train(job, self.conditions)


EVALUATORS: Registry[Callable[[Conditions], Evaluator]] = Registry(
    "evaluator", "approxnas.evaluators", {"training": "evaluation.search.evaluators:Training"}
)
