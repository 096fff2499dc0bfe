"""The first two stages of a run: the search, and the selection of finalists among its proposals."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np

from evaluation.runs import checkpoints, spending, units
from evaluation.runs.context import RunContext
from evaluation.runs.ledger import Meter
from evaluation.runs.progress import Progress
from evaluation.runs.record import MEASURING
from evaluation.searching import failures
from evaluation.searching.candidates import Result
from evaluation.searching.trials import Trial
from evaluation.settings.config import Budget
from evaluation.training import memory
from methods import METHODS
from methods.fronts import pareto_front, relative_hypervolume
from methods.method import Evaluation, Method, StepReport
from spaces.cli.programs import program
from spaces.errors import InputError
from spaces.files.reading import parsing
from spaces.files.schema import typed
from spaces.space import Architecture


def make_method(run: RunContext, settings: str) -> Method:
    """The method, as new or as the checkpoint left it. ``settings`` says where its settings come from."""
    cls: Any = METHODS[run.config.method]
    try:
        config = typed(run.config.method_config, cls.Config)
    except InputError as error:
        raise InputError(f"{settings}: settings of {run.config.method}: {error}") from None
    before = run.problem.state_dict()
    with memory.full_means_bad_input(run.config, "search"):
        method = cls(run.problem, config)
    if run.state.method is not None:
        with parsing("the checkpoint", f"does not fit {settings}", "; start a new run"):
            checkpoints.require_like(run.state.method, method.state_dict())
            method.load_state_dict(run.state.method)
        run.problem.load_state_dict(before)  # the constructor draws from the generators, as it did at first
    return method


def _say_reliability(run: RunContext, progress: Progress) -> None:
    """Where candidates are predicted, everybody who reads of the run is told how well."""
    found = run.problem.work.reliability
    if found and (note := f"validation and test errors were {found}") not in run.state.notes:
        run.state.notes.append(note)
        progress.say(note)


def search(run: RunContext, progress: Progress) -> None:
    """Step the method until it or the budget ends; look at its proposals on the way, where that is asked for."""
    resumed = run.state.method is not None
    with ExitStack() as booked:
        if not resumed:
            booked.enter_context(run.ledger.measure("search"))
            booked.enter_context(run.problem.counting())
        method = make_method(run, run.where)
    run.remember(method)
    budget = Budget.parse(run.config.budget)
    run.problem.searched.strict = budget.seconds is None
    unit = f"% of {run.config.budget}" if run.config.budget else ""
    progress.stage("search", 100 if run.config.budget else 1, unit=unit)
    _say_reliability(run, progress)
    while True:
        _snapshot_if_due(run, method, progress)
        if method.finished or (run.config.budget and run.state.share >= 1):
            break
        report = _step(run, method, budget, progress)
        run.state.share = spending.share(run, method, budget) if run.config.budget else report.step / report.total
        run.save()
        _show(run, report, progress)
    with run.ledger.measure("search") as meter:
        with run.problem.counting():
            run.state.proposals = method.proposals()
        meter.book()
        began = time.perf_counter()
        spent = run.problem.end_search()
        meter.book(time.perf_counter() - began, spent)
    run.ledger.set_work("search", run.problem.search_work)
    if not run.state.proposals:
        raise InputError(run.why_no_proposals())
    run.state.signals = _signals(run, method)
    run.state.method = None
    run.problem.retain(())
    run.keep_proposals()


def _signals(run: RunContext, method: Method) -> dict[str, dict[str, float]]:
    """What is believed of every proposal before it is judged: by the search's own evaluations, by its cost, by the method."""
    keys = [architecture.key for architecture in run.state.proposals]
    evaluated = {key: trial.evaluation.error for key in keys if (trial := run.problem.searched.of(key))}
    costs = {each.key: run.problem.cost_of(each) for each in run.state.proposals}
    own: dict[str, dict[str, float]] = getattr(method, "signals", dict)()
    told = {"search error": evaluated, "cost": costs, **own}
    return {name: {key: float(values[key]) for key in keys if key in values} for name, values in told.items() if values}


def _step(run: RunContext, method: Method, budget: Budget, progress: Progress) -> StepReport:
    """One step. After every candidate the run is saved, and a budget of time or work looked at, as it is before every
    batch of a method's own training: at most one candidate, or batch, is beyond it.
    """

    def show(result: Result) -> None:
        if not progress.watched:
            return
        e = result.evaluation
        note = _note(run, e.error, e.cost) + (f", {e.epochs_in_all} epochs with its ancestors'" if e.inherited else "")
        progress.note(f"candidate {run.problem.searched.candidates}: {e.failure or note}")

    def out_of_time(meter: Meter) -> bool:
        return spending.is_over(run, budget, meter.seconds)

    with _booked(run, show, out_of_time):
        try:
            with memory.full_means_bad_input(run.config, "search"), run.problem.repeatable_step():
                report = method.step()
        except (RuntimeError, MemoryError) as error:
            reason = failures.one_line(error)
            raise InputError(
                f"the search cannot go on ({reason}); make the protocol's networks smaller, or look whether the machine "
                f"is to blame, with {program('check')}"
            ) from error
        run.remember(method)
    run.ledger.set_work("search", run.problem.search_work)
    run.record_step("search", report.validation_error, report.cost, report.diagnostics)
    return report


