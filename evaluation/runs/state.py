"""How far a run has come, and its one checkpoint."""

import json
from dataclasses import MISSING, dataclass, field, fields

import torch

from evaluation.datasets import Dataset
from evaluation.runs import checkpoints
from evaluation.runs.checkpoint_shapes import Checkpoint
from evaluation.runs.folder import CONFIG, STATE, RunFolder
from evaluation.runs.ledger import Ledger
from evaluation.runs.record import STAGES
from evaluation.searching.problem import SearchProblem
from evaluation.searching.seeds import derived_seed
from evaluation.settings.config import PLACE, SCHEMA, RunConfig
from spaces.errors import InputError
from spaces.files.reading import parsing
from spaces.files.schema import typed
from spaces.space import Architecture


@dataclass
class RunState:
    """Everything about a run that changes, but for the problem and the ledger, which keep their own."""

    stage: str = STAGES[0]
    lines: int = 0  # of the history
    share: float = 0.0  # of the search that is done
    reserve: dict = field(default_factory=dict)  # of the budget: see ``spending.Reserve``; empty before the first
    anytime: list[dict] = field(default_factory=list)  # the front after parts of the search, and at its end
    proposals: list[Architecture] = field(default_factory=list)
    signals: dict[str, dict[str, float]] = field(default_factory=dict)  # what was believed of them, by name and key
    selected: int = 0  # proposals that selection has dealt with
    finalists: list[Architecture] = field(default_factory=list)
    failures: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a reader of the results should know
    results: dict[str, dict] = field(default_factory=dict)  # "<finalist>-<arithmetic>" → {"accuracy" or "failure"}
    training: dict[str, dict] = field(default_factory=dict)  # as results; of those under way: see KeptTraining
    final_devices: int = 0  # that train finalists together
    test_fingerprint: str = ""  # of the test images, once they are read
    method: dict | None = None  # of the search in flight


_ARCHITECTURES = ("proposals", "finalists")


def save(
    folder: RunFolder, config: RunConfig, dataset: Dataset, state: RunState, problem: SearchProblem, ledger: Ledger
) -> None:
    """Replace the checkpoint."""
    content = {name.name: getattr(state, name.name) for name in fields(state)}
    for name in _ARCHITECTURES:
        content[name] = [architecture.to_json() for architecture in content[name]]
    checkpoints.save(
        folder.path / STATE,
        {
            "schema": SCHEMA,
            "config": config.to_json(),
            "data": dataset.fingerprint,
            "device": problem.device.type,
            "ledger": ledger.to_json(),
            "problem": problem.state_dict(),
            "state": content,
        },
    )


def load(
    folder: RunFolder, config: RunConfig, dataset: Dataset, problem: SearchProblem, device: torch.device
) -> tuple[RunState, Ledger]:
    """State and ledger as the checkpoint left them, or new ones; the problem and the history follow.

    Raises InputError for a checkpoint that cannot be read, or that other settings or other data led to.
    """
    path = folder.path / STATE
    if not path.exists():
        folder.truncate_history(0)
        return RunState(), Ledger(device)
    with parsing(path, "is not a checkpoint of this program", "; start a new run"):
        kept = typed(checkpoints.load(path, torch.device("cpu")), Checkpoint)
    _require_same(kept, config, dataset, folder)
    with parsing(path, "is not a checkpoint of this program", "; start a new run"):
        content = dict(kept["state"])
        for name in _ARCHITECTURES:
            content[name] = [problem.space.from_json(data) for data in content[name]]
        state, ledger = RunState(**content), Ledger(device, kept["ledger"])
        _move_generators(kept, state, problem, config.seed)
        problem.load_state_dict(kept["problem"])
    folder.truncate_history(state.lines)
    return state, ledger


def _move_generators(kept: dict, state: RunState, problem: SearchProblem, seed: int) -> None:
    """Give a run that was on another type of device new random numbers, since that one's generators do not fit here.

    They depend on the run's seed and on how far it has come, so that two such moves lead to the same result.
    """
    fitting = problem.generator.get_state().shape
    before, now = kept.get("device", problem.device.type), problem.device.type
    trainings = [training for kept_one in state.training.values() if (training := kept_one["training"]) is not None]
    for place in (kept["problem"], *trainings):
        if "generator" in place and place["generator"].shape != fitting:
            generator = torch.Generator(problem.device).manual_seed(derived_seed(seed, "moved", state.lines))
            place["generator"] = generator.get_state()
            before = "another type of device" if before == now else before
    if before != now:
        state.notes.append(f"resumed on {now} after {before} at step {state.lines}: other random numbers from there on")


def _require_same(kept: dict, config: RunConfig, dataset: Dataset, folder: RunFolder) -> None:
    """Raises InputError where the checkpoint is not of this configuration and these images."""
    # A setting that is newer than the checkpoint had its default value then.
    unsaid = {setting.name: setting.default for setting in fields(RunConfig) if setting.default is not MISSING}
    wanted, known = config.to_json(), {**unsaid, **(kept.get("config") or {})}
    if known.get("method") != config.method:
        raise InputError(
            f"{folder.path / STATE} belongs to method '{known.get('method')}', config.json says '{config.method}'"
        )
    for name in ("device", *PLACE):  # where it runs may change
        known[name] = wanted[name]
    changed = [name for name in wanted if json.dumps(wanted[name]) != json.dumps(known.get(name))]
    if changed:
        where = folder.path / CONFIG
        raise InputError(
            f"{where} was changed since the checkpoint ({', '.join(changed)}); restore it or start a new run"
        )
    if kept.get("data") != dataset.fingerprint:
        raise InputError(f"the training images of '{config.dataset}' are not those that this run began with")
