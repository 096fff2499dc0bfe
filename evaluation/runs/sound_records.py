"""What the types of a record do not say: parts that are out of their range, or that do not fit together.

A ``record`` here is an ``evaluation.runs.record.Record``, which is checked as it is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spaces.errors import InputError

LARGEST = 1e100  # of any number in a record: beyond lies damage


def require_bounded(node: object, at: str = "") -> None:
    """Raises InputError for a number that is no amount of anything."""
    if isinstance(node, int | float) and not abs(node) < LARGEST:  # NaN, too
        raise InputError(f"{at} is {node}")
    inner = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for name, part in inner:
        require_bounded(part, f"{at}.{name}" if at else str(name))


def require_whole(record: Any, stages: Sequence[str]) -> None:
    """Raises InputError where parts of the right types are out of their range or do not fit together."""
    if not record.finalists:
        raise InputError("it has no finalists")
    for stage in stages:
        if stage not in record.ledger:
            raise InputError(f"ledger.{stage} is missing")
    for at, share in _shares(record):
        if not 0 <= share <= 1:
            raise InputError(f"{at} is {share}, not a share from 0 to 1")
    for at, amount in _amounts(record):
        if amount < 0:
            raise InputError(f"{at} is {amount}, below 0")
    for number, finalist in enumerate(record.finalists, 1):
        if record.cost not in finalist.costs:
            raise InputError(f"finalist {number} has no cost by {record.cost}")
        if "approximate" not in finalist.costs[record.cost].values:
            raise InputError(f"finalist {number} has no cost in approximate arithmetic")
    if len({finalist.costs[record.cost].unit for finalist in record.finalists}) > 1:
        raise InputError(f"its finalists have costs by {record.cost} in several units")
    _require_moments(record)


def _require_moments(record: Any) -> None:
    """Raises InputError where the fronts over time are not what they should be."""
    if not record.anytime:
        return
    if record.reference_cost == 0:
        raise InputError("reference_cost is 0")
    if record.hypervolume is None or not record.anytime[-1].front:
        raise InputError("its last front or its hypervolume is missing")
    last = 0.0
    for at, moment in enumerate(record.anytime):
        if moment.device_seconds < last:
            raise InputError(f"anytime.{at} is earlier than the moment before it")
        last = moment.device_seconds


def _shares(record: Any) -> Iterator[tuple[str, float]]:
    """(Where, value) of everything that is a share of images."""
    for at, finalist in enumerate(record.finalists):
        accuracy = {"validation": finalist.accuracy.validation}
        accuracy |= {f"test.{name}": value for name, value in finalist.accuracy.test.items()}
        for name, value in accuracy.items():
            if value is not None:
                yield f"finalists.{at}.accuracy.{name}", value
    for at, judged in enumerate(record.judged):
        for place, error in enumerate(judged.errors):
            yield f"judged.{at}.errors.{place}", error
    for at, moment in enumerate(record.anytime):
        for place, (error, _) in enumerate(moment.front):
            yield f"anytime.{at}.front.{place}.0", error


def _amounts(record: Any) -> Iterator[tuple[str, float]]:
    """(Where, value) of times and costs."""
    yield "reference_cost", record.reference_cost
    if record.account is not None:
        yield "account.spent", record.account.spent
    for stage, row in record.ledger.items():
        yield f"ledger.{stage}.device_seconds", row.device_seconds
        yield f"ledger.{stage}.work", row.work or 0.0
    for at, moment in enumerate(record.anytime):
        yield f"anytime.{at}.device_seconds", moment.device_seconds
        yield f"anytime.{at}.judging_seconds", moment.judging_seconds or 0.0
        for place, (_, cost) in enumerate(moment.front):
            yield f"anytime.{at}.front.{place}.1", cost
    for at, finalist in enumerate(record.finalists):
        for model, figures in finalist.costs.items():
            for arithmetic, value in figures.values.items():
                yield f"finalists.{at}.costs.{model}.values.{arithmetic}", value
            for parts in (figures.split, figures.apart):
                for arithmetic, split in parts.items():
                    for part, value in split.items():
                        yield f"finalists.{at}.costs.{model} in {arithmetic}, {part}", value
        for place, layer in enumerate(finalist.layers):
            for arithmetic, value in layer.costs.items():
                yield f"finalists.{at}.layers.{place}.costs.{arithmetic}", value
