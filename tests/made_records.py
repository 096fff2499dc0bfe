"""Run folders for the tests of reports: small ones made by hand, and many made from the real records of this project."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from hypothesis import strategies as st

from evaluation.runs.folder import read_record
from evaluation.runs.record import (
    Accuracy,
    CostFigures,
    Device,
    Finalist,
    Layer,
    LedgerRow,
    Moment,
    ProtocolUsed,
    Record,
)
from spaces.cells.architecture import CHOSEN_OPERATIONS, CellArchitecture

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "reports" / "records"
NAN = float("nan")


def energies(fp32: float, int8: float, approximate: float) -> CostFigures:
    """One accounting of a finalist; a tenth of every total is additions, memory is seven times the total."""
    totals = {"fp32": fp32, "int8": int8, "approximate": approximate}
    return CostFigures(
        unit="pJ",
        values=totals,
        split={name: {"multiplications": 0.9 * total, "additions": 0.1 * total} for name, total in totals.items()},
        apart={name: {"memory": 7.0 * total} for name, total in totals.items()},
    )


def architecture(operation: str = "skip_connect", multiplier: str | None = None) -> CellArchitecture:
    """Two cells of one node, which adds ``operation`` of the one input and a pooling of the other."""
    node = [[0, operation, multiplier], [1, "max_pool_3x3", None]]
    cells = [{"reduction": reduction, "multiplier": multiplier, "nodes": [node]} for reduction in (False, True)]
    scope = "all" if multiplier else "separable"
    return CellArchitecture.from_json({"space": "cells", "scope": scope, "multiplier": multiplier, "cells": cells})


def layer(name: str, multiplier: str | None, fp32: float, int8: float, approximate: float, macs: int = 10) -> dict:
    """A layer in its JSON form."""
    return asdict(Layer(name, multiplier, {"fp32": fp32, "int8": int8, "approximate": approximate}, "conv", macs))


def finalist(validation=0.9, fp32=0.99, int8=0.95, approximate=0.94, pj=150.0, **changes) -> dict:
    """A finalist, in its JSON form, of two layers, one on a multiplier, which add up to its energy under horowitz45."""
    made = architecture("sep_conv_3x3", "mul8s_1KV8")
    whole = Finalist(
        architecture=made.to_json(),
        key=made.key,
        summary=made.short(),
        params=1234,
        macs=56789,
        accuracy=Accuracy(validation, {"fp32": fp32, "int8": int8, "approximate": approximate}),
        costs={"horowitz45": energies(1000.0, 200.0, pj), "approxdarts": energies(800.0, 400.0, 2 * pj)},
    )
    sums = min(50.0, pj / 2)
    layers = [
        layer("stem.conv", "mul8s_1KV8", 900.0, 150.0, pj - sums, 56789),
        layer("cells.0.sum", None, 100.0, 50.0, sums, 0),
    ]
    return asdict(whole) | {"layers": layers} | changes


def moment(mark: int, seconds: float, *front: tuple[float, float]) -> dict:
    """The judged front, (validation error, pJ), after so many device-seconds of search, in its JSON form."""
    return asdict(Moment(seconds, 0.5, front, mark, 3 * mark))


def record(*finalists: dict, method="random", seed=0, digest="a" * 64, **changes) -> dict:
    """A valid record, in its JSON form: 36, 72, 360 and 3.6 device-seconds in the four stages; the reference energy is
    1,000 pJ."""
    seconds = {"search": 36.0, "selection": 72.0, "final": 360.0, "test": 3.6}
    whole = Record(
        method=method,
        method_config={"samples": 12},
        space="cells",
        dataset="digits",
        dataset_origin="UCI digits",
        dataset_fingerprint="f" * 64,
        seed=seed,
        protocol=ProtocolUsed("quick", digest),
        scope="all",
        multiplier_choice="edge",
        cost="horowitz45",
        multipliers=("mul8s_1KV8",),
        snapshots=1,
        command=f"python -m evaluation.run --method {method}, --seed {seed}",
        device=Device("cpu", "a | processor"),
        ledger={stage: LedgerRow(s, s) for stage, s in seconds.items()},
        reference_cost=1000.0,
        hypervolume=0.1 + 0.2,  # 0.30000000000000004: must survive the CSV file
        evaluations=12,
        cache_hits=0,
        finalists=(),
    )
    moments = [moment(1, 18.0, (0.4, 300.0)), moment(2, 36.0, (0.1, 300.0), (0.4, 150.0))]
    return whole.to_json() | {"anytime": moments, "finalists": list(finalists or [finalist()])} | changes


def other_kind(**changes) -> dict:
    """A record whose search was guided by another cost, and whose finalist was tested in a fourth arithmetic, too."""
    values = {"fp32": 4000.0, "int8": 4000.0, "approximate": 2000.0, "ternary": 500.0}
    costs = {"macs": asdict(CostFigures("MAC", values, {name: {"shifts": value} for name, value in values.items()}))}
    accuracy = asdict(Accuracy(0.9, {"fp32": 0.99, "int8": 0.95, "approximate": 0.94, "ternary": 0.6}))
    layers = [asdict(Layer("stem.conv", "mul8s_1KV8", values, "conv", 10))]
    one = finalist(accuracy=accuracy, costs=costs, layers=layers)
    front = [moment(1, 36.0, (0.1, 2000.0))]
    return record(one, cost="macs", reference_cost=4000.0, anytime=front, **changes)


def history(epochs: int = 3) -> list[dict]:
    """Epochs of a supernet with two operations and one circuit, whose probabilities move in steps of 0.1."""
    return [
        {
            "step": epoch + 1,
            "stage": "search",
            "device_seconds": 12.0 * (epoch + 1),
            "validation_error": 0.9 - 0.1 * epoch,
            "cost": 300.0,
            "hypervolume": None,
            "diagnostics": {
                "alpha/normal/skip_connect": 0.5 + 0.1 * epoch,
                "alpha/normal/sep_conv_3x3": 0.5 - 0.1 * epoch,
                "alpha/reduction/skip_connect": 0.5,
                "alpha/reduction/sep_conv_3x3": 0.5,
                "beta/mul8s_1KV8": 1.0,
                "alpha_entropy": 1.0 - 0.1 * epoch,
                "beta_entropy": 0.0,
                "skips_normal": epoch,
                "skips_reduction": 0,
            },
        }
        for epoch in range(epochs)
    ]


def save(folder: Path, content: dict | str, lines: list[dict] | None = None) -> Path:
    """A run folder with ``content`` as its record and ``lines`` as its history. Returns the folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "record.json").write_text(content if isinstance(content, str) else json.dumps(content))
    if lines is not None:
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


