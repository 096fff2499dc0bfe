"""What a person sees while data is fetched or decoded."""

import sys
import time
from types import TracebackType

from rich.file_proxy import FileProxy
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spaces.cli.terminal import Terminal

_QUIET_SECONDS = 10.0  # between plain lines where no bar can be drawn


class Watch:
    """Progress of one step, on stderr: a bar on a terminal, else a line now and then. A context manager.

    ``total`` may be set later. ``update``, ``reset`` and ``close`` are what pooch asks of a progress bar.
    """

    def __init__(self, what: str, total: int = 0, in_bytes: bool = False) -> None:
        self.what, self.total, self.done = what, total, 0
        console = Terminal(stderr=True)
        # Where another live display is up, stderr is its proxy: lines then appear above that display.
        drawn = console.is_terminal and not isinstance(sys.stderr, FileProxy)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            DownloadColumn() if in_bytes else MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not drawn,
            transient=True,
        )
        self._lines, self._unit = not drawn, 1 << 20 if in_bytes else 1
        self._task = self._bar.add_task(what, total=total or None)
        self._last_line = time.monotonic()

    def __enter__(self) -> "Watch":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, count: int) -> None:
        """``count`` more are done."""
        self.done += count
        self._bar.update(self._task, completed=self.done, total=self.total or None)
        now = time.monotonic()
        if self._lines and now - self._last_line > _QUIET_SECONDS:
            self._last_line = now
            unit = " MiB" if self._unit > 1 else ""
            done, total = self.done // self._unit, self.total // self._unit
            print(f"  {self.what}: {done:,} of {total:,}{unit}", file=sys.stderr, flush=True)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Nothing: the end of the context closes it."""
