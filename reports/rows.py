"""The record of one run as rows, one per finalist: the columns of the tidy table that tables and figures are made from."""

from typing import Any

from evaluation.runs import units
from evaluation.runs.record import STAGES, Finalist, Record

SAVINGS = ("fp32", "int8")  # what approximate arithmetic is compared with


def cost_column(model: str, arithmetic: str, unit: str) -> str:
    """The name of the column that holds a cost, as ``horowitz45_int8_pj``."""
    return f"{model}_{arithmetic}_{unit.lower()}"


def saving_column(model: str, base: str) -> str:
    """The name of the column that holds the share of a cost in arithmetic ``base`` that the approximate one saves."""
    return f"{model}_saving_vs_{base}"


def exact_column(model: str) -> str:
    """The name of the column that holds the share of a cost in fp32 that exact int8 saves, whatever the circuits."""
    return f"{model}_int8_saving_vs_fp32"


def rows_of(record: Record) -> list[dict[str, Any]]:
    """A row per finalist; ``best`` marks that of the highest validation accuracy. None is a number that was not measured."""
    rows = [_row(record, number, finalist) for number, finalist in enumerate(record.finalists, 1)]
    best = max(range(len(rows)), key=lambda index: rows[index]["validation_accuracy"] or 0.0)
    for index, row in enumerate(rows):
        row["best"] = index == best
    return rows


def _row(record: Record, number: int, finalist: Finalist) -> dict[str, Any]:
    """One finalist."""
    tested = {name: finalist.accuracy.test.get(name) for name in record.arithmetics}
    exact, approximate = tested.get("int8"), tested.get("approximate")
    seconds = {stage: record.ledger[stage].device_seconds for stage in STAGES}
    return {
        **{
            name: getattr(record, name) for name in ("method", "space", "dataset", "dataset_fingerprint", "train_limit")
        },
        "protocol": record.protocol.name,
        "protocol_hash": record.protocol.hash,
        "seed": record.seed,
        "scope": record.scope,
        f"{units.noun(record.unit)}_model": record.cost,
        "finalist": number,
        **{name: getattr(finalist, name) for name in ("key", "params", "macs")},
        "validation_accuracy": finalist.accuracy.validation,
        **{f"test_accuracy_{name}": share for name, share in tested.items()},
        "accuracy_drop_vs_int8": None if exact is None or approximate is None else exact - approximate,
        **_costs(finalist),
        **_split(record, finalist),
        "device_type": record.device.type,
        "device_name": record.device.name,
        **{f"{stage}_device_seconds": spent for stage, spent in seconds.items()},
        "total_device_seconds": sum(seconds.values()),
        "hypervolume": record.hypervolume,
        "command": record.command,
    }


def _costs(finalist: Finalist) -> dict[str, float | None]:
    """By every cost model: the costs, then the savings."""
    values = {
        cost_column(model, name, figures.unit): value
        for model, figures in finalist.costs.items()
        for name, value in figures.values.items()
    }
    savings = {
        saving_column(model, base): figures.saving(base)
        for model, figures in finalist.costs.items()
        for base in SAVINGS
    }
    return values | savings | {exact_column(model): f.saving("fp32", "int8") for model, f in finalist.costs.items()}


def _split(record: Record, finalist: Finalist) -> dict[str, float | None]:
    """Where the cost goes by the model that guided the search."""
    figures, (parts, apart) = finalist.costs[record.cost], record.parts
    sides = ((figures.split, parts), (figures.apart, apart))
    return {
        f"{arithmetic}_{part}_{figures.unit.lower()}": by_arithmetic.get(arithmetic, {}).get(part)
        for arithmetic in record.arithmetics
        for by_arithmetic, names in sides
        for part in names
    }
