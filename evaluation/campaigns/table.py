"""What a person sees of a campaign: one live table on a terminal, a line per ended run elsewhere."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Group
from rich.live import Live
from rich.table import Table

from evaluation.campaigns.folder import CampaignFolder, Change, Status
from evaluation.campaigns.forecast import device_seconds, predicted
from evaluation.campaigns.plan import PlannedRun
from evaluation.runs.folder import HISTORY, RECORD, read_history, read_record
from evaluation.runs.record import Record
from spaces.cli.numbers import duration
from spaces.cli.tables import Column, Fitted
from spaces.cli.terminal import Terminal
from spaces.errors import InputError

SHOWN = 20  # runs under way that the table lists
TOLD = 5  # names in a line about many


class Progress:
    """How far a campaign has come; the times of runs that end meanwhile say when all will have."""

    def __init__(self, console: Terminal, folder: CampaignFolder, chosen: Sequence[PlannedRun], jobs: int) -> None:
        self.console, self.folder, self.jobs, self.chosen = console, folder, jobs, chosen
        self.began = time.monotonic()
        self.counts = dict.fromkeys(Status, 0)
        self.device_seconds = 0.0
        self.running: dict[str, float] = {}  # name → since when
        self.took: list[float] = []
        for run in chosen:
            self._count(run.name, folder.status(run.name))

    def _count(self, name: str, status: Status) -> None:
        self.counts[status] += 1
        if status is Status.DONE:
            self.device_seconds += device_seconds(read_record(self.folder.run(name) / RECORD))

    def begin(self, name: str) -> None:
        """A run is under way."""
        self.running[name] = time.monotonic()

    def end(self, name: str, failure: str) -> None:
        """It has ended."""
        since = self.running.pop(name, None)
        if since is not None:
            self.took.append(time.monotonic() - since)
        left = Status.NEW if self.counts[Status.NEW] else Status.BEGUN
        self.counts[left] = max(0, self.counts[left] - 1)
        self._count(name, Status.FAILED if failure else Status.DONE)
        if not self.console.is_terminal:
            ended = len(self.chosen) - self.left
            told = f"failed: {failure}" if failure else "done"
            self.console.print(f"  {ended}/{len(self.chosen)}  {name} {told}; {self._rest()}", highlight=False)

    @property
    def left(self) -> int:
        """Runs that have not ended."""
        return self.counts[Status.NEW] + self.counts[Status.BEGUN]

    def _rest(self) -> str:
        seconds = sum(self.took) / len(self.took) * self.left / self.jobs if self.took else None
        return f"{self.device_seconds / 3600:.2f} device-hours, {duration(seconds)} left"

    def live(self) -> AbstractContextManager:
        """Shows the table while the block runs, on a terminal."""
        if not self.console.is_terminal:
            return nullcontext()
        return Live(get_renderable=self.table, console=self.console, refresh_per_second=1, transient=False)

    def table(self) -> Group:
        """The counts, and the runs under way."""
        ranks = {"device-hours": 2, "running": 1}
        headers = ("done", "running", "failed", "left", "device-hours", "time left")
        counts = Fitted("", [Column(header, ranks.get(header, 0)) for header in headers])
        done, failed, rest = self.counts[Status.DONE], self.counts[Status.FAILED], self._rest()
        used, _, left = rest.partition(" device-hours, ")
        waiting = self.left - len(self.running)
        counts.add(str(done), str(len(self.running)), str(failed), str(waiting), used, left.removesuffix(" left"))
        running = Table(box=None, show_header=False)
        for name, since in list(self.running.items())[:SHOWN]:
            running.add_row(name, _stage(self.folder, name), duration(time.monotonic() - since))
        return Group(counts, running)


def _stage(folder: CampaignFolder, name: str) -> str:
    try:
        history = read_history(folder.run(name) / HISTORY)
    except InputError:
        return "–"
    return f"{history[-1]['stage']}, step {history[-1]['step']}" if history else "begins"


def show_change(console: Terminal, change: Change) -> None:
    """What a plan has that it did not have before."""
    for names, what in (
        (change.new, "new in the plan"),
        (change.orphaned, "no longer in the plan, and left as they are"),
    ):
        if names:
            more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
            console.print(f"{len(names)} {'is' if len(names) == 1 else 'are'} {what}: {', '.join(names[:TOLD])}{more}")


def show_forecast(
    console: Terminal, folder: CampaignFolder, chosen: Sequence[PlannedRun], records: Sequence[Record], jobs: int
) -> None:
    """What would run, and how long it would take."""
    table = Fitted("", [Column("run", left=True), Column("status", left=True), Column("device-hours")])
    total, unknown = 0.0, 0
    for run in chosen:
        status = folder.status(run.name)
        seconds = None if status is Status.DONE else predicted(run, records)
        shown = "" if status is Status.DONE else "?" if seconds is None else f"{seconds / 3600:.3f}"
        table.add(run.name, str(status), shown)
        if status in (Status.NEW, Status.BEGUN):
            total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
    console.print(table)
    without = f", without {unknown} runs of which no record tells anything" if unknown else ""
    console.print(f"{total / 3600:.3f} device-hours are left{without}; {duration(total / jobs)} with --jobs {jobs}")


def show_end(
    console: Terminal, folder: CampaignFolder, chosen: Sequence[PlannedRun], tell: Callable[[str], None]
) -> int:
    """The last lines. Returns how many runs are not done."""
    statuses = {run.name: folder.status(run.name) for run in chosen}
    failed = [name for name, status in statuses.items() if status is Status.FAILED]
    done = sum(status is Status.DONE for status in statuses.values())
    console.print(f"{done} of {len(chosen)} runs are done, {len(failed)} failed: {folder.path}", highlight=False)
    for name in failed[:SHOWN]:
        tell(f"failed: {name}: {folder.reason(name)}")
    if failed:
        tell("--retry-failed tries them again, from where they stand")
    if left := len(chosen) - done - len(failed):  # another process has them, or a full disk took no mark
        tell(f"{left} more {'is' if left == 1 else 'are'} not done; the same command goes on")
    return len(chosen) - done
