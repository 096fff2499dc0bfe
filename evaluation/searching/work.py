"""What is done with a run's jobs, in this process or in another one."""

from evaluation.searching.candidates import Job, Result
from evaluation.searching.conditions import Conditions
from evaluation.searching.evaluators import EVALUATORS, Evaluator
from evaluation.searching.final_epochs import EpochResult, FinalEpoch, FinalEpochs
from evaluation.settings.config import RunConfig
from spaces import work
from spaces.space import Architecture


class Work:
    """Candidates go to the evaluator, epochs of finalists to their training."""

    def __init__(self, conditions: Conditions, evaluator: Evaluator) -> None:
        self.conditions, self.evaluator = conditions, evaluator
        self.final = FinalEpochs(conditions)

    def __call__(self, job: Job | FinalEpoch) -> Result | EpochResult:
        with work.paused():  # counted by what was asked for: see ``trials.trained_work``
            return self.evaluator.evaluate(job) if isinstance(job, Job) else self.final.run(job)

    @property
    def reliability(self) -> str:
        """How well the evaluator predicts, where it does not know: for people."""
        return getattr(self.evaluator, "reliability", "")

    def test_accuracy(self, architecture: Architecture, arithmetic: str) -> float | None:
        """Of a finalist, where the evaluator knows it without a training."""
        known = getattr(self.evaluator, "test_accuracy", None)
        return None if known is None else known(architecture, arithmetic)


class MakeWork:
    """Makes it of the conditions; picklable with the evaluator, which need not be registered in the other process."""

    def __init__(self, config: RunConfig) -> None:
        self.evaluator = EVALUATORS[config.evaluator]

    def __call__(self, conditions: Conditions) -> Work:
        return Work(conditions, self.evaluator(conditions))
