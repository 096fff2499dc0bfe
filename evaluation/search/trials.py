"""What is known of the candidates: every evaluation once, however often and in whatever order it is asked for."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from evaluation.search.candidates import FAILED_COST, Job, Result, Trained
from evaluation.search.evaluators import Evaluator
from evaluation.search.executors import Executor
from evaluation.search.failures import MachineFailures
from methods.method import Evaluation
from spaces.space import Architecture, Space

Known = tuple[str, int]  # key and epochs


@dataclass(frozen=True)
class Trial:
    """An evaluated candidate: what came of it, the seconds that its job took, and its place among all that were asked for."""

    evaluation: Evaluation
    seconds: float
    place: int


class Trials:
    """The evaluated candidates of one purpose, "search" or "selection".

    Set by the harness: ``on_result(result, waited)`` is called as soon as a result is kept, with the seconds that were
    spent on waiting for it; ``out_of_time`` says whether no further job may be begun.
    """

    def __init__(
        self, purpose: str, seed: int, evaluator: Evaluator, executor: Executor, machine: MachineFailures
    ) -> None:
        self.purpose, self.seed = purpose, seed
        self.evaluator, self.executor, self.machine = evaluator, executor, machine
        self.trials: dict[Known, Trial] = {}
        self.trained: dict[str, Trained] = {}
        self.asked = 0  # evaluations that were given, repeated ones included
        self.asked_before = 0  # the step in progress
        self.on_result: Callable[[Result, float], None] = lambda *_: None
        self.out_of_time: Callable[[], bool] = lambda: False

    def evaluate(
        self,
        architectures: Sequence[Architecture],
        epochs: int,
        parents: Sequence[Architecture | None] | None = None,
    ) -> list[Evaluation]:
        """One evaluation for each, in order; the first of them only, where the time is over."""
        wanted: dict[Known, _Wanted] = {}
        for at, architecture in enumerate(architectures):
            known = (architecture.key, epochs)
            if known not in self.trials:
                wanted.setdefault(known, _Wanted(architecture, parents[at] if parents else None, self.asked + at))
        asked = [(architecture.key, epochs) for architecture in architectures]
        due = [] if self.asked > self.asked_before else asked[:1]  # what even a step that is out of time is given
        if not (self.out_of_time() and self.trials.keys() >= set(due)):
            self._work_off(wanted, epochs, parents is not None)
        for known in due:  # where others of the batch ended first, and then the time
            if known in wanted:
                self._work_off({known: wanted[known]}, epochs, parents is not None)
        self.trials = dict(sorted(self.trials.items(), key=lambda item: item[1].place))
        given = [self.trials[known].evaluation for known in itertools.takewhile(self.trials.__contains__, asked)]
        self.asked += len(given)
        return given

    def _work_off(self, wanted: dict[Known, "_Wanted"], epochs: int, keeps_weights: bool) -> None:
        """Have all jobs done, as long as there is time; of a family in one batch, parents first."""
        while wanted:
            waiting = [known for known, each in wanted.items() if each.waits_for(wanted, epochs)]
            jobs = [
                self._job(each, epochs, keeps_weights)
                for known, each in wanted.items()
                if known not in waiting or len(waiting) == len(wanted)
            ]
            with closing(self.executor.run(self.evaluator.evaluate, jobs)) as results:
                began = time.perf_counter()
                for job, found in results:
                    waited, result = time.perf_counter() - began, _sound(found)
                    self._keep(job, result, wanted.pop(job.known).place)
                    self.on_result(result, waited)
                    if self.out_of_time():
                        return
                    began = time.perf_counter()

    def _job(self, each: "_Wanted", epochs: int, keeps_weights: bool) -> Job:
        parent = self.trained.get(each.parent.key) if each.parent is not None else None
        return Job(each.architecture, self.purpose, self.seed, epochs, parent, keeps_weights)

    def _keep(self, job: Job, result: Result, place: int) -> None:
        """Raises InputError where the machine is to blame for this failure and the last one."""
        self.machine.note(result.suspicion)
        self.trials[job.known] = Trial(result.evaluation, result.seconds, place)
        before = self.trained.get(job.architecture.key)
        if result.trained is not None and (before is None or before.epochs <= job.epochs):
            self.trained[job.architecture.key] = result.trained

    def retain(self, keys: Iterable[str]) -> None:
        """Forget the weights of all other candidates."""
        self.trained = {key: self.trained[key] for key in keys if key in self.trained}

    # -- what is known -----------------------------------------------------------------------------------------------

    @property
    def evaluations(self) -> list[Evaluation]:
        return [trial.evaluation for trial in self.trials.values()]

    def of(self, key: str) -> Trial | None:
        """The one of most epochs of a candidate, if it was evaluated."""
        found = [trial for (other, _), trial in self.trials.items() if other == key]
        return max(found, key=lambda trial: trial.evaluation.epochs, default=None)

    @property
    def candidates(self) -> int:
        """How many different networks were evaluated."""
        return len({key for key, _ in self.trials})

    @property
    def hits(self) -> int:
        """Evaluations that were asked for again."""
        return self.asked - len(self.trials)

    @property
    def seconds(self) -> float:
        """Of all jobs."""
        return sum(trial.seconds for trial in self.trials.values())

    def failures(self, stage: str) -> list[dict]:
        """Those that failed, as the record lists them, each with what it cost."""
        return [
            {"stage": stage, "key": e.key, "reason": e.failure, "device_seconds": trial.seconds}
            for trial in self.trials.values()
            if (e := trial.evaluation).failure
        ]

    def full_fidelity(self) -> list[Evaluation]:
        """The evaluations of the highest number of epochs: only these can be set side by side."""
        most = max((e.epochs for e in self.evaluations), default=0)
        return [e for e in self.evaluations if e.epochs == most]

    def to_plain(self) -> list[dict]:
        """For a checkpoint; weights are apart, in ``weights_to_plain``."""
        return [{**vars(t.evaluation), "seconds": t.seconds, "place": t.place} for t in self.trials.values()]

    def weights_to_plain(self) -> list[dict]:
        return [
            {"architecture": t.architecture.to_json(), "epochs": t.epochs, "weights": t.weights}
            for t in self.trained.values()
        ]

    def restore(self, trials: list[dict], weights: list[dict], space: Space) -> None:
        """The inverse of ``to_plain`` and ``weights_to_plain``."""
        self.trials = {}
        for data in trials:
            about = {name: data[name] for name in data if name not in ("seconds", "place")}
            evaluation = Evaluation(**about)
            self.trials[evaluation.key, evaluation.epochs] = Trial(evaluation, data["seconds"], data["place"])
        trained = [Trained(space.from_json(t["architecture"]), t["epochs"], t["weights"]) for t in weights]
        self.trained = {t.architecture.key: t for t in trained}


def _sound(result: Result) -> Result:
    """The result; as a failure, where another package's evaluator or task gave an error or a cost that cannot be."""
    e = result.evaluation
    if 0 <= e.error <= 1 and math.isfinite(e.cost):
        return result
    failure = f"it was evaluated with an error of {e.error} and a cost of {e.cost}"
    return replace(result, evaluation=replace(e, error=1.0, cost=FAILED_COST, failure=failure))


@dataclass(frozen=True)
class _Wanted:
    """A candidate of a batch that is not evaluated yet."""

    architecture: Architecture
    parent: Architecture | None
    place: int

    def waits_for(self, wanted: dict[Known, "_Wanted"], epochs: int) -> bool:
        """Whether its parent is another one of the batch."""
        parent = self.parent
        return parent is not None and parent.key != self.architecture.key and (parent.key, epochs) in wanted