@contextmanager
def _booked(run: RunContext, show: Callable[[Result], None], out_of_time: Callable[[Meter], bool]) -> Iterator[None]:
    """Book the block to the search, and its jobs one by one, as soon as each is done; then save the run."""
    trials = run.problem.searched
    with run.ledger.measure("search") as meter:

        def done(result: Result, waited: float) -> None:
            meter.book(waited, result.spent)
            run.ledger.set_work("search", run.problem.search_work)
            run.note_losses("search", result.evaluation.key, result.losses)
            show(result)
            run.save()
            meter.start()

        before = trials.on_result, trials.out_of_time
        trials.on_result, trials.out_of_time = done, lambda: out_of_time(meter)
        try:
            yield
        finally:
            trials.on_result, trials.out_of_time = before


@contextmanager
def _judging(run: RunContext, stage: str, saves: bool = True) -> Iterator[None]:
    """The same for what is judged in the block."""
    judged = run.problem.judged
    with run.ledger.measure(stage) as meter:

        def done(result: Result, waited: float, trial: Trial) -> None:
            meter.book(waited, result.spent)
            run.ledger.add_work(stage, trial.work)
            run.note_losses(stage, result.evaluation.key, result.losses)
            if saves:
                run.save()
            meter.start()

        before, judged.on_trial = judged.on_trial, done
        try:
            yield
        finally:
            judged.on_trial = before


def _show(run: RunContext, report: StepReport, progress: Progress) -> None:
    if not progress.watched:
        return
    note = _note(run, report.validation_error, report.cost)
    if run.config.budget:
        done = min(100, int(100 * run.state.share))
        progress.step(done, f"step {report.step}: {note}")
    else:
        progress.expect(report.total)
        progress.step(report.step, note)


def _snapshot_if_due(run: RunContext, method: Method, progress: Progress) -> None:
    """Judge the proposals of this moment as if the search ended here, if the next of the moments has come."""
    parts = run.config.snapshots + 1
    mark = int(run.state.share * parts)
    if not max((taken["mark"] for taken in run.state.anytime), default=0) < mark < parts:
        return
    proposals = method.proposals()
    with _judging(run, MEASURING):
        judged = run.problem.judge(proposals)
    _look_at(run, proposals, judged, mark)
    run.save()
    now = run.state.anytime[-1]
    progress.say(f"after {now['device_seconds']:.0f} s of search: hypervolume {now['hypervolume']:.4f}")


def _look_at(run: RunContext, proposals: list[Architecture], judged: list[Evaluation], mark: int) -> None:
    seconds, work = spending.judging(run, proposals)
    front = pareto_front([evaluation for evaluation in judged if evaluation.failure is None])
    run.state.anytime.append(
        {
            "mark": mark,  # of snapshots + 1 equal parts
            "device_seconds": run.ledger.device_seconds("search"),
            "judging_seconds": seconds,
            "work": run.ledger.booked["search"]["work"],
            "judging_work": work,
            "evaluations": run.problem.searched.candidates,
            "hypervolume": relative_hypervolume(front, run.problem.reference_cost),
            "front": [[e.error, e.cost] for e in front],
        }
    )


def selection(run: RunContext, progress: Progress) -> None:
    """Train every proposal briefly, judge it on validation, keep an even spread of the accurate Pareto front."""
    proposals = run.state.proposals
    progress.stage("selection", len(proposals), run.state.selected)
    run.problem.announce_judging(proposals[run.state.selected :])
    for number, architecture in enumerate(proposals[run.state.selected :], run.state.selected + 1):
        known = run.problem.judged.known(architecture.key)
        whole = len(known) == len(run.problem.judged.repeats)
        with nullcontext() if whole else _judging(run, "selection", saves=False):
            evaluation = run.problem.judge([architecture])[0]
        for trial in known:  # what a snapshot has judged already is booked, and reported, as if it were judged now
            run.ledger.book("selection", trial.seconds)
            run.ledger.add_work("selection", trial.work)
        run.record_step("selection", evaluation.error, evaluation.cost, {"candidate": number})
        run.state.selected = number
        run.save()
        progress.step(number, evaluation.failure or _note(run, evaluation.error, evaluation.cost))
    judged = run.problem.judge(proposals)
    front = pareto_front([evaluation for evaluation in judged if evaluation.failure is None])
    if not front:
        raise InputError(run.why_no_proposals())
    _look_at(run, proposals, judged, run.config.snapshots + 1)
    front = [e for e in front if e.error <= front[0].error + run.config.protocol.finalist_margin]
    spread = np.linspace(0, len(front) - 1, min(run.config.protocol.finalists, len(front))).round()
    by_key = {architecture.key: architecture for architecture in proposals}
    run.state.finalists = [by_key[front[int(at)].key] for at in spread]


def _note(run: RunContext, error: float, cost: float) -> str:
    return f"validation error {error:.1%}, {units.with_prefix(cost, run.problem.cost_model.unit)}"
