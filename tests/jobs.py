"""Recipes for tests of executors; workers import them from here, without torch."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Makes ``act`` the work of a worker."""

    act: Callable[[Any], Any]

    def work(self, number: int) -> Callable[[Any], Any]:  # noqa: ARG002
        return self.act


class Limits:
    """No job may take longer than this."""

    def __init__(self, seconds: float) -> None:
        self.limit = seconds

    def exceeded(self, job: Any, seconds: float) -> bool:  # noqa: ARG002
        return seconds > self.limit

    def note(self, job: Any, result: Any, seconds: float) -> None:
        pass


def act(job: tuple) -> Any:
    """What the job says: ("square", n), ("kill",), ("kill once", file), ("hang",), ("raise", error), ("pid",)."""
    name, *values = job
    if name == "square":
        return values[0] ** 2
    if name == "kill" or (name == "kill once" and not Path(values[0]).exists()):
        if values:
            Path(values[0]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hang":
        time.sleep(1000)
    if name == "raise":
        raise values[0]
    if name == "pid":
        time.sleep(values[0])
        return os.getpid()
    return name
