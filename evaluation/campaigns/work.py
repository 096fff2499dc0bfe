"""What a process of a campaign does: one run after the other, each from where it stands."""

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evaluation.campaigns.folder import CampaignFolder
from evaluation.campaigns.plan import PlannedRun
from evaluation.runs.folder import CONFIG, TABLES
from spaces.errors import InputError, disk_errors_as_input_errors


@dataclass(frozen=True)
class Ended:
    """How a run ended: with a record, or with a reason why there is none."""

    failure: str = ""
    in_use: bool = False  # by a process of another campaign, or by a person: no failure


@dataclass(frozen=True)
class RunWork:
    """Gets a process ready for runs; see ``search.executors.executor.Recipe``. ``shared_by``: processes on this machine."""

    folder: Path
    shared_by: int

    def work(self, number: int) -> Callable[[PlannedRun], Ended]:
        """Runs share the cores, and take GPUs by turns."""
        import torch

        if self.shared_by > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.shared_by))
        if torch.cuda.is_available():
            torch.cuda.set_device(number % torch.cuda.device_count())
        campaign = CampaignFolder(self.folder)
        return lambda run: carry_out(campaign, run, quietly=True)


def carry_out(campaign: CampaignFolder, run: PlannedRun, quietly: bool) -> Ended:
    """Run what is left of a run, and mark it where it fails. ``quietly``: what it prints goes to its log."""
    from evaluation.runs.stages import InUse

    path = campaign.run(run.name)
    try:
        with disk_errors_as_input_errors():
            path.mkdir(parents=True, exist_ok=True)
            if quietly:
                _print_to(campaign.log(run.name))
            _execute(path, run)
        return Ended()
    except InputError as error:
        ended = Ended(str(error), in_use=isinstance(error, InUse))
    except Exception as error:  # a defect of ours must not end the other runs
        traceback.print_exc()
        ended = Ended(f"{type(error).__name__}: {error}".splitlines()[0] + f"; see {campaign.log(run.name)}")
    if not ended.in_use:
        with suppress(OSError):  # the disk may be full
            campaign.fail(run.name, ended.failure)
    return ended


def _execute(path: Path, run: PlannedRun) -> None:
    from evaluation.cli import executing
    from spaces.cli.terminal import Terminal

    if not (path / CONFIG).exists():
        shutil.rmtree(path / TABLES, ignore_errors=True)  # of an attempt that was cut short
        executing.fill(path, run.config, run.library)
    executing.execute(path, Terminal())


def _print_to(log: Path) -> None:
    """All that this process prints from now on is appended to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
