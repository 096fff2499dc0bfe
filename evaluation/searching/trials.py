"""What is known of the candidates: every evaluation once, however often it is asked for, in the order of the first time."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

from evaluation.searching.candidates import FAILED_COST, Job, Result, Trained
from evaluation.searching.executors.executor import Outcome
from evaluation.searching.failures import MachineFailures
from evaluation.searching.job_queue import JobQueue
from methods.method import Evaluation
from spaces.space import Architecture, Space
from spaces.work import PASSES

Known = tuple[str, int]  # key and epochs


@dataclass(frozen=True)
class Trial:
    """An evaluated candidate: what came of it, and the seconds that its job took."""

    evaluation: Evaluation
    seconds: float
    work: float  # see ``trained_work``
    work_so_far: float  # of all trials up to this one


def trained_work(macs: float, images: int, epochs: int) -> float:
    """MACs of a training: three passes (``spaces.work.PASSES``) of every image in every epoch.

    The look at validation in its end is not counted, and one that fails counts as if it had not.
    """
    return float(PASSES * macs * images * epochs)


@dataclass
class _Announced:
    """A job that will be asked for, with its number where it was begun."""

    job: Job
    number: int = 0


class Trials:
    """The evaluated candidates of one purpose, "search" or "selection".

    Jobs may end in any order. Their results are kept, and told, in that of their submission, so that nothing depends on
    how many were worked on at once.

    Set by the harness: ``on_result(result, waited)`` is called as soon as a result is kept, with the seconds that were
    spent on waiting for it; ``out_of_time`` says whether no further job may be begun, whatever it is that has run out.
    Where that is no time, ``strict`` says that nothing which others have begun by then is waited for, either: so what is
    evaluated does not depend on how many were at work.
    """

    def __init__(
        self,
        purpose: str,
        seed: int,
        queue: JobQueue,
        machine: MachineFailures,
        costs: Callable[[Architecture], tuple[float, int, int]],
        images: int,
        repeat: int = 0,
    ) -> None:
        self.purpose, self.seed, self.images = purpose, seed, images  # that a candidate is trained on
        self.repeat = repeat  # see ``Job``
        self.queue, self.machine, self.costs = queue, machine, costs
        self.trials: dict[Known, Trial] = {}
        self._keys: set[str] = set()  # of all trials
        self.trained: dict[str, Trained] = {}
        self.announced: dict[Known, _Announced] = {}
        self.asked = 0  # evaluations that were given, repeated ones included
        self.asked_before = 0  # the step in progress
        self.work = 0.0  # of all trials that were given, up to the last; a step that is repeated begins where it did
        self.on_result: Callable[[Result, float], None] = lambda *_: None
        self.out_of_time: Callable[[], bool] = lambda: False
        self.strict = False

    def announce(
        self,
        architectures: Sequence[Architecture],
        epochs: int,
        parents: Sequence[Architecture | None] | None = None,
    ) -> None:
        """These will be asked for, in this order: what has free workers may begin. Parents are as trained as now."""
        for at, architecture in enumerate(architectures):
            known = (architecture.key, epochs)
            if known not in self.trials and known not in self.announced:
                job = self._job(architecture, parents[at] if parents else None, epochs, parents is not None)
                self.announced[known] = _Announced(job)
            if self.queue.parallel > 1 and known in self.announced and not self.out_of_time():
                self._begin(self.announced[known])

    def evaluate(
        self,
        architectures: Sequence[Architecture],
        epochs: int,
        parents: Sequence[Architecture | None] | None = None,
    ) -> list[Evaluation]:
        """One evaluation for each, in order; the first of them only, where the time is over."""
        asked = [(architecture.key, epochs) for architecture in architectures]
        wanted: dict[Known, _Wanted] = {}
        for at, architecture in enumerate(architectures):
            if asked[at] in self.trials:
                self.work = max(self.work, self.trials[asked[at]].work_so_far)
            else:
                wanted.setdefault(asked[at], _Wanted(architecture, parents[at] if parents else None))
        due = [] if self.asked > self.asked_before else asked[:1]  # what even a step that is out of time is given
        if not self.out_of_time():
            self._work_off(wanted, epochs, parents is not None)
        for known in due:
            if known in wanted:
                self._work_off({known: wanted[known]}, epochs, parents is not None)
        given = [self.trials[known].evaluation for known in itertools.takewhile(self.trials.__contains__, asked)]
        self.asked += len(given)
        return given

    def _work_off(self, wanted: dict[Known, "_Wanted"], epochs: int, keeps_weights: bool) -> None:
        """Have all jobs done, as long as there is time; of a family in one batch, parents first."""
        while wanted:
            ready = [known for known, each in wanted.items() if not each.waits_for(wanted, epochs)] or list(wanted)
            begun = []
            for known in ready:
                job = self._job(wanted[known].architecture, wanted[known].parent, epochs, keeps_weights)
                begun.append((known, self.announced.pop(known, _Announced(job))))
                self._begin(begun[-1][1])
            for known, announced in begun:
                if not self.queue.holds(announced.number):
                    return  # taken back, as all that come after it
                began = time.perf_counter()
                outcome = self.queue.outcome(announced.number)
                waited, result = time.perf_counter() - began, self._result(announced.job, outcome)
                self._keep(announced.job, result)
                del wanted[known]
                self.on_result(result, waited)
                if self.out_of_time():
                    self.queue.withdraw()
                    if self.strict:
                        return
            if self.out_of_time():
                return

    def _begin(self, announced: _Announced) -> None:
        if not self.queue.holds(announced.number):
            announced.number = self.queue.begin(announced.job)

    def _job(self, architecture: Architecture, parent: Architecture | None, epochs: int, keeps_weights: bool) -> Job:
        start = self.trained.get(parent.key) if parent is not None else None
        return Job(architecture, self.purpose, self.seed, epochs, start, keeps_weights, self.repeat)

    def _result(self, job: Job, outcome: Outcome) -> Result:
        """A failure with what all attempts cost, where every one of them was lost."""
        if outcome.result is not None:
            return replace(_sound(outcome.result), losses=outcome.losses)
        try:
            sizes = self.costs(job.architecture)
        except Exception:
            sizes = (FAILED_COST, 0, 0)
        reason = f"{outcome.losses[-1].reason}; so it went {len(outcome.losses)} times"
        seconds = sum(loss.seconds for loss in outcome.losses)
        return Result(Evaluation(job.architecture.key, 1.0, *sizes, reason, job.epochs), seconds, suspicion=reason)

    def _keep(self, job: Job, result: Result) -> None:
        """Raises InputError where the machine is to blame for this failure and the last one."""
        self.machine.note(result.suspicion)
        work = trained_work(result.evaluation.macs, self.images, job.missing_epochs)
        self._add(job.known, Trial(result.evaluation, result.seconds, work, 0.0))
        self.work = self.trials[job.known].work_so_far
        before = self.trained.get(job.architecture.key)
        if result.trained is not None and (before is None or before.epochs <= job.epochs):
            self.trained[job.architecture.key] = result.trained

    def _add(self, known: Known, trial: Trial) -> None:
        before = next(reversed(self.trials.values())).work_so_far if self.trials else 0.0
        self._keys.add(known[0])
        self.trials[known] = replace(trial, work_so_far=before + trial.work)

    def retain(self, keys: Iterable[str]) -> None:
        """Forget the weights of all other candidates."""
        self.trained = {key: self.trained[key] for key in keys if key in self.trained}

    # -- what is known -----------------------------------------------------------------------------------------------

    @property
    def evaluations(self) -> list[Evaluation]:
        return [trial.evaluation for trial in self.trials.values()]

    @property
    def last(self) -> Trial:
        """The one that was evaluated last."""
        return next(reversed(self.trials.values()))

    def of(self, key: str) -> Trial | None:
        """The one of most epochs of a candidate, if it was evaluated."""
        found = [trial for (other, _), trial in self.trials.items() if other == key]
        return max(found, key=lambda trial: trial.evaluation.epochs, default=None)

    @property
    def candidates(self) -> int:
        """How many different networks were evaluated."""
        return len(self._keys)

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
        """The evaluations of the highest number of epochs: only these can be set side by side, as a method does that compares
        children on inherited weights. What these have behind them is in ``Evaluation.epochs_in_all``."""
        most = max((e.epochs for e in self.evaluations), default=0)
        return [e for e in self.evaluations if e.epochs == most]

    def to_plain(self) -> list[dict]:
        """For a checkpoint; weights are apart, in ``weights_to_plain``."""
        return [{**vars(t.evaluation), "seconds": t.seconds, "work": t.work} for t in self.trials.values()]

    def weights_to_plain(self) -> list[dict]:
        return [
            {
                "architecture": t.architecture.to_json(),
                "epochs": t.epochs,
                "weights": t.weights,
                "inherited": t.inherited,
            }
            for t in self.trained.values()
        ]

    def restore(self, trials: list[dict], weights: list[dict], space: Space) -> None:
        """The inverse of ``to_plain`` and ``weights_to_plain``."""
        self.trials, self._keys = {}, set()
        for data in trials:
            evaluation = Evaluation(**{f.name: data[f.name] for f in fields(Evaluation) if f.name in data})
            usual = trained_work(evaluation.macs, self.images, evaluation.epochs)  # of an older checkpoint
            trial = Trial(evaluation, data["seconds"], data.get("work", usual), 0.0)
            self._add((evaluation.key, evaluation.epochs), trial)
        trained = [
            Trained(space.from_json(t["architecture"]), t["epochs"], t["weights"], t.get("inherited", 0))
            for t in weights
        ]
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

    def waits_for(self, wanted: dict[Known, "_Wanted"], epochs: int) -> bool:
        """Whether its parent is another one of the batch."""
        parent = self.parent
        return parent is not None and parent.key != self.architecture.key and (parent.key, epochs) in wanted
