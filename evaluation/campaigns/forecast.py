"""How long runs will take, from how long others took."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from evaluation.campaigns.plan import PlannedRun
from evaluation.datasets.containers import plain_name
from evaluation.runs.folder import RECORD, read_record
from evaluation.runs.record import STAGES, Record
from evaluation.settings.config import RunConfig
from spaces.errors import InputError


def records_below(folders: Iterable[Path]) -> list[Record]:
    """All whole records in run folders of these folders; what cannot be read is none."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob(f"*/{RECORD}")):
            try:
                found.append(read_record(path))
            except InputError:
                continue
    return found


def device_seconds(record: Record) -> float:
    """Of all stages."""
    return sum(record.ledger[stage].device_seconds for stage in STAGES)


def predicted(run: PlannedRun, records: Sequence[Record]) -> float | None:
    """Device-seconds: the median of those records that agree with the run in most; None where there is nothing to go by."""
    own = _traits(run.config)
    theirs = [(_traits_of(record), record) for record in records]
    for length in range(len(own), 2, -1):  # method, data set and protocol at least
        alike = [device_seconds(record) for traits, record in theirs if traits[:length] == own[:length]]
        if alike:
            return median(alike)
    return None


def _traits(config: RunConfig) -> tuple:
    """From the most to the least important."""
    dataset = plain_name(Path(config.dataset))
    return config.method, dataset, config.protocol.name, config.budget, config.space, len(config.multipliers)


def _traits_of(record: Record) -> tuple:
    dataset = plain_name(Path(record.dataset))
    count = len(record.multipliers or ())
    return record.method, dataset, record.protocol.name, record.budget, record.space, count
