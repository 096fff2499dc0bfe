"""What the files of a run must hold for a program to use them: names and types, checked by ``spaces.files.schema``.

Only what is used is named. Reports read records more patiently, and say of each what it lacks: see ``reports.rows``.
"""

from typing import Literal, NotRequired, TypedDict

from spaces.errors import InputError


class Stage(TypedDict):
    """A row of the ledger."""

    device_seconds: float
    wall_seconds: float
    warm_up_seconds: NotRequired[float]
    devices: NotRequired[int]
    joules: NotRequired[float | None]
    peak_memory_bytes: NotRequired[int | None]
    sm_clock_mhz: NotRequired[int | None]
    memory_clock_mhz: NotRequired[int | None]


class Ledger(TypedDict):
    search: Stage
    selection: Stage
    final: Stage
    test: Stage
    snapshots: NotRequired[Stage]


class Moment(TypedDict):
    """The judged front at a moment of the search: errors and energies in pJ."""

    mark: NotRequired[int]
    device_seconds: float
    evaluations: NotRequired[int]
    hypervolume: float
    front: list[tuple[float, float]]


class Failure(TypedDict):
    stage: str
    reason: str


class Tested(TypedDict):
    fp32: float | None
    int8: float | None
    approximate: float | None


class Accuracy(TypedDict):
    validation: float | None
    test: Tested


class Part(TypedDict):
    multiplications_pj: float
    additions_pj: float
    memory_pj: float


class Split(TypedDict):
    fp32: Part
    int8: Part
    approximate: Part


class Energy(TypedDict):
    fp32_pj: float
    int8_pj: float
    approximate_pj: float
    saving_vs_fp32: float
    saving_vs_int8: float
    split: Split


class Finalist(TypedDict):
    architecture: dict
    key: str
    summary: str
    params: int
    macs: int
    accuracy: Accuracy
    energy: dict[str, Energy]


class Named(TypedDict):
    name: str
    hash: str


class Device(TypedDict):
    type: str
    name: str
    count: int


class Record(TypedDict):
    """``record.json`` of a finished run."""

    status: Literal["complete"]
    method: str
    method_config: dict
    space: str
    space_config: NotRequired[dict]
    dataset: str
    dataset_origin: str
    dataset_fingerprint: str
    test_fingerprint: NotRequired[str]
    train_limit: NotRequired[int]
    seed: int
    protocol: Named
    scope: str
    multiplier_choice: str
    energy_model: str
    multipliers: list[str]
    tables: dict[str, str]
    budget: str
    snapshots: int
    device: Device
    ledger: Ledger
    reference_pj: float
    hypervolume: float | None
    anytime: list[Moment]
    finalists: list[Finalist]
    notes: NotRequired[list[str]]
    failures: list[Failure]


def require_whole(record: dict) -> None:
    """Raises InputError where the parts of a record, each of the right type, do not fit together."""
    for number, finalist in enumerate(record["finalists"], 1):
        if record["energy_model"] not in finalist["energy"]:
            raise InputError(f"finalist {number} has no energy by {record['energy_model']}")
    if record["anytime"] and (record["hypervolume"] is None or not record["anytime"][-1]["front"]):
        raise InputError("its last front or its hypervolume is missing")


class KeptEvaluation(TypedDict):
    """A trained candidate in a checkpoint."""

    key: str
    error: float
    cost: float
    params: int
    macs: int
    failure: str | None
    epochs: int
    seconds: float
    place: int


class KeptNetwork(TypedDict):
    architecture: dict
    epochs: int
    weights: dict


class KeptProblem(TypedDict):
    rng: dict
    evaluations: list[KeptEvaluation]
    judged: list[KeptEvaluation]
    asked: int
    trained: list[KeptNetwork]


class KeptTraining(TypedDict):
    epoch: int
    network: dict
    optimiser: dict


class KeptState(TypedDict):
    """``RunState`` in a checkpoint; what older ones lack has its value at the start."""

    stage: Literal["search", "selection", "final", "test", "done"]
    lines: int
    share: NotRequired[float]
    anytime: NotRequired[list[Moment]]
    proposals: list[dict]
    selected: int
    finalists: list[dict]
    failures: list[Failure]
    notes: NotRequired[list[str]]
    results: dict[str, dict]
    training: KeptTraining | None
    final_devices: NotRequired[int]
    test_fingerprint: NotRequired[str]
    method: dict | None


class Checkpoint(TypedDict):
    ledger: dict[str, Stage]
    problem: KeptProblem
    state: KeptState
    config: NotRequired[dict]
    data: NotRequired[str]
    device: NotRequired[str]
