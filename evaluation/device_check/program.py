"""The check from beginning to end: all sections, shown as they run."""

import contextlib
import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from evaluation.device_check import agreement, environment, exactness, report, speed, steps
from evaluation.device_check.checks import Check, Row, run_checks
from spaces.errors import disk_errors_as_input_errors
from spaces.files.saving import save_json

EXACTNESS_SHARE = 0.6  # of the time: kernels that have yet to be compiled must not take it all
QUIET_SECONDS = 10.0  # between lines of progress where no terminal can overwrite them


def run(device: torch.device, quick: bool = False, budget: float | None = None, json: Path | None = None) -> int:
    """Check the device, show what was found, write it to ``json``; returns the exit code, 1 if anything is wrong.

    ``budget`` in seconds: checks that have not begun by then are left out.
    """
    console, began = report.wide(Console()), time.perf_counter()
    times = speed.Times(device, quick)
    rows: list[Row] = []
    with warnings.catch_warnings(), _progress() as watch:
        warnings.simplefilter("ignore")  # what they say of engines is in the table
        for share, checks in parts(device, quick, times):
            rows += run_checks(checks, None if budget is None else began + share * budget, watch)
            if json is not None:  # after exactness, too: it stays if the rest is ended from outside
                with disk_errors_as_input_errors():
                    save_json(json, report.as_json(rows, times, quick, time.perf_counter() - began))
    seconds = time.perf_counter() - began
    report.show(console, rows, times, seconds)
    return 1 if any(row.failures for row in rows) else 0


def parts(device: torch.device, quick: bool, times: speed.Times) -> list[tuple[float, Iterator[Check]]]:
    """Checks in the order of their worth, and the share of the time by which the last of each part must have begun."""
    exact = itertools.chain(environment.checks(device), exactness.checks(device, quick))
    rest = itertools.chain(agreement.checks(device), steps.checks(device), speed.checks(times))
    return [(EXACTNESS_SHARE, exact), (1.0, rest)]


@contextlib.contextmanager
def _progress() -> Iterator:
    """A live line on a terminal, a line now and then elsewhere; on standard error."""
    console = Console(stderr=True)
    count, last = 0, time.monotonic()

    with contextlib.ExitStack() as stack:
        status = stack.enter_context(console.status("")) if console.is_terminal else None

        def watch(check: Check) -> None:
            nonlocal count, last
            count += 1
            line = f"{check.section}: {check.row} (check {count})"
            if status is not None:
                status.update(line)
            elif time.monotonic() - last > QUIET_SECONDS:
                last = time.monotonic()
                console.print(f"  {line}", highlight=False, markup=False)

        yield watch
