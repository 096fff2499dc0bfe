"""Checks, and the rows of the table that sum them up: run in order, until the time is used up."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from evaluation.training import memory

ENVIRONMENT, EXACTNESS, AGREEMENT, TRAINING, SPEED = "environment", "exactness", "agreement", "training", "speed"
SECTIONS = (ENVIRONMENT, EXACTNESS, AGREEMENT, TRAINING, SPEED)  # in the order in which they run


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    failure: str = ""  # what is wrong; '' for nothing
    note: str = ""  # what a person wants to know of it besides
    values: dict[str, Any] = field(default_factory=dict)  # for the JSON


@dataclass(frozen=True)
class Check:
    """One thing to try. Those with the same section and row are summed up in one row of the table."""

    section: str
    row: str
    work: Callable[[], Outcome]


@dataclass
class Row:
    """All checks of one kind."""

    section: str
    name: str
    done: int = 0
    left_out: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """One or two words for the table."""
        if self.failures:
            return "FAILED"
        if not self.done:
            return "left out"
        return "in part" if self.left_out else "ok"


def run_checks(
    checks: Iterable[Check],
    deadline: float | None = None,
    watch: Callable[[Check], None] = lambda _: None,
) -> list[Row]:
    """Run them one after the other, none after ``deadline`` (of ``time.perf_counter``), and sum them up.

    ``watch`` gets every check before it runs. A check that raises has failed.
    """
    rows: dict[tuple[str, str], Row] = {}
    for check in checks:
        row = rows.setdefault((check.section, check.row), Row(check.section, check.row))
        if deadline is not None and time.perf_counter() > deadline:
            row.left_out += 1
            continue
        watch(check)
        outcome = _outcome(check)
        row.done += 1
        row.note = outcome.note or row.note
        row.values.update(outcome.values)
        if outcome.failure:
            row.failures.append(outcome.failure)
    return list(rows.values())


def _outcome(check: Check) -> Outcome:
    try:
        return check.work()
    except Exception as error:  # whatever it is: the other checks still tell something
        if check.section == SPEED and memory.is_full(error):  # a small GPU is not a wrong one
            return Outcome(note="not measured in part: memory is full")
        reason = (str(error).splitlines() or [""])[0]
        return Outcome(f"{check.section}, {check.row}: {type(error).__name__}: {reason}")
