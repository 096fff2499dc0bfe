"""The record of one run as rows, one per finalist: what goes into a table is checked here.

A number that nobody measured is None; what cannot be a share, an amount or a number at all makes the record damaged.
"""

import json
from typing import Any

from spaces.errors import InputError

# Names that live next to torch, so copied; tests hold them equal to the originals.
ARITHMETICS = ("fp32", "int8", "approximate")
ACCOUNTINGS = ("horowitz45", "approxdarts")
STAGES = ("search", "selection", "final", "test")
SAVINGS = ("saving_vs_fp32", "saving_vs_int8")
SPLITS = [
    f"{arithmetic}_{part}_pj" for arithmetic in ARITHMETICS for part in ("multiplications", "additions", "memory")
]
LARGEST = 1e100  # of any number in a record: beyond lies damage


def rows_of(record: dict) -> list[dict]:
    """A row per finalist; ``best`` marks that of the highest validation accuracy. Raises InputError with the reason."""
    rows = [_row(record, index) for index in range(len(_pick(record, list, "finalists")))]
    if not rows:
        raise InputError("it has no finalists")
    _check_moments(record)
    best = max(range(len(rows)), key=lambda index: rows[index]["validation_accuracy"] or 0.0)
    for index, row in enumerate(rows):
        row["best"] = index == best
    return rows


def _pick(node: Any, kind: Any, *path: str | int) -> Any:
    """The value of type ``kind`` at ``path``. Raises InputError where it is missing, of another type or not finite."""
    name = ".".join(map(str, path))
    for step in path:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"it lacks {name}") from None
    finite = not isinstance(node, int | float) or abs(node) < LARGEST  # False for NaN, too
    if isinstance(node, bool) or not isinstance(node, kind) or not finite:
        raise InputError(f"{name} is {json.dumps(node)[:60]}")
    return node


def _share(record: dict, *path: str | int) -> float | None:
    """A share of images, or None. Raises InputError as ``_pick`` does, and outside 0..1."""
    value = _pick(record, int | float | None, *path)
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{'.'.join(map(str, path))} is {value}, not a share from 0 to 1")
    return value


def _amount(record: dict, *path: str | int) -> float:
    """Seconds or picojoules. Raises InputError as ``_pick`` does, and below 0."""
    value = _pick(record, int | float, *path)
    if value < 0:
        raise InputError(f"{'.'.join(map(str, path))} is {value}, below 0")
    return value


def _row(record: dict, index: int) -> dict:
    """One finalist; None is a number that nobody measured."""
    number, at = int | float, ("finalists", index)
    model = _pick(record, str, "energy_model")
    if model not in ACCOUNTINGS:
        raise InputError(f"its accounting {model!r:.60} is unknown")
    tested = {name: _share(record, *at, "accuracy", "test", name) for name in ARITHMETICS}
    known = tested["int8"] is not None and tested["approximate"] is not None
    seconds = {stage: _amount(record, "ledger", stage, "device_seconds") for stage in STAGES}
    return {
        **{name: _pick(record, str, name) for name in ("method", "space", "dataset", "dataset_fingerprint")},
        "train_limit": _pick(record, int, "train_limit") if "train_limit" in record else 0,
        "protocol": _pick(record, str, "protocol", "name"),
        "protocol_hash": _pick(record, str, "protocol", "hash"),
        "seed": _pick(record, int, "seed"),
        "scope": _pick(record, str, "scope"),
        "energy_model": model,
        "finalist": index + 1,
        "key": _pick(record, str, *at, "key"),
        **{name: _pick(record, int, *at, name) for name in ("params", "macs")},
        "validation_accuracy": _share(record, *at, "accuracy", "validation"),
        **{f"test_accuracy_{name}": share for name, share in tested.items()},
        "accuracy_drop_vs_int8": tested["int8"] - tested["approximate"] if known else None,
        **{
            f"{a}_{name}_pj": _amount(record, *at, "energy", a, f"{name}_pj")
            for a in ACCOUNTINGS
            for name in ARITHMETICS
        },
        **{f"{a}_{name}": _pick(record, number, *at, "energy", a, name) for a in ACCOUNTINGS for name in SAVINGS},
        **{name: _amount(record, *at, "energy", model, "split", *name.split("_", 1)) for name in SPLITS},
        **{f"device_{name}": _pick(record, str, "device", name) for name in ("type", "name")},
        **{f"{stage}_device_seconds": spent for stage, spent in seconds.items()},
        "total_device_seconds": sum(seconds.values()),
        "hypervolume": _pick(record, number | None, "hypervolume"),
        "command": _pick(record, str, "command"),
    }


def _check_moments(record: dict) -> None:
    """Raises InputError where the fronts over time are not what they should be."""
    moments = record.get("anytime") or []
    if moments and _amount(record, "reference_pj") == 0:
        raise InputError("reference_pj is 0")
    last = 0.0
    for at in range(len(_pick(record, list, "anytime")) if moments else 0):
        seconds = _amount(record, "anytime", at, "device_seconds")
        if seconds < last:
            raise InputError(f"anytime.{at} is earlier than the moment before it")
        last = seconds
        for point in range(len(_pick(record, list, "anytime", at, "front"))):
            if _share(record, "anytime", at, "front", point, 0) is None:
                raise InputError(f"anytime.{at}.front.{point} has no error")
            _amount(record, "anytime", at, "front", point, 1)
