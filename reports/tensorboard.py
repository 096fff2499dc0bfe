"""The command line: histories of runs as event files of TensorBoard.

    python -m reports.tensorboard runs/ --out events/ && tensorboard --logdir events/

Runs that are under way are taken as far as they are. Times are device seconds, so that TensorBoard's relative time is what a
run was charged for. Needs the extra ``tensorboard``; nothing here imports torch.
"""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluation.runs.folder import HISTORY, read_history
from reports.files import publishing
from reports.finding import find_runs
from spaces.cli.commands import guarded, leave
from spaces.cli.flags import Parser, path
from spaces.errors import InputError

PROGRAM = "python -m reports.tensorboard"
CURVES = ("validation_error", "hypervolume", "cost", "device_seconds")


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The curves that a step of a history adds to, by stage, and its values; what was not measured is left out."""
    values = {name: line.get(name) for name in CURVES}
    values |= {f"diagnostics/{name}": value for name, value in (line.get("diagnostics") or {}).items()}
    for name, value in values.items():
        if isinstance(value, int | float):
            yield f"{line['stage']}/{name}", float(value)


def export(paths: Sequence[Path], out: Path) -> str:
    """Write a folder of events for each run at ``paths`` into ``out``, which is replaced. Returns a line about it.

    Raises InputError where there is no history, where TensorBoard is not installed and where ``out`` cannot be written.
    """
    if find_spec("tensorboard") is None:
        raise InputError("TensorBoard is not installed; pip install -e '.[tensorboard]'")
    places, _ = find_runs(paths)
    folders = [place if place.is_dir() else place.parent for place in places]
    histories = {folder: read_history(folder / HISTORY) for folder in folders}
    histories = {folder: history for folder, history in histories.items() if history}
    if not histories:
        raise InputError(f"no run with a {HISTORY} at {', '.join(map(str, paths))}")
    names = _names(list(histories))
    with publishing(out, "reports.tensorboard") as draft:
        for folder, history in histories.items():
            _write(draft / names[folder], history)
    runs = "1 run" if len(histories) == 1 else f"{len(histories)} runs"
    return f"wrote {runs}, {sum(map(len, histories.values())):,} steps; tensorboard --logdir {out}"


def _names(folders: list[Path]) -> dict[Path, str]:
    """The folders' own names, with a number behind those that are there twice."""
    names: dict[Path, str] = {}
    for folder in folders:
        name, number = folder.resolve().name, 2
        while name in names.values():
            name, number = f"{folder.resolve().name}-{number}", number + 1
        names[folder] = name
    return names


def _write(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for number, line in enumerate(history, 1):
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line)]
        writer.add_event(Event(wall_time=line["device_seconds"], step=number, summary=Summary(value=values)))
    writer.close()


def parser() -> Parser:
    """Of the command line."""
    made = Parser(PROGRAM, "Write histories of runs as event files of TensorBoard.")
    made.add_argument("paths", nargs="+", type=path, help="run folders, folders of run folders, or record files")
    made.add_argument("--out", type=path, default=Path("events"), help="folder to write to (default: events)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, write, say what was written, and return the exit code."""

    def work() -> int:
        options = parser().parse(sys.argv[1:] if arguments is None else arguments)
        print(export(options.paths, options.out))
        return 0

    return guarded(work)


if __name__ == "__main__":
    leave(main())
