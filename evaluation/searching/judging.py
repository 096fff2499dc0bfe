"""The harness's own judgement of networks: trained anew, several times, by random numbers that no search has seen."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from evaluation.searching.candidates import Result
from evaluation.searching.trials import Trial, Trials
from methods.method import Evaluation
from spaces.space import Architecture, Space


class Judgements:
    """``repeats`` hold the trials of a network's first training, of its second and so on; it is judged by their mean."""

    def __init__(self, repeats: Sequence[Trials]) -> None:
        self.repeats = repeats
        self.on_trial: Callable[[Result, float, Trial], None] = lambda *_: None  # as ``Trials.on_result``
        for trials in repeats:
            trials.on_result = partial(self._tell, trials)

    def _tell(self, trials: Trials, result: Result, waited: float) -> None:
        self.on_trial(result, waited, trials.last)

    def announce(self, architectures: Sequence[Architecture], epochs: int) -> None:
        """These will be judged, in this order."""
        for trials in self.repeats:
            trials.announce(architectures, epochs)

    def evaluate(self, architectures: Sequence[Architecture], epochs: int) -> list[Evaluation]:
        """One evaluation for each, in order, of the mean error; one that failed counts as error 1, as long as not all did."""
        self.announce(architectures, epochs)
        for trials in self.repeats:
            trials.evaluate(architectures, epochs)
        found = [self.of(architecture.key) for architecture in architectures]
        return [trial.evaluation for trial in found if trial is not None]

    def known(self, key: str) -> list[Trial]:
        """The trainings of a network that are over."""
        return [trial for trials in self.repeats if (trial := trials.of(key))]

    def of(self, key: str) -> Trial | None:
        """What all trainings of a network came to; None as long as one is missing."""
        known = self.known(key)
        if len(known) < len(self.repeats):
            return None
        evaluations = [trial.evaluation for trial in known]
        failure = evaluations[0].failure if all(evaluation.failure for evaluation in evaluations) else None
        mean = replace(evaluations[0], error=fmean(evaluation.error for evaluation in evaluations), failure=failure)
        return Trial(mean, sum(trial.seconds for trial in known), sum(trial.work for trial in known), 0.0)

    @property
    def trials(self) -> list[Trial]:
        """All trainings."""
        return [trial for trials in self.repeats for trial in trials.trials.values()]

    @property
    def evaluations(self) -> list[Evaluation]:
        return [trial.evaluation for trial in self.trials]

    def failures(self, stage: str) -> list[dict]:
        """See ``Trials.failures``."""
        return [failure for trials in self.repeats for failure in trials.failures(stage)]

    def to_plain(self) -> list[list[dict]]:
        """For a checkpoint."""
        return [trials.to_plain() for trials in self.repeats]

    def restore(self, repeats: Sequence[list[dict]], space: Space) -> None:
        """The inverse of ``to_plain``."""
        for trials, plain in zip(self.repeats, repeats):
            trials.restore(plain, [], space)
