"""How a candidate is evaluated: trained, or looked up in a table of networks that were.

A new evaluator is one file and one line in ``EVALUATORS``, or an entry point in the group ``approxnas.evaluators``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from spaces.plugins import Registry

if TYPE_CHECKING:  # they import torch, which a list of names can do without
    from evaluation.searching.candidates import Job, Result
    from evaluation.searching.conditions import Conditions


class Evaluator(Protocol):
    """Constructed as ``cls(conditions)``.

    One that knows more than a training would tell also has ``test_accuracy(architecture, arithmetic)``: that of a finalist
    after a training in full, which then does not take place; one that predicts has a text ``reliability``, which every record
    of its runs shows.
    """

    def evaluate(self, job: "Job") -> "Result":
        """The result of a job, which depends on nothing else. Raises no error for a candidate that fails."""


class Training:
    """Trains every candidate."""

    def __init__(self, conditions: "Conditions") -> None:
        self.conditions = conditions

    def evaluate(self, job: "Job") -> "Result":
        """Train the job's architecture for its epochs, from its parent's weights where it has one."""
        from evaluation.searching.candidates import train

        return train(job, self.conditions)


EVALUATORS: "Registry[Callable[[Conditions], Evaluator]]" = Registry(
    "evaluator",
    "approxnas.evaluators",
    {
        "training": "evaluation.searching.evaluators:Training",
        "table": "evaluation.benchmark.evaluator:TableEvaluator",
    },
)
