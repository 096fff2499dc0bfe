"""Run folders for the tests of reports: small ones made by hand, and many made from the real records of this project."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from spaces.cells.architecture import CHOSEN_OPERATIONS, CellArchitecture

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "reports" / "records"
NAN = float("nan")


def energies(fp32: float, int8: float, approximate: float) -> dict:
    """One accounting of a finalist; a tenth of every total is additions, memory is seven times the total."""
    totals = {"fp32": fp32, "int8": int8, "approximate": approximate}
    return {
        **{f"{name}_pj": total for name, total in totals.items()},
        "saving_vs_fp32": 1 - approximate / fp32,
        "saving_vs_int8": 1 - approximate / int8,
        "split": {
            name: {"multiplications_pj": 0.9 * total, "additions_pj": 0.1 * total, "memory_pj": 7.0 * total}
            for name, total in totals.items()
        },
    }


def architecture(operation: str = "skip_connect", multiplier: str | None = None) -> CellArchitecture:
    """Two cells of one node, which adds ``operation`` of the one input and a pooling of the other."""
    node = [[0, operation, multiplier], [1, "max_pool_3x3", None]]
    cells = [{"reduction": reduction, "multiplier": multiplier, "nodes": [node]} for reduction in (False, True)]
    scope = "all" if multiplier else "separable"
    return CellArchitecture.from_json({"space": "cells", "scope": scope, "multiplier": multiplier, "cells": cells})


def layer(name: str, multiplier: str | None, fp32: float, int8: float, approximate: float, macs: int = 10) -> dict:
    totals = {"fp32_pj": fp32, "int8_pj": int8, "approximate_pj": approximate}
    return {"name": name, "kind": "conv", "multiplier": multiplier, "macs": macs, **totals}


def finalist(validation=0.9, fp32=0.99, int8=0.95, approximate=0.94, pj=150.0, **changes) -> dict:
    """A finalist of two layers, one on a circuit, which add up to its energy under horowitz45."""
    made = architecture("sep_conv_3x3", "mul8s_1KV8")
    return {
        "architecture": made.to_json(),
        "key": made.key,
        "summary": made.short(),
        "params": 1234,
        "macs": 56789,
        "accuracy": {"validation": validation, "test": {"fp32": fp32, "int8": int8, "approximate": approximate}},
        "energy": {"horowitz45": energies(1000.0, 200.0, pj), "approxdarts": energies(800.0, 400.0, 2 * pj)},
        "layers": [
            layer("stem.conv", "mul8s_1KV8", 900.0, 150.0, pj - 50.0, 56789),
            layer("cells.0.sum", None, 100.0, 50.0, 50.0, 0),
        ],
        **changes,
    }


def moment(mark: int, seconds: float, *front: tuple[float, float]) -> dict:
    """The judged front, (validation error, pJ), after so many device-seconds of search."""
    points = [list(point) for point in front]
    return {"mark": mark, "device_seconds": seconds, "evaluations": 3 * mark, "hypervolume": 0.5, "front": points}


def record(*finalists: dict, method="random", seed=0, digest="a" * 64, **changes) -> dict:
    """A valid record: 36, 72, 360 and 3.6 device-seconds in the four stages; the reference energy is 1,000 pJ."""
    seconds = {"search": 36.0, "selection": 72.0, "final": 360.0, "test": 3.6}
    return {
        "schema": 2,
        "status": "complete",
        "method": method,
        "method_config": {"samples": 12},
        "space": "cells",
        "dataset": "digits",
        "dataset_origin": "UCI digits",
        "dataset_fingerprint": "f" * 64,
        "seed": seed,
        "protocol": {"name": "quick", "hash": digest},
        "scope": "all",
        "multiplier_choice": "edge",
        "energy_model": "horowitz45",
        "multipliers": ["mul8s_1KV8"],
        "budget": "",
        "snapshots": 1,
        "command": f"python -m evaluation.run --method {method}, --seed {seed}",
        "device": {"type": "cpu", "name": "a | processor", "count": 1},
        "ledger": {stage: {"device_seconds": s, "wall_seconds": s} for stage, s in seconds.items()},
        "reference_pj": 1000.0,
        "hypervolume": 0.1 + 0.2,  # 0.30000000000000004: must survive the CSV file
        "anytime": [moment(1, 18.0, (0.4, 300.0)), moment(2, 36.0, (0.1, 300.0), (0.4, 150.0))],
        "evaluations": 12,
        "cache_hits": 0,
        "finalists": list(finalists or [finalist()]),
        "failures": [],
        **changes,
    }


def history(epochs: int = 3) -> list[dict]:
    """Epochs of a supernet with two operations and one circuit, whose probabilities move in steps of 0.1."""
    return [
        {
            "step": epoch + 1,
            "stage": "search",
            "device_seconds": 12.0 * (epoch + 1),
            "validation_error": 0.9 - 0.1 * epoch,
            "energy_pj": 300.0,
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
        made = _varied(json.loads(file.read_text(encoding="utf-8")), number, rng)
        log = file.with_name("history.jsonl")
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else None
        save(parent / f"run{number:03}", made, lines)


def _varied(original: dict, seed: int, rng: random.Random) -> dict:
    made = copy.deepcopy(original) | {"seed": seed}
    for stage in made["ledger"].values():
        stage["device_seconds"] *= rng.uniform(0.9, 1.1)
    for moment_ in made["anytime"]:
        moment_["front"] = [
            [min(1.0, e * rng.uniform(0.9, 1.1)), pj * rng.uniform(0.9, 1.1)] for e, pj in moment_["front"]
        ]
    for one in made["finalists"]:
        tested = one["accuracy"]["test"]
        for name in [name for name, share in tested.items() if share is not None]:
            tested[name] = min(1.0, tested[name] * rng.uniform(0.97, 1.03))
        if one["architecture"]["space"] == "cells":
            varied = _other_operations(one["architecture"], rng)
            one |= {"architecture": varied.to_json(), "key": varied.key, "summary": varied.short()}
    return made


def _other_operations(data: dict, rng: random.Random) -> CellArchitecture:
    data = copy.deepcopy(data)
    for cell in data["cells"]:
        for node in cell["nodes"]:
            for edge in node:
                edge[1] = rng.choice(CHOSEN_OPERATIONS)
                edge[2] = data["multiplier"] or "mul8s_1KV8"  # dropped where it governs nothing
    return CellArchitecture.from_json(data)
