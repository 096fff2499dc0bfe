"""What a checkpoint must hold for a run to go on from it: names and types, checked by ``spaces.files.schema``."""

from typing import Literal, NotRequired, TypedDict

from evaluation.runs.record import Failure, LedgerRow, Moment


class KeptEvaluation(TypedDict):
    """A trained candidate in a checkpoint."""

    key: str
    error: float
    cost: float
    params: int
    macs: int
    failure: str | None
    epochs: int
    inherited: NotRequired[int]
    seconds: float
    work: NotRequired[float]


class KeptNetwork(TypedDict):
    architecture: dict
    epochs: int
    weights: dict
    inherited: NotRequired[int]


class KeptProblem(TypedDict):
    rng: dict
    evaluations: list[KeptEvaluation]
    judgements: list[list[KeptEvaluation]]
    asked: int
    own_work: NotRequired[float]
    candidates_work: NotRequired[float]
    trained: list[KeptNetwork]


class TrainingState(TypedDict):
    epoch: int
    network: dict
    optimiser: dict


class KeptTraining(TypedDict):
    """A final training under way, or one that has ended before those whose turn comes first."""

    training: TrainingState | None  # None: it has ended, and its weights are saved
    losses: list[float]  # of every epoch so far
    told: int  # epochs that stand in the history


class KeptState(TypedDict):
    """``RunState`` in a checkpoint; what older ones lack has its value at the start."""

    stage: Literal["search", "selection", "final", "test", "done"]
    lines: int
    share: NotRequired[float]
    reserve: NotRequired[dict]
    anytime: NotRequired[list[Moment]]
    proposals: list[dict]
    signals: NotRequired[dict[str, dict[str, float]]]
    selected: int
    finalists: list[dict]
    failures: list[Failure]
    notes: NotRequired[list[str]]
    results: dict[str, dict]
    training: dict[str, KeptTraining]
    final_devices: NotRequired[int]
    test_fingerprint: NotRequired[str]
    method: dict | None


class Checkpoint(TypedDict):
    ledger: dict[str, LedgerRow]
    problem: KeptProblem
    state: KeptState
    config: NotRequired[dict]
    data: NotRequired[str]
    device: NotRequired[str]
