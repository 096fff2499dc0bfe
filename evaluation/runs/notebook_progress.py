"""What a person sees in a notebook while a run goes on: a line that is written anew."""

from types import TracebackType
from typing import Any

from evaluation.runs.progress import RunProgress
from spaces.cli.terminal import Terminal


class NotebookProgress(RunProgress):
    """As ``RunProgress``, with the stage, the step and the note in one output of the cell."""

    def __init__(self, console: Terminal, title: str) -> None:
        super().__init__(console, title)
        self._shown: Any = None

    def __enter__(self) -> "NotebookProgress":
        from IPython.display import display

        self._shown = display({"text/plain": self.title}, raw=True, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("" if error is None else "stopped")

    def stage(self, name: str, total: int, done: int = 0, unit: str = "") -> None:
        super().stage(name, total, done, unit)
        self._at = done
        self._write("")

    def note(self, note: str) -> None:
        self._write(note)

    def step(self, done: int, note: str) -> None:
        self._at = done
        self._write(note)

    def _write(self, note: str) -> None:
        where = f"{self._stage} {self._count(self._at)}" if self._stage else ""
        line = "  ".join(filter(None, (self.title, where, note)))
        self._shown.update({"text/plain": line}, raw=True)
