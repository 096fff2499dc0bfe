"""What the stages of a run share: its settings, problem and ledger, how far it has come, and its folder."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch

from evaluation.datasets import Dataset
from evaluation.runs import state
from evaluation.runs.folder import CONFIG, PROPOSALS, RunFolder
from evaluation.runs.ledger import Ledger
from evaluation.runs.state import RunState
from evaluation.searching.executors.executor import Loss
from evaluation.searching.problem import SearchProblem
from evaluation.searching.trials import trained_work
from evaluation.settings.config import RunConfig
from evaluation.training import distributed, memory
from methods.method import Method
from spaces.arithmetic import emulate
from spaces.costs.trace import total_macs
from spaces.errors import InputError
from spaces.files.saving import save_json
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import layer_table


class RunContext:
    """See the module's docstring. ``folder`` is set where the run is executed."""

    folder: RunFolder

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, library: Sequence[Multiplier]
    ) -> None:
        self.config, self.dataset, self.device, self.team = config, dataset, device, distributed.team()
        if self.team.size > 1 and config.protocol.batch < 2 * self.team.size:
            raise InputError(
                f"a batch of {config.protocol.batch} is too small for {self.team.size} processes; use fewer of them"
            )
        if self.team.size > 1 and config.executor != "serial":
            raise InputError(
                f"torchrun trains each finalist on several devices, --executor {config.executor} one on each; use one of them"
            )
        emulate.require_engine(config.engine, [layer_table(multiplier) for multiplier in library], device)
        self.problem = SearchProblem(config, dataset, device, library)
        self.final_shape = self.problem.conditions.final_shape
        self.problem.space.costs(self.problem.space.reference(), self.final_shape)  # refuses an impossible shape now
        self._final_macs: dict[str, int] = {}  # by the key of the architecture
        self.ledger = Ledger(device)
        self.state = RunState()

    def epoch_work(self, finalist: int) -> float:
        """Trained work of an epoch of a finalist, from 0, in MACs."""
        architecture = self.state.finalists[finalist]
        if architecture.key not in self._final_macs:
            rows = self.problem.space.costs(architecture, self.final_shape)
            self._final_macs[architecture.key] = total_macs(rows)
        return trained_work(self._final_macs[architecture.key], len(self.problem.data.everything), 1)

    @property
    def where(self) -> str:
        """What to call the place of its settings."""
        return str(self.folder.path / CONFIG)

    def again(self, seed: int) -> Self:
        """The same run for another seed, at its beginning; see ``SearchProblem.again``."""
        other = copy.copy(self)
        other.config, other.problem = replace(self.config, seed=seed), self.problem.again(seed)
        other.ledger, other.state = Ledger(self.device), RunState()
        return other

    def remember(self, method: Method) -> None:
        """Keep the method's state for the checkpoint: a copy, since a step changes its parts before it is over."""
        self.state.method = copy.deepcopy(method.state_dict())

    def keep_proposals(self) -> None:
        """Write what the search has proposed."""
        plain = [architecture.to_json() for architecture in self.state.proposals]
        save_json(self.folder.path / PROPOSALS, plain)

    def save(self) -> None:
        """Save, but not while the machine may be broken: what failed by it is to be tried again then."""
        if not self.problem.machine.suspected:
            state.save(self.folder, self.config, self.dataset, self.state, self.problem, self.ledger)

    def note_losses(self, stage: str, key: str, losses: Sequence[Loss]) -> None:
        """Record the attempts at a job of which nothing came, where a later one succeeded."""
        for loss in losses:
            reason = f"{loss.reason}; done again"
            self.state.failures.append({"stage": stage, "key": key, "reason": reason, "device_seconds": loss.seconds})

    def record_step(self, stage: str, error: float | None, cost: float | None, diagnostics: dict) -> None:
        """Add a line to the history."""
        self.folder.append_history(
            {
                "step": self.state.lines + 1,
                "stage": stage,
                "device_seconds": self.ledger.total(),
                "work": self.ledger.total_work(),
                "validation_error": error,
                "cost": cost,
                "hypervolume": self.problem.hypervolume(),
                "diagnostics": {name: float(value) for name, value in diagnostics.items()},
            }
        )
        self.state.lines += 1

    def why_no_proposals(self) -> str:
        """What to say where nothing is left to be trained in full."""
        tried = [*self.problem.searched.evaluations, *self.problem.judged.evaluations]
        reasons = [evaluation.failure for evaluation in tried if evaluation.failure]
        why = f"; every candidate failed, the last with: {reasons[-1]}" if reasons else " within its budget"
        if reasons and reasons[-1].startswith(memory.FULL):
            why += f"; {memory.smaller(self.config, 'selection')}"
        return f"{self.config.method} found no architecture to train{why}"
