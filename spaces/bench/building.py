"""What a bench network costs, and which weights a child's network can start from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from spaces.bench.architecture import BenchArchitecture
from spaces.costs.trace import LayerCost, trace
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

MOST_KEPT = 10_000  # topologies
Traced = dict[tuple[Any, ...], list[tuple[LayerCost, int | None]]]  # by topology: every row, and the step that it is of


def costs(
    architecture: BenchArchitecture,
    shape: NetworkShape,
    multiplier: Callable[[str], Multiplier],
    build: Callable[[], nn.Module],
    traced: Traced,
) -> list[LayerCost]:
    """See ``BenchSpace.costs``. ``build`` makes the network in fp32; ``traced`` holds what was traced already."""
    steps, output = architecture.program
    topology = (shape, output, *((step.operation, step.reads) for step in steps))
    if topology not in traced:
        if len(traced) >= MOST_KEPT:
            traced.clear()
        traced[topology] = _trace(build, shape)
    multipliers = [multiplier(step.multiplier) if step.multiplier else None for step in steps]
    outer = multiplier(architecture.outer)
    return [
        row if row.multiplier is None else replace(row, multiplier=outer if step is None else multipliers[step])
        for row, step in traced[topology]
    ]


def _trace(build: Callable[[], nn.Module], shape: NetworkShape) -> list[tuple[LayerCost, int | None]]:
    """Every row, and the step of its cell that it belongs to, if to any."""
    with torch.device("meta"):
        rows = trace(build(), shape.input_shape, integer=True)
    parts = [row.name.split(".") for row in rows]
    return [(row, int(p[3]) if p[0] == "cells" and p[2] == "operations" else None) for row, p in zip(rows, parts)]


def inherited(child: BenchArchitecture, parent: BenchArchitecture, shape: NetworkShape) -> dict[str, str]:
    """See ``BenchSpace.inherited``."""
    modules = {name: name for name in ("stem", "classifier")}
    cells = range(shape.cells)
    modules |= {f"transitions.{cell}": f"transitions.{cell}" for cell in cells}
    theirs = [(step.operation, step.reads) for step in parent.program.steps]
    for mine, step in enumerate(child.program.steps):
        if (step.operation, step.reads) in theirs:
            at = theirs.index((step.operation, step.reads))
            theirs[at] = ("", ())  # once
            modules |= {f"cells.{cell}.operations.{mine}": f"cells.{cell}.operations.{at}" for cell in cells}
    return modules
