"""The last two stages of a run: every finalist is trained in full, and then judged on the test set."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from evaluation.runs import checkpoints
from evaluation.runs.context import RunContext
from evaluation.runs.progress import RunProgress
from evaluation.search import failures
from evaluation.search.seeds import build_seeded, derived_seed
from evaluation.settings.baselines import arithmetics_of
from evaluation.training import distributed, memory
from evaluation.training.data import DeviceImages
from evaluation.training.loop import Schedule, Training, accuracy
from spaces.arithmetic import gradient_precision
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.errors import InputError
from spaces.files.reading import parsing

T = TypeVar("T")


def final(run: RunContext, progress: RunProgress) -> None:
    """Train every finalist in full on training and validation images, in every arithmetic that is asked for."""
    epochs = run.config.protocol.final_epochs
    jobs = _jobs(run)
    done = sum(f"{index}-{arithmetic}" in run.state.results for index, arithmetic in jobs) * epochs
    progress.stage("final", len(jobs) * epochs, done)
    _note_devices(run)
    for index, arithmetic in jobs:
        if f"{index}-{arithmetic}" in run.state.results:
            continue
        with distributed.training_together():
            _train_finalist(run, index, arithmetic, progress)
        run.state.training = None
        run.save()


def _attempt(run: RunContext, index: int, arithmetic: str, work: Callable[[], T]) -> T | None:
    """What ``work``, a part of a final training, returns; None where it failed, which is recorded.

    Nothing is saved in it: a file that cannot be written is no failed training.
    """
    try:
        with memory.full_means_bad_input(run.config, "final"), run.ledger.measure("final", run.team.size):
            return work()
    except (FloatingPointError, RuntimeError, MemoryError, ValueError) as failure:
        everywhere = run.team.size == 1 or isinstance(failure, FloatingPointError)
        if isinstance(failure, InputError) or not everywhere:  # what failed in one process alone breaks all off
            raise
        run.problem.machine.note(failures.suspicion(failure))
        reason = failures.one_line(failure)
        run.state.results[f"{index}-{arithmetic}"] = {"failure": reason}
        run.state.failures.append({"stage": "final", "key": run.state.finalists[index].key, "reason": reason})
    return None


def _train_finalist(run: RunContext, index: int, arithmetic: str, progress: RunProgress) -> None:
    if run.team.size > 1:
        distributed.send(_job(run, index, arithmetic))
    training = _attempt(run, index, arithmetic, lambda: final_training(run, index, arithmetic))
    while training is not None and not training.finished:
        loss = _attempt(run, index, arithmetic, training.run_epoch)
        if loss is None:
            return
        run.problem.machine.clear()
        run.record_step("final", None, None, {"finalist": index, "epoch": training.epoch, "loss": loss})
        if training.finished:
            checkpoints.save(run.folder.weights(index + 1, arithmetic), training.network.state_dict())
            run.state.results[f"{index}-{arithmetic}"] = {}
        else:
            run.state.training = training.state_dict()
            run.save()
        done = sum(key in run.state.results for key in _job_keys(run)) * training.schedule.epochs
        done += 0 if training.finished else training.epoch
        progress.step(done, f"finalist {index + 1}, {arithmetic}: loss {loss:.3f}")


def final_training(run: RunContext, index: int, arithmetic: str) -> Training:
    """The training of a finalist, from the start or from where the checkpoint stands."""
    network, generator = _finalist_network(run, index, arithmetic)
    schedule = Schedule.final(run.config.protocol)
    training = Training(network, run.problem.data.everything, schedule, generator, run.team)
    if run.state.training is not None:
        with parsing("the checkpoint", "does not fit this training", "; start a new run"):
            training.load_state_dict(run.state.training)
    return training


def _job(run: RunContext, index: int, arithmetic: str) -> dict:
    """What another process needs to take part in a training."""
    return {
        "folder": str(run.folder.path.resolve()),
        "device": run.device.type,
        "finalist": run.state.finalists[index].to_json(),
        "arithmetic": arithmetic,
        "training": run.state.training,
    }


def take_part(run: RunContext, job: dict) -> None:
    """Train in step with the first process, which sent the ``job``; a loss that is not finite is its affair."""
    run.state.finalists, run.state.training = [run.problem.space.from_json(job["finalist"])], job["training"]
    precision = gradient_precision.used(run.config.protocol.gradient_precision, run.device)
    with suppress(FloatingPointError), precision:
        training = final_training(run, 0, job["arithmetic"])
        while not training.finished:
            training.run_epoch()


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
    jobs = [job for job in _jobs(run) if "failure" not in run.state.results[f"{job[0]}-{job[1]}"]]
    progress.stage("test", len(jobs))
    images = run.dataset.test()  # decoding takes no time of the device, nor was that of the training images booked
    run.state.test_fingerprint = images.fingerprint
    with run.ledger.measure("test"):
        data = DeviceImages(images, *run.problem.data.statistics, run.device, run.problem.task)
    for number, (index, arithmetic) in enumerate(jobs, 1):
        with run.ledger.measure("test"), memory.full_means_bad_input(run.config, "test"):
            network, _ = _finalist_network(run, index, arithmetic)
            weights = run.folder.weights(index + 1, arithmetic)
            with parsing(weights, "does not hold the weights of this finalist", "; start a new run"):
                network.load_state_dict(checkpoints.load(weights, run.device))
            try:
                network = ARITHMETICS[arithmetic].converted(network.to(run.device, memory_format=torch.channels_last))
                share = accuracy(network, data)
            except FloatingPointError as failure:
                run.state.results[f"{index}-{arithmetic}"] = {"failure": str(failure)}
                run.state.failures.append(
                    {"stage": "test", "key": run.state.finalists[index].key, "reason": str(failure)}
                )
                continue
        run.state.results[f"{index}-{arithmetic}"] = {"accuracy": share}
        progress.step(number, f"finalist {index + 1}, {arithmetic}: accuracy {share:.2%}")


def _jobs(run: RunContext) -> list[tuple[int, str]]:
    """(finalist, arithmetic) to train, the approximate network of each finalist first."""
    return [
        (index, arithmetic)
        for index in range(len(run.state.finalists))
        for arithmetic in arithmetics_of(index, run.config.baselines)
    ]


def _job_keys(run: RunContext) -> list[str]:
    return [f"{index}-{arithmetic}" for index, arithmetic in _jobs(run)]


def _finalist_network(run: RunContext, index: int, arithmetic: str) -> tuple[torch.nn.Module, torch.Generator]:
    """The network and its training's generator: the same start and the same batches in every arithmetic."""
    architecture = run.state.finalists[index]
    seed = derived_seed(run.config.seed, "final", architecture.key)
    network = build_seeded(lambda: run.problem.space.build(architecture, run.final_shape, arithmetic), seed)
    return network, torch.Generator(run.device).manual_seed(seed)
