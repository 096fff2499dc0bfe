"""One run from search to record: search → selection → final → test, saved after every step.

A run that is given its architecture begins with its final training.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TypeVar

import filelock
import numpy as np
import torch

from evaluation.datasets import Dataset
from evaluation.runs import checkpoints, state
from evaluation.runs import record as outcome
from evaluation.runs.folder import CONFIG, PROPOSALS, RECORD, RunFolder, read_finished
from evaluation.runs.ledger import MEASURING, STAGES, Ledger
from evaluation.runs.progress import RunProgress
from evaluation.runs.state import RunState
from evaluation.search import failures
from evaluation.search.problem import SearchProblem, build_seeded, derived_seed
from evaluation.settings.config import Budget, RunConfig
from evaluation.training import distributed, memory
from evaluation.training.data import DeviceImages
from evaluation.training.loop import Schedule, Training, accuracy
from methods import METHODS
from methods.method import Evaluation, Method, StepReport, pareto_front, relative_hypervolume
from spaces.arithmetic import emulate
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.errors import InputError
from spaces.files.reading import parsing
from spaces.files.saving import save_json
from spaces.files.schema import typed
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import layer_table
from spaces.space import Architecture

T = TypeVar("T")


class Run:
    """One run. ``execute`` goes on wherever the checkpoint in its folder stands."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, library: Sequence[Multiplier]
    ) -> None:
        self.config, self.dataset, self.device, self.team = config, dataset, device, distributed.team()
        if self.team.size > 1 and config.protocol.batch < 2 * self.team.size:
            raise InputError(
                f"a batch of {config.protocol.batch} is too small for {self.team.size} processes; use fewer of them"
            )
        emulate.require_engine(config.engine, [layer_table(multiplier) for multiplier in library], device)
        self.problem = SearchProblem(config, dataset, device, library)
        self.final_shape = replace(
            self.problem.shape,
            channels=config.protocol.final_channels,
            cells=config.protocol.final_cells,
            auxiliary=config.protocol.auxiliary_weight > 0,
        )
        self.problem.space.costs(self.problem.space.reference(), self.final_shape)  # refuses an impossible shape now
        self.ledger = Ledger(device)
        self.state = RunState()

    def check(self) -> None:
        """Raises InputError where the method refuses its settings or this problem. The run is used up by it."""
        if self.config.architecture is None:
            self._method("config.json")
        else:
            self.problem.space.costs(self._given(), self.final_shape)

    def _given(self) -> Architecture:
        """The architecture of a run without a search."""
        return self.problem.space.from_json(self.config.architecture)

    def _save(self) -> None:
        """Save, but not while the machine may be broken: what failed by it is to be tried again then."""
        if not self.problem.machine.suspected:
            state.save(self.folder, self.config, self.dataset, self.state, self.problem, self.ledger)

    def _method(self, settings: str) -> Method:
        """The method, as new or as the checkpoint left it. ``settings`` says where its settings come from."""
        cls = METHODS[self.config.method]
        try:
            config = typed(self.config.method_config, cls.Config)
        except InputError as error:
            raise InputError(f"{settings}: settings of {self.config.method}: {error}") from None
        before = self.problem.state_dict()
        with memory.full_means_bad_input(self.config, "search"):
            method = cls(self.problem, config)
        if self.state.method is not None:
            with parsing("the checkpoint", f"does not fit {settings}", "; start a new run"):
                checkpoints.require_like(self.state.method, method.state_dict())
                method.load_state_dict(self.state.method)
            self.problem.load_state_dict(before)  # the constructor draws from the generators, as it did at first
        return method

    def _record_step(self, stage: str, error: float | None, cost: float | None, diagnostics: dict) -> None:
        self.folder.append_history(
            {
                "step": self.state.lines + 1,
                "stage": stage,
                "device_seconds": self.ledger.total(),
                "validation_error": error,
                "cost": cost,
                "hypervolume": self.problem.hypervolume(),
                "diagnostics": {name: float(value) for name, value in diagnostics.items()},
            }
        )
        self.state.lines += 1

    # -- stages ------------------------------------------------------------------------------------------------------

    def execute(self, folder: RunFolder, progress: RunProgress) -> dict:
        """Run what is left to do in ``folder`` and return the record."""
        self.folder = folder
        lock = filelock.FileLock(self.folder.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"{self.folder.path} is in use by another process") from None
        try:
            if (self.folder.path / RECORD).exists():
                return read_finished(self.folder.path / RECORD)
            self.state, self.ledger = state.load(folder, self.config, self.dataset, self.problem, self.device)
            if self.config.architecture is not None and self.state.stage == "search":
                self.state.stage, self.state.finalists = "final", [self._given()]
            for stage, work in zip(STAGES, (self._search, self._selection, self._final, self._test)):
                if self.state.stage == stage:
                    work(progress)
                    self.problem.machine.clear()
                    self.state.stage = STAGES[STAGES.index(stage) + 1] if stage != STAGES[-1] else "done"
                    self._save()
            self._draw_finalists()
            record = outcome.record(self.config, self.dataset, self.problem, self.ledger, self.state, self.final_shape)
            save_json(self.folder.path / RECORD, record)
            return record
        finally:
            lock.release()

    def _search(self, progress: RunProgress) -> None:
        """Step the method until it or the budget ends; look at its proposals on the way, where that is asked for."""
        resumed = self.state.method is not None
        with nullcontext() if resumed else self.ledger.measure("search"):
            method = self._method(str(self.folder.path / CONFIG))
        budget = Budget.parse(self.config.budget)
        progress.stage("search", 100 if self.config.budget else 1)
        while True:
            self._snapshot_if_due(method, progress)
            if method.finished or (self.config.budget and self.state.share >= 1):
                break
            self._search_step(method, budget, progress)
        with self.ledger.measure("search"):
            self.state.proposals = method.proposals()
        if not self.state.proposals:
            raise InputError(self._why_no_proposals())
        self.state.method = None
        self.problem.retain(())
        data = [architecture.to_json() for architecture in self.state.proposals]
        save_json(self.folder.path / PROPOSALS, data)

    def _search_step(self, method: Method, budget: Budget, progress: RunProgress) -> None:
        self.problem.on_evaluation = lambda e: progress.note(
            f"candidate {self.problem.candidates}: {e.failure or _note(e.error, e.cost)}"
        )
        with self.ledger.measure("search"):
            try:
                with memory.full_means_bad_input(self.config, "search"):
                    report: StepReport = method.step()
            except (RuntimeError, MemoryError) as error:
                reason = failures.one_line(error)
                raise InputError(
                    f"the search cannot go on ({reason}); make the protocol's networks smaller, or look whether the machine "
                    "is to blame, with python -m evaluation.check_device"
                ) from error
            kept = method.state_dict()
        self.problem.on_evaluation = lambda _: None
        self._record_step("search", report.validation_error, report.cost, report.diagnostics)
        spent = budget.share(self.ledger.device_seconds("search"), self.state.lines, self.problem.candidates)
        self.state.share = spent if self.config.budget else report.step / report.total
        self.state.method = kept
        self._save()
        note = _note(report.validation_error, report.cost)
        if self.config.budget:
            progress.step(min(100, int(100 * spent)), f"% of {self.config.budget}, step {report.step}: {note}")
        else:
            progress.expect(report.total)
            progress.step(report.step, note)

    def _snapshot_if_due(self, method: Method, progress: RunProgress) -> None:
        """Judge the proposals of this moment as if the search ended here, if the next of the moments has come."""
        parts = self.config.snapshots + 1
        mark = int(self.state.share * parts)
        if not max((taken["mark"] for taken in self.state.anytime), default=0) < mark < parts:
            return
        with self.ledger.measure(MEASURING):
            self._look_at(self.problem.judge(method.proposals()), mark)
        self._save()
        now = self.state.anytime[-1]
        progress.say(f"after {now['device_seconds']:.0f} s of search: hypervolume {now['hypervolume']:.4f}")

    def _look_at(self, judged: list[Evaluation], mark: int) -> None:
        front = pareto_front([evaluation for evaluation in judged if evaluation.failure is None])
        self.state.anytime.append(
            {
                "mark": mark,  # of snapshots + 1 equal parts
                "device_seconds": self.ledger.device_seconds("search"),
                "evaluations": self.problem.candidates,
                "hypervolume": relative_hypervolume(front, self.problem.reference_cost),
                "front": [[e.error, e.cost] for e in front],
            }
        )

    def _selection(self, progress: RunProgress) -> None:
        """Train every proposal briefly, judge it on validation, keep an even spread of the accurate Pareto front."""
        proposals = self.state.proposals
        progress.stage("selection", len(proposals), self.state.selected)
        for number, architecture in enumerate(proposals[self.state.selected :], self.state.selected + 1):
            known = architecture.key in self.problem.judged
            with nullcontext() if known else self.ledger.measure("selection"):
                evaluation = self.problem.judge([architecture])[0]
            if known:  # what a snapshot has judged already is booked, and told, as if it were judged now
                self.ledger.book("selection", self.problem.judging[architecture.key])
            self._record_step("selection", evaluation.error, evaluation.cost, {"candidate": number})
            self.state.selected = number
            self._save()
            progress.step(number, evaluation.failure or _note(evaluation.error, evaluation.cost))
        judged = self.problem.judge(proposals)
        front = pareto_front([evaluation for evaluation in judged if evaluation.failure is None])
        if not front:
            raise InputError(self._why_no_proposals())
        self._look_at(judged, self.config.snapshots + 1)
        front = [e for e in front if e.error <= front[0].error + self.config.protocol.finalist_margin]
        spread = np.linspace(0, len(front) - 1, min(self.config.protocol.finalists, len(front))).round()
        by_key = {architecture.key: architecture for architecture in proposals}
        self.state.finalists = [by_key[front[int(at)].key] for at in spread]

    def _final(self, progress: RunProgress) -> None:
        """Train every finalist in full on training and validation images, in every arithmetic that is asked for."""
        epochs = self.config.protocol.final_epochs
        jobs = self._jobs()
        done = sum(f"{index}-{arithmetic}" in self.state.results for index, arithmetic in jobs) * epochs
        progress.stage("final", len(jobs) * epochs, done)
        self._note_devices()
        for index, arithmetic in jobs:
            if f"{index}-{arithmetic}" in self.state.results:
                continue
            with distributed.training_together():
                self._train_finalist(index, arithmetic, progress)
            self.state.training = None
            self._save()

    def _attempt(self, index: int, arithmetic: str, work: Callable[[], T]) -> T | None:
        """What ``work``, a part of a final training, returns; None where it failed, which is recorded.

        Nothing is saved in it: a file that cannot be written is no failed training.
        """
        try:
            with memory.full_means_bad_input(self.config, "final"), self.ledger.measure("final", self.team.size):
                return work()
        except (FloatingPointError, RuntimeError, MemoryError, ValueError) as failure:
            everywhere = self.team.size == 1 or isinstance(failure, FloatingPointError)
            if isinstance(failure, InputError) or not everywhere:  # what failed in one process alone breaks all off
                raise
            self.problem.machine.note(failure)
            reason = failures.one_line(failure)
            self.state.results[f"{index}-{arithmetic}"] = {"failure": reason}
            self.state.failures.append({"stage": "final", "key": self.state.finalists[index].key, "reason": reason})
        return None

    def _train_finalist(self, index: int, arithmetic: str, progress: RunProgress) -> None:
        if self.team.size > 1:
            distributed.send(self._job(index, arithmetic))
        training = self._attempt(index, arithmetic, lambda: self._final_training(index, arithmetic))
        while training is not None and not training.finished:
            loss = self._attempt(index, arithmetic, training.run_epoch)
            if loss is None:
                return
            self.problem.machine.clear()
            self._record_step("final", None, None, {"finalist": index, "epoch": training.epoch, "loss": loss})
            if training.finished:
                checkpoints.save(self.folder.weights(index + 1, arithmetic), training.network.state_dict())
                self.state.results[f"{index}-{arithmetic}"] = {}
            else:
                self.state.training = training.state_dict()
                self._save()
            done = sum(key in self.state.results for key in self._job_keys()) * training.schedule.epochs
            done += 0 if training.finished else training.epoch
            progress.step(done, f"finalist {index + 1}, {arithmetic}: loss {loss:.3f}")

    def _final_training(self, index: int, arithmetic: str) -> Training:
        """The training of a finalist, from the start or from where the checkpoint stands."""
        network, generator = self._finalist_network(index, arithmetic)
        schedule = Schedule.final(self.config.protocol)
        training = Training(network, self.problem.everything, schedule, generator, self.team)
        if self.state.training is not None:
            with parsing("the checkpoint", "does not fit this training", "; start a new run"):
                training.load_state_dict(self.state.training)
        return training

    def _job(self, index: int, arithmetic: str) -> dict:
        """What another process needs to take part in a training."""
        return {
            "folder": str(self.folder.path.resolve()),
            "device": self.device.type,
            "finalist": self.state.finalists[index].to_json(),
            "arithmetic": arithmetic,
            "training": self.state.training,
        }

    def take_part(self, job: dict) -> None:
        """Train in step with the first process, which sent the ``job``; a loss that is not finite is its affair."""
        self.state.finalists, self.state.training = [self.problem.space.from_json(job["finalist"])], job["training"]
        with suppress(FloatingPointError):
            training = self._final_training(0, job["arithmetic"])
            while not training.finished:
                training.run_epoch()

    def _note_devices(self) -> None:
        """Keep in the record what differs from a final training on one device."""
        devices, before = self.team.size, self.state.final_devices
        if before not in (0, devices):
            self.state.notes.append(f"final training went on with {devices} device{'s' * (devices > 1)} after {before}")
        elif devices > 1 and before == 0:
            self.state.notes.append(
                f"final training on {devices} devices, each with its share of every batch; the statistics of batch "
                "normalisation and of activation ranges are those of the first share. The other stages ran on one "
                "device; the time in which others waited for them is not booked"
            )
        self.state.final_devices = devices

    def _test(self, progress: RunProgress) -> None:
        """Read the test set, once, and judge every trained network on it."""
        jobs = [job for job in self._jobs() if "failure" not in self.state.results[f"{job[0]}-{job[1]}"]]
        progress.stage("test", len(jobs))
        images = self.dataset.test()  # decoding takes no time of the device, nor was that of the training images booked
        self.state.test_fingerprint = images.fingerprint
        with self.ledger.measure("test"):
            data = DeviceImages(images, *self.problem.statistics, self.device, self.problem.task)
        for number, (index, arithmetic) in enumerate(jobs, 1):
            with self.ledger.measure("test"), memory.full_means_bad_input(self.config, "test"):
                network, _ = self._finalist_network(index, arithmetic)
                weights = self.folder.weights(index + 1, arithmetic)
                with parsing(weights, "does not hold the weights of this finalist", "; start a new run"):
                    network.load_state_dict(checkpoints.load(weights, self.device))
                try:
                    share = accuracy(network.to(self.device, memory_format=torch.channels_last), data)
                except FloatingPointError as failure:
                    self.state.results[f"{index}-{arithmetic}"] = {"failure": str(failure)}
                    self.state.failures.append(
                        {"stage": "test", "key": self.state.finalists[index].key, "reason": str(failure)}
                    )
                    continue
            self.state.results[f"{index}-{arithmetic}"] = {"accuracy": share}
            progress.step(number, f"finalist {index + 1}, {arithmetic}: accuracy {share:.2%}")

    # -- parts -------------------------------------------------------------------------------------------------------

    def _jobs(self) -> list[tuple[int, str]]:
        """(finalist, arithmetic) to train, the approximate network of each finalist first."""
        baselines = {"all": len(self.state.finalists), "first": 1, "none": 0}[self.config.baselines]
        return [
            (index, arithmetic)
            for index in range(len(self.state.finalists))
            for arithmetic in reversed(tuple(ARITHMETICS))
            if arithmetic == "approximate" or index < baselines
        ]

    def _job_keys(self) -> list[str]:
        return [f"{index}-{arithmetic}" for index, arithmetic in self._jobs()]

    def _finalist_network(self, index: int, arithmetic: str) -> tuple[torch.nn.Module, torch.Generator]:
        """The network and its training's generator: the same start and the same batches in every arithmetic."""
        architecture = self.state.finalists[index]
        seed = derived_seed(self.config.seed, "final", architecture.key)
        network = build_seeded(lambda: self.problem.space.build(architecture, self.final_shape, arithmetic), seed)
        return network, torch.Generator(self.device).manual_seed(seed)

    def _draw_finalists(self) -> None:
        for number, architecture in enumerate(self.state.finalists, 1):
            self.problem.space.draw(architecture, self.folder.path / f"finalist{number}.svg")

    def _why_no_proposals(self) -> str:
        tried = [*self.problem.evaluations.values(), *self.problem.judged.values()]
        reasons = [evaluation.failure for evaluation in tried if evaluation.failure]
        why = f"; every candidate failed, the last with: {reasons[-1]}" if reasons else " within its budget"
        if reasons and reasons[-1].startswith(memory.FULL):
            why += f"; {memory.smaller(self.config, 'selection')}"
        return f"{self.config.method} found no architecture to train{why}"


def _note(error: float, cost: float) -> str:
    return f"validation error {error:.1%}, {cost / 1e6:.3g} µJ"
