"""The suite from Python: what the command ``evaluation.run`` does, with its result as objects.

    import evaluation as ev

    result = ev.search("approxdarts", dataset="fashion14", budget="60s", seeds=3)
    result.finalists                      # a DataFrame; also .front and .history
    network = result.best.network()       # a torch module
    result.best.export("my_network")

What is wrong with the settings, or stops a run, is raised as ``InputError``. Nothing here imports torch before a search.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.cli.config_files import as_flags
from evaluation.result import FinishedSearch, SearchResult
from evaluation.runs.folder import RECORD, RunFolder, read_record
from spaces.cli.terminal import Terminal
from spaces.errors import InputError


def search(
    method: str | Sequence[str] = "approxdarts",
    *,
    dataset: str | Path = "digits",
    budget: str = "",
    seeds: int = 1,
    out: str | Path = "runs",
    progress: bool = True,
    **settings: Any,
) -> SearchResult:
    """Search, train the finalists, test them, and keep it all in run folders below ``out``.

    ``settings`` are the other flags of ``evaluation.run``, with underscores: ``protocol="fast"``, ``space="bench"``,
    ``multipliers=["mul8s_1L2H"]``. Those of a method, a space or a protocol are dicts: ``random={"samples": 50}``. Raises
    InputError for what no run could be made of, and where a run cannot go on; its folder is kept for
    ``evaluation.run --resume``.
    """
    from evaluation.cli.processes import command_line
    from evaluation.run import all_flags, parse

    asked = {"method": method, "dataset": dataset, "budget": budget, "seeds": seeds, "out": out, **settings}
    if forbidden := {"resume", "config", "print_config", "help"} & asked.keys():
        raise InputError(f"{min(forbidden)} is for the command line; ev.load opens the folders of finished runs")
    given = {name: _plain(value) for name, value in asked.items() if value is not None and value != ""}
    arguments = as_flags(given, all_flags(), "ev.search")
    return _carried_out(parse(arguments), command_line("evaluation.run", arguments), progress)


def load(*folders: str | Path) -> SearchResult:
    """The result of finished runs. Raises InputError for a folder that is none, or not finished."""
    if not folders:
        raise InputError("name at least one run folder")
    for folder in folders:
        if not isinstance(folder, (str, Path)):
            raise InputError(f"{folder!r} is not the path of a run folder")
    found = []
    for folder in map(Path, folders):
        if not (folder / RECORD).exists():
            raise InputError(f"'{folder}' is not a finished run: it has no {RECORD}")
        found.append(FinishedSearch(RunFolder(folder), read_record(folder / RECORD)))
    return SearchResult(tuple(found))


def _plain(value: Any) -> Any:
    """As a file of settings would have it."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _carried_out(asked: Any, command: str, progress: bool) -> SearchResult:
    from evaluation.cli.plan import plan_runs

    configs, library = plan_runs(asked, command)
    from evaluation.cli import executing
    from evaluation.cli.several import Several
    from evaluation.runs.notebook_progress import NotebookProgress
    from evaluation.runs.progress import RunProgress

    planned: list[Path] = []
    executing.prepare(configs, library, asked.options.out, planned)
    console = Terminal() if progress else Terminal(file=io.StringIO())
    watch = NotebookProgress if progress and console.is_jupyter else RunProgress
    several = Several(console, len(planned))
    records = [executing.execute(path, console, several=several, watch=watch) for path in planned]
    return SearchResult(tuple(FinishedSearch(RunFolder(path), record) for path, record in zip(planned, records)))
