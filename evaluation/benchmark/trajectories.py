"""Searches on a table, hundreds of them: what each would have proposed after every step, and what that had taken.

A run here is one of ``evaluation.run --evaluator table`` that leaves no folder behind: the same problem, method, budget and
ledger, stepped by the same loop. Of each, a line is kept in one file.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation import datasets
from evaluation.benchmark.evaluator import TableEvaluator
from evaluation.benchmark.journal import whole_lines
from evaluation.runs import searching, spending
from evaluation.runs.context import RunContext
from evaluation.runs.progress import Unseen
from evaluation.settings.config import RunConfig
from evaluation.training.device import choose_device, use_threads
from methods.method import Method
from spaces.errors import InputError
from spaces.files.json_files import parse_json
from spaces.files.saving import append_line, save_bytes
from spaces.files.schema import typed
from spaces.multipliers.multiplier import Multiplier
from spaces.space import Architecture


@dataclass(frozen=True)
class Moment:
    """What a search would have handed over after a step, and what it had caused to be spent, judging of that included."""

    work: float  # trained, in MACs
    seconds: float  # of one device
    evaluations: int  # candidates that it asked for
    proposals: tuple[int, ...]  # networks by their number in the table


@dataclass(frozen=True)
class Trajectory:
    """One search: its moments, of which the proposals differ, and the end."""

    method: str
    seed: int
    moments: tuple[Moment, ...]


class UnkeptRun(RunContext):
    """A run of which nothing is written; it notes its moments instead."""

    def begin(self) -> None:
        """Forget what an earlier seed left."""
        self.moments: list[Moment] = []
        self.method: Method | None = None

    where = "the settings"

    @property
    def table(self) -> Any:
        """In which its candidates are looked up."""
        evaluator = self.problem.work.evaluator
        assert isinstance(evaluator, TableEvaluator)
        return evaluator.table

    def remember(self, method: Method) -> None:
        self.method = method

    def save(self) -> None:
        """Nothing is lost that seconds would not bring back."""

    def keep_proposals(self) -> None:
        """The moments hold them."""

    def record_step(self, stage: str, error: float | None, cost: float | None, diagnostics: dict) -> None:  # noqa: ARG002
        self.state.lines += 1
        assert self.method is not None
        self.note(self.method.proposals())

    def note(self, proposals: list[Architecture]) -> None:
        """What is proposed now."""
        numbers = tuple(self.table.at(architecture) for architecture in proposals)
        if not self.moments or self.moments[-1].proposals != numbers:
            self.moments.append(self.moment(proposals, numbers))

    def moment(self, proposals: list[Architecture], numbers: tuple[int, ...]) -> Moment:
        """These proposals, and what was spent up to now."""
        spent = spending.spent(self)
        seconds, work = spending.judging(self, proposals)
        return Moment(spent.work + work, round(spent.seconds + seconds, 3), spent.evaluations, numbers)


def trajectory(run: UnkeptRun) -> Trajectory:
    """Search from the beginning to the end. Raises InputError where nothing is proposed."""
    run.begin()
    searching.search(run, Unseen())
    run.note(run.state.proposals)
    run.moments.append(run.moment(run.state.proposals, run.moments[-1].proposals))  # at what had been spent in the end
    return Trajectory(run.config.method, run.config.seed, tuple(run.moments))


@dataclass(frozen=True)
class MethodSettings:
    """The settings under which a method searched."""

    method: str
    config: dict[str, Any]


class TrajectoryFile:
    """Searches, a line each, under a first line with what they have in common; each method's settings come before its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.common: dict[str, Any] = {}
        self.methods: dict[str, dict[str, Any]] = {}
        self.found: list[Trajectory] = []
        self.lines, self.torn = whole_lines(path, "file of table compare")
        for number, line in enumerate(self.lines):
            self._take(parse_json(line, path), number == 0)

    def _take(self, data: dict[str, Any], first: bool) -> None:
        if first:
            if not {"dataset", "space", "tables", "cost", "budget", "protocol"} <= data.keys():
                raise InputError(f"{self.path} is no file of table compare (line 1)")
            self.common = data
        elif "config" in data:
            settings = typed(data, MethodSettings, str(self.path))
            self.methods[settings.method] = settings.config
        else:
            self.found.append(typed(data, Trajectory, str(self.path)))

    def begin(self, configs: Mapping[str, RunConfig]) -> None:
        """Make the file ready for more searches. Raises InputError where it holds others under other settings."""
        shared = common(next(iter(configs.values())))
        if self.torn:
            save_bytes(self.path, *self.lines)
        if not self.common:
            save_bytes(self.path, (json.dumps(shared) + "\n").encode())
            self.common = shared
        self._require_same(self.common, shared, "searches")
        for name, config in configs.items():
            if name not in self.methods:
                append_line(self.path, json.dumps(asdict(MethodSettings(name, config.method_config))))
                self.methods[name] = config.method_config
            self._require_same(self.methods[name], config.method_config, f"searches of {name}")

    def _require_same(self, kept: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
        wanted = json.loads(json.dumps(wanted))
        changed = sorted(name for name in {*kept, *wanted} if kept.get(name) != wanted.get(name))
        if changed:
            raise InputError(
                f"{self.path} holds {what} under other settings ({', '.join(changed)}); choose another --to"
            )

    def add(self, found: Trajectory) -> None:
        append_line(self.path, json.dumps(asdict(found), separators=(",", ":")))
        self.found.append(found)


def compare(
    configs: Mapping[str, RunConfig],
    library: tuple[Multiplier, ...],
    seeds: range,
    file: TrajectoryFile,
    show: Callable[[int, int, Trajectory | None], None],
) -> None:
    """Search with every method under all seeds, but for what the file holds already.

    ``show(done, total, latest)`` is called at first and after every search.
    """
    file.begin(configs)
    known = {(each.method, each.seed) for each in file.found}
    left = [(name, seed) for seed in seeds for name in configs if (name, seed) not in known]
    total = len(seeds) * len(configs)
    show(total - len(left), total, None)
    if not left:
        return
    runs = unkept_runs(configs, library)
    for number, (name, seed) in enumerate(left, total - len(left) + 1):
        file.add(trajectory(runs[name].again(seed)))
        show(number, total, file.found[-1])


def unkept_runs(configs: Mapping[str, RunConfig], library: tuple[Multiplier, ...]) -> dict[str, UnkeptRun]:
    """A run of every method, from which those of other seeds are made."""
    first = next(iter(configs.values()))
    dataset = datasets.load(first.dataset, first.image_size, first.data_dir, first.train_limit)
    use_threads(first.threads, dataset.train.images.shape[2])
    device = choose_device(first.device)
    return {name: UnkeptRun(config, dataset, device, library) for name, config in configs.items()}


def common(config: RunConfig) -> dict[str, Any]:
    """What all searches of a comparison have in common."""
    names = (
        "dataset",
        "space",
        "space_config",
        "multipliers",
        "tables",
        "cost",
        "budget",
        "scope",
        "multiplier_choice",
    )
    shared = {name: getattr(config, name) for name in names} | {"protocol": config.protocol.hash}
    return json.loads(json.dumps(shared))
