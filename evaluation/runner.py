"""One run from search to record: search → selection → final → test, saved after every step."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import filelock
import numpy as np
import torch

from evaluation import checkpoints, records
from evaluation.config import SCHEMA, Budget, RunConfig
from evaluation.datasets import Dataset
from evaluation.ledger import STAGES, Ledger, describe_device
from evaluation.problem import SearchProblem, build_seeded, derived_seed
from evaluation.progress import RunProgress
from evaluation.records import RunFolder
from evaluation.training import DeviceImages, Schedule, Training, accuracy
from methods import METHODS
from methods.method import Architecture, Method, StepReport, pareto_front
from spaces.arithmetic import emulate
from spaces.arithmetic.factory import ARITHMETICS
from spaces.energy import ENERGY_MODELS, total_macs, total_params
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import layer_table

STATE = Path("checkpoint") / "state.pt"


class Run:
    """One run. ``execute`` goes on wherever the checkpoint in its folder stands."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, library: Sequence[Multiplier]
    ) -> None:
        self.config, self.dataset, self.device = config, dataset, device
        emulate.require_engine(config.engine, [layer_table(circuit) for circuit in library], device)
        self.problem = SearchProblem(config, dataset, device, library)
        self.final_shape = replace(
            self.problem.shape,
            channels=config.protocol.final_channels,
            cells=config.protocol.final_cells,
            auxiliary=config.protocol.auxiliary_weight > 0,
        )
        self.problem.space.costs(self.problem.space.dearest(), self.final_shape)  # refuses an impossible shape now
        self.ledger = Ledger(device)
        self.stage = STAGES[0]
        self.lines = 0  # of the history
        self.proposals: list[Architecture] = []
        self.finalists: list[Architecture] = []
        self.failures: list[dict] = []
        self.results: dict[str, dict] = {}  # "<finalist>-<arithmetic>" → {"accuracy" or "failure"}
        self.training_state: dict | None = None  # of the final training in flight
        self.method_state: dict | None = None

    # -- state -------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        state = {
            "schema": SCHEMA,
            "method": self.config.method,
            "config": self.config.to_json(),
            "data": self.dataset.fingerprint,
            "stage": self.stage,
            "lines": self.lines,
            "ledger": self.ledger.to_json(),
            "problem": self.problem.state_dict(),
            "method_state": self.method_state,
            "proposals": [architecture.to_json() for architecture in self.proposals],
            "finalists": [architecture.to_json() for architecture in self.finalists],
            "failures": self.failures,
            "results": self.results,
            "training": self.training_state,
        }
        checkpoints.save(self.folder.path / STATE, state)

    def _load(self) -> None:
        path = self.folder.path / STATE
        if not path.exists():
            self.folder.truncate_history(0)
            return
        state = checkpoints.load(path, torch.device("cpu"))
        if state.get("method") != self.config.method:
            raise InputError(
                f"{path} belongs to method '{state.get('method')}', config.json says '{self.config.method}'"
            )
        told, kept = self.config.to_json(), state.get("config") or {}
        changed = [name for name in told if json.dumps(told[name]) != json.dumps(kept.get(name))]
        if changed:
            where = self.folder.path / records.CONFIG
            raise InputError(
                f"{where} was changed since the checkpoint ({', '.join(changed)}); restore it or start a new run"
            )
        if state.get("data") != self.dataset.fingerprint:
            raise InputError(f"the training images of '{self.config.dataset}' are not those that this run began with")
        try:
            self.stage, self.lines, self.failures = state["stage"], state["lines"], state["failures"]
            self.ledger = Ledger(self.device, state["ledger"])
            self.problem.load_state_dict(state["problem"])
            self.method_state, self.training_state = state["method_state"], state["training"]
            self.proposals = [self.problem.space.from_json(data) for data in state["proposals"]]
            self.finalists = [self.problem.space.from_json(data) for data in state["finalists"]]
            self.results = state["results"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is not a checkpoint of this program ({error}); start a new run") from None
        self.folder.truncate_history(self.lines)

    def _method(self) -> Method:
        """The method, as new or as the checkpoint left it."""
        cls = METHODS[self.config.method]
        try:
            settings = cls.Config(**self.config.method_config)
        except TypeError as error:
            raise InputError(
                f"{self.folder.path / records.CONFIG}: settings of {self.config.method}: {error}"
            ) from None
        state = self.problem.state_dict()
        method = cls(self.problem, settings)
        if self.method_state is not None:
            try:
                method.load_state_dict(self.method_state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(
                    f"{self.folder.path / STATE} does not fit config.json ({reason}); start a new run"
                ) from None
            self.problem.load_state_dict(state)  # the constructor draws from the generators, as it did at first
        return method

    def _record_step(self, stage: str, error: float | None, energy_pj: float | None, diagnostics: dict) -> None:
        self.folder.append_history(
            {
                "step": self.lines + 1,
                "stage": stage,
                "device_seconds": sum(times["device_seconds"] for times in self.ledger.booked.values()),
                "validation_error": error,
                "energy_pj": energy_pj,
                "hypervolume": self.problem.hypervolume(),
                "diagnostics": {name: float(value) for name, value in diagnostics.items()},
            }
        )
        self.lines += 1

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
            if (self.folder.path / records.RECORD).exists():
                return records.read_record(self.folder.path / records.RECORD)
            self._load()
            for stage, work in zip(STAGES, (self._search, self._selection, self._final, self._test)):
                if self.stage == stage:
                    work(progress)
                    self.stage = STAGES[STAGES.index(stage) + 1] if stage != STAGES[-1] else "done"
                    self._save()
            self._draw_finalists()
            record = self._record()
            records.write_json(self.folder.path / records.RECORD, record)
            return record
        finally:
            lock.release()

    def _search(self, progress: RunProgress) -> None:
        with self.ledger.measure("search"):
            method = self._method()
        budget = Budget.parse(self.config.budget)
        progress.stage("search", 1)
        while not (method.finished or budget.spent(self.ledger.device_seconds("search"), self.lines)):
            with self.ledger.measure("search"):
                try:
                    report: StepReport = method.step()
                except (RuntimeError, MemoryError) as error:
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    raise InputError(
                        f"the search cannot go on ({reason}); make the protocol's networks smaller"
                    ) from error
            self._record_step("search", report.validation_error, report.energy_pj, report.diagnostics)
            self.method_state = method.state_dict()
            self._save()
            progress.expect(report.total)
            progress.step(report.step, _note(report.validation_error, report.energy_pj))
        with self.ledger.measure("search"):
            self.proposals = method.proposals()
        if not self.proposals:
            raise InputError(self._why_no_proposals())
        self.method_state = None
        data = [architecture.to_json() for architecture in self.proposals]
        records.write_json(self.folder.path / records.PROPOSALS, data)

    def _selection(self, progress: RunProgress) -> None:
        """Train every proposal briefly, judge it on validation, keep an even spread of the accurate Pareto front."""
        progress.stage("selection", len(self.proposals))
        evaluations = []
        for number, architecture in enumerate(self.proposals, 1):
            known = architecture.key in self.problem.evaluations
            with self.ledger.measure("selection"):
                evaluation = self.problem.evaluate([architecture])[0]
            evaluations.append(evaluation)
            if not known:
                self._record_step("selection", evaluation.error, evaluation.energy_pj, {"candidate": number})
                self._save()
            progress.step(number, evaluation.failure or _note(evaluation.error, evaluation.energy_pj))
        front = pareto_front([evaluation for evaluation in evaluations if evaluation.failure is None])
        if not front:
            raise InputError(self._why_no_proposals())
        front = [e for e in front if e.error <= front[0].error + self.config.protocol.finalist_margin]
        spread = np.linspace(0, len(front) - 1, min(self.config.protocol.finalists, len(front))).round()
        by_key = {architecture.key: architecture for architecture in self.proposals}
        self.finalists = [by_key[front[int(at)].key] for at in spread]

    def _final(self, progress: RunProgress) -> None:
        """Train every finalist in full on training and validation images, in every arithmetic that is asked for."""
        epochs = self.config.protocol.final_epochs
        jobs = self._jobs()
        done = sum(f"{index}-{arithmetic}" in self.results for index, arithmetic in jobs) * epochs
        progress.stage("final", len(jobs) * epochs, done)
        for index, arithmetic in jobs:
            if f"{index}-{arithmetic}" in self.results:
                continue
            try:
                self._train_finalist(index, arithmetic, progress)
            except InputError:
                raise
            except (FloatingPointError, RuntimeError, MemoryError, ValueError) as failure:
                reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
                self.results[f"{index}-{arithmetic}"] = {"failure": reason}
                self.failures.append({"stage": "final", "key": self.finalists[index].key, "reason": reason})
            self.training_state = None
            self._save()

    def _train_finalist(self, index: int, arithmetic: str, progress: RunProgress) -> None:
        with self.ledger.measure("final"):
            network, generator = self._finalist_network(index, arithmetic)
            training = Training(network, self.problem.everything, Schedule.final(self.config.protocol), generator)
            if self.training_state is not None:
                training.load_state_dict(self.training_state)
        while not training.finished:
            with self.ledger.measure("final"):
                loss = training.run_epoch()
            self._record_step("final", None, None, {"finalist": index, "epoch": training.epoch, "loss": loss})
            if training.finished:
                checkpoints.save(self._weights_path(index, arithmetic), network.state_dict())
                self.results[f"{index}-{arithmetic}"] = {}
            else:
                self.training_state = training.state_dict()
                self._save()
            done = sum(key in self.results for key in self._job_keys()) * training.schedule.epochs
            done += 0 if training.finished else training.epoch
            progress.step(done, f"finalist {index + 1}, {arithmetic}: loss {loss:.3f}")

    def _test(self, progress: RunProgress) -> None:
        """Read the test set, once, and judge every trained network on it."""
        jobs = [job for job in self._jobs() if "failure" not in self.results[f"{job[0]}-{job[1]}"]]
        progress.stage("test", len(jobs))
        with self.ledger.measure("test"):
            data = DeviceImages(self.dataset.test(), *self.problem.statistics, self.device)
        for number, (index, arithmetic) in enumerate(jobs, 1):
            with self.ledger.measure("test"):
                network, _ = self._finalist_network(index, arithmetic)
                network.load_state_dict(checkpoints.load(self._weights_path(index, arithmetic), self.device))
                try:
                    share = accuracy(network.to(self.device, memory_format=torch.channels_last), data)
                except FloatingPointError as failure:
                    self.results[f"{index}-{arithmetic}"] = {"failure": str(failure)}
                    self.failures.append({"stage": "test", "key": self.finalists[index].key, "reason": str(failure)})
                    continue
            self.results[f"{index}-{arithmetic}"] = {"accuracy": share}
            progress.step(number, f"finalist {index + 1}, {arithmetic}: accuracy {share:.2%}")

    # -- parts -------------------------------------------------------------------------------------------------------

    def _jobs(self) -> list[tuple[int, str]]:
        """(finalist, arithmetic) to train, the approximate network of each finalist first."""
        baselines = {"all": len(self.finalists), "first": 1, "none": 0}[self.config.baselines]
        return [
            (index, arithmetic)
            for index in range(len(self.finalists))
            for arithmetic in reversed(ARITHMETICS)
            if arithmetic == "approximate" or index < baselines
        ]

    def _job_keys(self) -> list[str]:
        return [f"{index}-{arithmetic}" for index, arithmetic in self._jobs()]

    def _finalist_network(self, index: int, arithmetic: str) -> tuple[torch.nn.Module, torch.Generator]:
        """The network and its training's generator: the same start and the same batches in every arithmetic."""
        architecture = self.finalists[index]
        seed = derived_seed(self.config.seed, "final", architecture.key)
        network = build_seeded(lambda: self.problem.space.build(architecture, self.final_shape, arithmetic), seed)
        return network, torch.Generator(self.device).manual_seed(seed)

    def _weights_path(self, index: int, arithmetic: str) -> Path:
        return self.folder.path / "checkpoint" / f"finalist{index + 1}-{arithmetic}.pt"

    def _draw_finalists(self) -> None:
        from spaces.cells.drawing import save  # matplotlib takes a second to import

        for number, architecture in enumerate(self.finalists, 1):
            save(architecture, self.folder.path / f"finalist{number}.svg")

    def _why_no_proposals(self) -> str:
        reasons = [e.failure for e in self.problem.evaluations.values() if e.failure]
        why = f"; every candidate failed, the last with: {reasons[-1]}" if reasons else " within its budget"
        return f"{self.config.method} found no architecture to train{why}"

    def _record(self) -> dict:
        config = self.config
        failed = [
            {"stage": "candidate", "key": e.key, "reason": e.failure}
            for e in self.problem.evaluations.values()
            if e.failure
        ]
        return {
            "schema": SCHEMA,
            "status": "complete",
            "method": config.method,
            "method_config": config.method_config,
            "space": config.space,
            "dataset": self.dataset.name,
            "dataset_origin": self.dataset.origin,
            "dataset_fingerprint": self.dataset.fingerprint,
            "seed": config.seed,
            "protocol": {**asdict(config.protocol), "hash": config.protocol.hash},
            "scope": config.scope,
            "multiplier_choice": config.multiplier_choice,
            "energy_model": config.energy_model,
            "multipliers": list(config.multipliers),
            "tables": config.tables,
            "engine": config.engine,
            "budget": config.budget,
            "versions": _versions(),
            "command": config.command,
            "device": describe_device(self.device),
            "ledger": self.ledger.to_json(),
            "steps": self.lines,
            "hypervolume": self.problem.hypervolume(),
            "evaluations": len(self.problem.evaluations),
            "finalists": [self._finalist_record(index) for index in range(len(self.finalists))],
            "failures": failed + self.failures,
        }

    def _finalist_record(self, index: int) -> dict:
        architecture = self.finalists[index]
        rows = self.problem.space.costs(architecture, self.final_shape)
        tested = {name: self.results.get(f"{index}-{name}", {}).get("accuracy") for name in ARITHMETICS}
        return {
            "architecture": architecture.to_json(),
            "key": architecture.key,
            "params": total_params(rows),
            "macs": total_macs(rows),
            "accuracy": {"validation": 1.0 - self.problem.evaluations[architecture.key].error, "test": tested},
            "energy": {name: model.breakdown(rows) for name, model in ENERGY_MODELS.items()},
        }


def _note(error: float, energy_pj: float) -> str:
    return f"validation error {error:.1%}, {energy_pj / 1e6:.3g} µJ"


def _versions() -> dict:
    names = ("approxnas-bench", "torch", "numpy", "scikit-learn", "moocore")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["cuda"] = torch.version.cuda
    return versions
