"""The folder of a campaign: a run folder for every run, a mark for those that failed, and the plan as it was last."""

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from evaluation.campaigns.plan import PlannedRun
from evaluation.runs.folder import CONFIG, RECORD
from spaces.errors import InputError
from spaces.files.json_files import read_json
from spaces.files.saving import save_json

PLAN, FAILED = "campaign.json", "failed"


class Status(StrEnum):
    """How far a run has come."""

    NEW = "new"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Change:
    """What a plan has that it did not have before, and the other way round."""

    new: tuple[str, ...]
    orphaned: tuple[str, ...]


class CampaignFolder:
    """See the module's docstring. What a run's status is, its own files say: nothing else has to be kept in step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, name: str) -> Path:
        """Where a run's files are."""
        return self.path / name

    def log(self, name: str) -> Path:
        """What a run has printed."""
        return self.path / name / "log.txt"

    def status(self, name: str) -> Status:
        """Of a run."""
        if (self.run(name) / RECORD).exists():
            return Status.DONE
        if self._mark(name).exists():
            return Status.FAILED
        return Status.BEGUN if (self.run(name) / CONFIG).exists() else Status.NEW

    def fail(self, name: str, reason: str) -> None:
        """Mark a run as failed."""
        self._mark(name).parent.mkdir(parents=True, exist_ok=True)
        save_json(self._mark(name), {"reason": reason}, shared=True)

    def reason(self, name: str) -> str:
        """Why a run failed."""
        content = read_json(self._mark(name))
        return str(content.get("reason")) if isinstance(content, dict) else "unknown"

    def forgive(self, name: str) -> None:
        """A failed run is to be tried again, from where it stands."""
        self._mark(name).unlink(missing_ok=True)

    def _mark(self, name: str) -> Path:
        return self.path / FAILED / f"{name}.json"

    def change(self, plan: Sequence[PlannedRun]) -> Change:
        """Against the plan that was last carried out here; without one there is none."""
        file = self.path / PLAN
        if not file.exists():
            return Change((), ())
        content = read_json(file)
        before = content.get("runs") if isinstance(content, dict) else None
        if not isinstance(before, list) or not all(isinstance(name, str) for name in before):
            raise InputError(f"{file} is damaged; remove it: it only tells what changed in the plan")
        now = [run.name for run in plan]
        gone = set(before) - set(now)
        kept = set(before)
        return Change(tuple(n for n in now if n not in kept), tuple(n for n in before if n in gone))

    def keep(self, plan: Sequence[PlannedRun]) -> None:
        """This is the plan now."""
        self.path.mkdir(parents=True, exist_ok=True)
        save_json(self.path / PLAN, {"runs": [run.name for run in plan]}, shared=True)


def chosen(plan: Sequence[PlannedRun], patterns: Sequence[str]) -> list[PlannedRun]:
    """The runs whose name, or a part of it, is like one of the patterns of --only. Raises InputError where none is."""
    if not patterns:
        return list(plan)
    found = [run for run in plan if any(fnmatch.fnmatchcase(run.name, f"*{pattern}*") for pattern in patterns)]
    if not found:
        raise InputError(
            f"--only {json.dumps(list(patterns))[1:-1]}: no run of the plan is so called, as in {plan[0].name}"
        )
    return found
