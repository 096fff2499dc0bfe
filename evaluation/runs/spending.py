"""When a search has used up its budget: of what was granted, the judging of its proposals is set apart.

Whatever a method causes is on its account: its search, and the trainings that tell which of its proposals are good. The
work of these is known beforehand, their time is estimated. What is set apart is looked at anew every twentieth of the
budget, and once more before a search ends by it. Budgets of steps and of candidates are those of the search alone.
"""

from dataclasses import dataclass

from evaluation.runs.context import RunContext
from evaluation.searching.trials import trained_work
from evaluation.settings.config import Budget, Spent
from methods.method import Method
from spaces.space import Architecture

OFTEN = 0.05  # of the budget, between two looks at what is to be set apart


@dataclass(frozen=True)
class Reserve:
    """What judging the proposals of a moment takes, and how much of the budget the search had used up by then."""

    seconds: float = 0.0
    work: float = 0.0
    at: float = 0.0


def spent(run: RunContext, unbooked: float = 0.0) -> Spent:
    """By the search so far. ``unbooked``: seconds that are not in the ledger yet."""
    seconds = run.ledger.device_seconds("search") + unbooked
    return Spent(seconds, run.state.lines, run.problem.searched.candidates, run.problem.search_work)


def is_over(run: RunContext, budget: Budget, unbooked: float) -> bool:
    """Whether a step in progress may begin nothing more, by a budget of time or work."""
    limits = Budget(seconds=budget.seconds, work=budget.work)
    if limits == Budget():
        return False
    reserve = Reserve(**run.state.reserve) if run.state.reserve else _expected(run)
    return limits.share(spent(run, unbooked), reserve.seconds, reserve.work) >= 1


def share(run: RunContext, method: Method, budget: Budget) -> float:
    """How much of its part of the budget the search has used up, from 0; the search ends at 1."""
    now = spent(run)
    if budget.seconds is None and budget.work is None:
        return budget.share(now)
    at, reserve = budget.share(now), Reserve(**run.state.reserve)
    if not run.state.reserve or at >= reserve.at + OFTEN or budget.share(now, reserve.seconds, reserve.work) >= 1:
        reserve = _reserve(run, method.proposals(), at)
        run.state.reserve = vars(reserve).copy()
    return budget.share(now, reserve.seconds, reserve.work)


def judging(run: RunContext, proposals: list[Architecture]) -> tuple[float, float]:
    """(Seconds, trained work) that judging these took, or will take."""
    found = [_judged(run, each) for each in proposals]
    return sum(seconds for seconds, _ in found), sum(work for _, work in found)


def _judged(run: RunContext, architecture: Architecture) -> tuple[float, float]:
    problem = run.problem
    if known := problem.judged.of(architecture.key):
        return known.seconds, known.work
    work = problem.judging_work(architecture)
    if (searched := problem.searched.of(architecture.key)) and searched.work:
        return work * searched.seconds / searched.work, work
    return work * _pace(run), work


def _reserve(run: RunContext, proposals: list[Architecture], at: float) -> Reserve:
    return Reserve(*judging(run, proposals), at)


def _expected(run: RunContext) -> Reserve:
    """Before a method has proposed anything: as many proposals as its settings say, each like what was evaluated so far."""
    problem, trials = run.problem, list(run.problem.searched.trials.values())
    count = min(run.config.method_config.get("proposals", 0), len(trials))
    trained = sum(trial.work for trial in trials)
    if not count or not trained:
        return Reserve()
    macs = sum(trial.evaluation.macs for trial in trials) / len(trials)
    epochs = problem.selection_epochs * run.config.protocol.judgements
    work = count * trained_work(macs, problem.searched.images, epochs)
    return Reserve(work * sum(trial.seconds for trial in trials) / trained, work)


def _pace(run: RunContext) -> float:
    """Device-seconds per MAC of trained work: of what was judged so far, or else of the search."""
    judged = run.problem.judged.trials
    seconds, work = sum(trial.seconds for trial in judged), sum(trial.work for trial in judged)
    if not work:
        row = run.ledger.booked["search"]
        seconds, work = row["device_seconds"] - row["warm_up_seconds"], run.problem.search_work
    return seconds / work if work else 0.0
