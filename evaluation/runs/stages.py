"""One run from search to record: search → selection → final → test, saved after every step.

A run that is given its architecture begins with its final training.
"""

import filelock

from evaluation.runs import finals, searching, state
from evaluation.runs.context import RunContext
from evaluation.runs.folder import RECORD, RunFolder, read_record
from evaluation.runs.progress import RunProgress
from evaluation.runs.record import STAGES, Record
from evaluation.runs.recording import record_of
from spaces.arithmetic import gradient_precision
from spaces.errors import InputError
from spaces.files.saving import save_json
from spaces.registry import save_drawing
from spaces.space import Architecture

WORK = {"search": searching.search, "selection": searching.selection, "final": finals.final, "test": finals.test}


class InUse(InputError):
    """Another process is at work on a run."""


class Run(RunContext):
    """One run. ``execute`` goes on wherever the checkpoint in its folder stands."""

    def check(self) -> None:
        """Raises InputError where the method refuses its settings or this problem. The run is used up by it."""
        if self.config.architecture is None:
            searching.make_method(self, "config.json")
        else:
            self.problem.space.costs(self._given(), self.final_shape)

    def _given(self) -> Architecture:
        """The architecture of a run without a search."""
        return self.problem.space.from_json(self.config.architecture)

    def execute(self, folder: RunFolder, progress: RunProgress) -> Record:
        """Run what is left to do in ``folder`` and return the record."""
        self.folder = folder
        lock = filelock.FileLock(self.folder.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InUse(f"{self.folder.path} is in use by another process") from None
        try:
            if (self.folder.path / RECORD).exists():
                return read_record(self.folder.path / RECORD)
            self.state, self.ledger = state.load(folder, self.config, self.dataset, self.problem, self.device)
            if self.config.architecture is not None and self.state.stage == "search":
                self.state.stage, self.state.finalists = "final", [self._given()]
            with gradient_precision.used(self.config.protocol.gradient_precision, self.device):
                self._work(progress)
            self._draw_finalists()
            record = record_of(self.config, self.dataset, self.problem, self.ledger, self.state, self.final_shape)
            save_json(self.folder.path / RECORD, record.to_json())
            return record
        finally:
            self.problem.close()
            lock.release()

    def _work(self, progress: RunProgress) -> None:
        """The stages that are left."""
        for stage in STAGES:
            if self.state.stage == stage:
                WORK[stage](self, progress)
                self.problem.machine.clear()
                self.state.stage = STAGES[STAGES.index(stage) + 1] if stage != STAGES[-1] else "done"
                self.save()

    def _draw_finalists(self) -> None:
        for number, architecture in enumerate(self.state.finalists, 1):
            save_drawing(architecture, self.folder.path / f"finalist{number}.svg")
