"""The last two stages of a run: every finalist is trained in full, and then judged on the test set."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from evaluation.runs import checkpoints
from evaluation.runs.context import RunContext
from evaluation.runs.progress import RunProgress
from evaluation.searching.executors.executor import Loss, Outcome
from evaluation.searching.final_epochs import EpochResult, FinalEpoch, final_network
from evaluation.searching.job_queue import spent
from evaluation.settings.baselines import arithmetics_of
from evaluation.training import distributed, memory
from evaluation.training.data import DeviceImages
from evaluation.training.loop import accuracy
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.errors import InputError
from spaces.files.reading import parsing


class Trained(NamedTuple):
    """What is trained: a finalist, from 0, in an arithmetic."""

    finalist: int
    arithmetic: str

    @property
    def name(self) -> str:
        """Its key in the run's state."""
        return f"{self.finalist}-{self.arithmetic}"


def final(run: RunContext, progress: RunProgress) -> None:
    """Train every finalist in full on training and validation images, in every arithmetic that is asked for.

    Several may be trained side by side. What the run tells of them, it tells as if one were trained after the other.
    """
    epochs = run.config.protocol.final_epochs
    trained = _trained(run)
    _look_up(run, trained)
    progress.stage("final", len(trained) * epochs, _epochs_done(run, trained))
    _note_devices(run)
    failed: dict[str, EpochResult] = {}
    with run.ledger.measure("final", run.team.size) as meter:
        distributed.announce(str(run.folder.path.resolve()), run.device.type)
        for each, outcome, waited in _outcomes(run, [each for each in trained if _is_left(run, each)]):
            meter.book(waited, spent(outcome))
            key = run.state.finalists[each.finalist].key
            result = outcome.result or _given_up(outcome.losses)
            run.note_losses("final", key, outcome.losses if outcome.result else outcome.losses[:-1])
            if result.memory_full:
                with memory.full_means_bad_input(run.config, "final"):
                    raise MemoryError(result.failure)
            if result.failure:
                failed[each.name] = result
            else:
                _advance(run, each, result)
            _tell(run, trained, failed)
            run.save()
            note = result.failure or f"loss {result.loss:.3f}"
            progress.step(_epochs_done(run, trained), f"finalist {each.finalist + 1}, {each.arithmetic}: {note}")
            meter.start()


def _look_up(run: RunContext, trained: list[Trained]) -> None:
    """The accuracies that the evaluator knows without a training."""
    for each in trained:
        known = run.problem.work.test_accuracy(run.state.finalists[each.finalist], each.arithmetic)
        if known is not None:
            run.state.results[each.name] = {"accuracy": known}


def _is_left(run: RunContext, each: Trained) -> bool:
    ended = run.state.training.get(each.name, {"training": {}})["training"] is None
    return each.name not in run.state.results and not ended


def _outcomes(run: RunContext, left: list[Trained]) -> Iterator[tuple[Trained, Outcome, float]]:
    """Every epoch that is left, as soon as it has ended, with the seconds that it was waited for.

    A training goes on as soon as its last epoch was taken note of; no more of them are open than can be worked on.
    """
    queue, waiting = run.problem.queue, deque(left)
    at_work: dict[int, Trained] = {}
    while waiting or at_work:
        while waiting and len(at_work) < queue.parallel:
            each = waiting.popleft()
            at_work[queue.begin(_job(run, each))] = each
        began = time.perf_counter()
        number, outcome = queue.first_of(set(at_work))
        each = at_work.pop(number)
        yield each, outcome, time.perf_counter() - began
        if outcome.result is not None and not outcome.result.failure and not outcome.result.finished:
            waiting.appendleft(each)


def _job(run: RunContext, each: Trained) -> FinalEpoch:
    state = run.state.training.get(each.name)
    return FinalEpoch(run.state.finalists[each.finalist], each.arithmetic, run.config.seed, state and state["training"])


def _advance(run: RunContext, each: Trained, result: EpochResult) -> None:
    """Keep the training's new state; of one that has ended, the weights."""
    assert result.state is not None, "what did not fail has a state"
    before = run.state.training.get(each.name) or {"losses": [], "told": 0}
    state: dict[str, Any] | None = result.state
    if result.finished:
        checkpoints.save(run.folder.weights(each.finalist + 1, each.arithmetic), result.state["network"])
        state = None
    losses = [*before["losses"], result.loss]
    run.state.training[each.name] = {"training": state, "losses": losses, "told": before["told"]}