DAMAGE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
    st.sampled_from([10**99, 10**400, -1, 0, 1e308, "\ud800", "a\nb"]),
    st.lists(st.integers() | st.text() | st.none(), max_size=2), st.dictionaries(st.text(), st.integers(), max_size=2),
)  # fmt: skip


def damaged(draw: Callable, whole: dict) -> dict:
    """A copy in which something drawn, leaf or branch, is another thing or gone."""
    made = copy.deepcopy(whole)
    node, keys = made, list(made)
    while True:
        key = draw(st.sampled_from(keys))
        inner = node[key]
        if not (isinstance(inner, dict | list) and inner) or draw(st.integers(0, 5)) == 0:
            break
        node, keys = inner, list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    if draw(st.integers(0, 4)) == 0:
        del node[key]
    else:
        node[key] = draw(DAMAGE)
    return made


def many_runs(parent: Path, count: int) -> None:
    """``count`` run folders: the real records in turn, each with another seed, other numbers and other architectures."""
    originals = sorted(RECORDS.glob("*/record.json"))
    rng = random.Random(0)
    for number in range(count):
        file = originals[number % len(originals)]
        made = _varied(read_record(file), number, rng)
        log = file.with_name("history.jsonl")
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else None
        save(parent / f"run{number:03}", made.to_json(), lines)


def _varied(original: Record, seed: int, rng: random.Random) -> Record:
    ledger = {
        stage: replace(row, device_seconds=row.device_seconds * rng.uniform(0.9, 1.1))
        for stage, row in original.ledger.items()
    }
    anytime = tuple(
        replace(m, front=tuple((min(1.0, e * rng.uniform(0.9, 1.1)), pj * rng.uniform(0.9, 1.1)) for e, pj in m.front))
        for m in original.anytime
    )
    finalists = tuple(_varied_finalist(one, rng) for one in original.finalists)
    return replace(original, seed=seed, ledger=ledger, anytime=anytime, finalists=finalists)


def _varied_finalist(one: Finalist, rng: random.Random) -> Finalist:
    tested = {
        name: None if share is None else min(1.0, share * rng.uniform(0.97, 1.03))
        for name, share in one.accuracy.test.items()
    }
    one = replace(one, accuracy=replace(one.accuracy, test=tested))
    if one.architecture["space"] != "cells":
        return one
    varied = _other_operations(one.architecture, rng)
    return replace(one, architecture=varied.to_json(), key=varied.key, summary=varied.short())


def _other_operations(data: dict, rng: random.Random) -> CellArchitecture:
    data = copy.deepcopy(data)
    for cell in data["cells"]:
        for node in cell["nodes"]:
            for edge in node:
                edge[1] = rng.choice(CHOSEN_OPERATIONS)
                edge[2] = data["multiplier"] or "mul8s_1KV8"  # dropped where it governs nothing
    return CellArchitecture.from_json(data)
