"""What a person sees while a run goes on: one live line on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import ClassVar, Protocol

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from spaces.cli.terminal import Terminal

_QUIET_SECONDS = 10.0  # between plain lines where no terminal can overwrite them


class Progress(Protocol):
    """What the stages of a run tell of their progress."""

    watched: ClassVar[bool] = True  # whether anybody reads notes, which take time to write

    def stage(self, name: str, total: int, done: int = 0, unit: str = "") -> None:
        """A new stage of ``total`` steps begins, ``done`` of them finished earlier; or of a ``unit``, as "% of 60s"."""

    def expect(self, total: int) -> None:
        """The stage turns out to have ``total`` steps."""

    def note(self, note: str) -> None:
        """What goes on within a step."""

    def step(self, done: int, note: str) -> None:
        """``done`` steps of the stage are finished."""

    def say(self, line: str) -> None:
        """A line that stays."""


class Unseen(Progress):
    """Of runs that are too many, and too short, to be watched one by one."""

    watched = False

    def stage(self, name: str, total: int, done: int = 0, unit: str = "") -> None: ...

    def expect(self, total: int) -> None: ...

    def note(self, note: str) -> None: ...

    def step(self, done: int, note: str) -> None: ...

    def say(self, line: str) -> None: ...


class RunProgress(Progress):
    """Stage, step, validation error, energy and time left. Use as a context manager."""

    def __init__(self, console: Terminal, title: str) -> None:
        self.console, self.title = console, title
        self._live = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task("", total=None, count="", note="")
        self._stage, self._unit, self._total, self._last_line = "", "", 0, 0.0

    def __enter__(self) -> "RunProgress":
        self.console.print(self.title, style="bold", highlight=False)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def stage(self, name: str, total: int, done: int = 0, unit: str = "") -> None:
        """A new stage of ``total`` steps begins, ``done`` of them finished earlier; or of a ``unit``, as "% of 60s"."""
        self._stage, self._total, self._unit, self._last_line = name, total, unit, 0.0
        self._live.reset(self._task, total=total, completed=done, description=name, count=self._count(done), note="")

    def _count(self, done: int) -> str:
        return f"{done} {self._unit}" if self._unit else f"{done}/{self._total}"

    def expect(self, total: int) -> None:
        """The stage turns out to have ``total`` steps."""
        self._total = total
        self._live.update(self._task, total=total)

    def note(self, note: str) -> None:
        """What goes on within a step; seen on a terminal only."""
        self._live.update(self._task, note=note)

    def step(self, done: int, note: str) -> None:
        """``done`` steps of the stage are finished."""
        self._live.update(self._task, completed=done, count=self._count(done), note=note)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self._last_line > _QUIET_SECONDS or done >= self._total):
            self._last_line = now
            self.console.print(f"  {self._stage} {self._count(done)}  {note}", highlight=False)

    def say(self, line: str) -> None:
        self.console.print(f"  {line}", highlight=False)