def _given_up(losses: tuple[Loss, ...]) -> EpochResult:
    reason = f"{losses[-1].reason}; so it went {len(losses)} times"
    return EpochResult(losses[-1].seconds, failure=reason, suspicion=reason)


def _tell(run: RunContext, trained: list[Trained], failed: dict[str, EpochResult]) -> None:
    """Take note of what has happened, training by training: the history knows no order but that of the finalists.

    Raises InputError where a machine is to blame for the last two failures.
    """
    for each in trained:
        if each.name in run.state.results:
            continue
        kept = run.state.training.get(each.name)
        while kept and kept["told"] < len(kept["losses"]):
            run.problem.machine.clear()
            loss = kept["losses"][kept["told"]]
            kept["told"] += 1
            run.ledger.add_work("final", run.epoch_work(each.finalist))
            run.record_step("final", None, None, {"finalist": each.finalist, "epoch": kept["told"], "loss": loss})
        if each.name in failed:
            _fail(run, each, failed.pop(each.name))
        elif kept and kept["training"] is None:
            run.state.results[each.name] = {}
        else:
            return
        run.state.training.pop(each.name, None)


def _fail(run: RunContext, each: Trained, result: EpochResult) -> None:
    run.ledger.add_work("final", run.epoch_work(each.finalist))
    run.problem.machine.note(result.suspicion)
    run.state.results[each.name] = {"failure": result.failure}
    key = run.state.finalists[each.finalist].key
    run.state.failures.append({"stage": "final", "key": key, "reason": result.failure})


def _epochs_done(run: RunContext, trained: list[Trained]) -> int:
    """Of all trainings; one that has ended, however it did, counts in full."""
    open_ = sum(len(kept["losses"]) for kept in run.state.training.values())
    return open_ + run.config.protocol.final_epochs * sum(each.name in run.state.results for each in trained)


def _note_devices(run: RunContext) -> None:
    """Keep in the record what differs from a final training on one device."""
    devices, before = run.team.size, run.state.final_devices
    if before not in (0, devices):
        run.state.notes.append(f"final training went on with {devices} device{'s' * (devices > 1)} after {before}")
    elif devices > 1 and before == 0:
        run.state.notes.append(
            f"final training on {devices} devices, each with its share of every batch; the statistics of batch "
            "normalisation and of activation ranges are those of the first share. The other stages ran on one "
            "device; the time in which others waited for them is not booked"
        )
    run.state.final_devices = devices


def test(run: RunContext, progress: RunProgress) -> None:
    """Read the test set, once, and judge every trained network on it."""
    trained = [each for each in _trained(run) if not run.state.results[each.name]]  # neither failed nor looked up
    progress.stage("test", len(trained))
    if not trained:
        return
    images = run.dataset.test()  # decoding takes no time of the device, nor was that of the training images booked
    if run.state.test_fingerprint not in ("", images.fingerprint):
        raise InputError("the test images are not those that this run's other networks were tested on; start a new run")
    run.state.test_fingerprint = images.fingerprint
    with run.ledger.measure("test"):
        data = DeviceImages(images, *run.problem.data.statistics, run.device, run.problem.task)
    for number, each in enumerate(trained, 1):
        architecture = run.state.finalists[each.finalist]
        with run.ledger.measure("test"), memory.full_means_bad_input(run.config, "test"):
            network, _ = final_network(architecture, each.arithmetic, run.config.seed, run.problem.conditions)
            weights = run.folder.weights(each.finalist + 1, each.arithmetic)
            with parsing(weights, "does not hold the weights of this finalist", "; start a new run"):
                network.load_state_dict(checkpoints.load(weights, run.device))
            try:
                network = ARITHMETICS[each.arithmetic].converted(
                    network.to(run.device, memory_format=torch.channels_last)
                )
                share = accuracy(network, data)
            except FloatingPointError as failure:
                run.state.results[each.name] = {"failure": str(failure)}
                run.state.failures.append({"stage": "test", "key": architecture.key, "reason": str(failure)})
                continue
        run.state.results[each.name] = {"accuracy": share}
        progress.step(number, f"finalist {each.finalist + 1}, {each.arithmetic}: accuracy {share:.2%}")


def _trained(run: RunContext) -> list[Trained]:
    """Everything that is to be trained, the approximate network of each finalist first."""
    return [
        Trained(index, arithmetic)
        for index in range(len(run.state.finalists))
        for arithmetic in arithmetics_of(index, run.config.baselines)
    ]
