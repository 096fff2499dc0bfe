"""What a worker does, wherever it is: set itself up by a recipe, then turn jobs into results."""

import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

from evaluation.searching.executors.executor import Recipe
from evaluation.searching.executors.fingerprint import fingerprint
from evaluation.searching.executors.pool import Done, Ready, Refused
from spaces.errors import InputError


class Server:
    """The work of one worker."""

    def __init__(self) -> None:
        self.work: Callable[[Any], Any] | None = None

    def set_up(self, recipe: Callable[[], Recipe], number: int, expected: str) -> Ready | Refused:
        """Get ready for the work of a recipe, whose results depend on the version: ``expected`` is its fingerprint."""
        if fingerprint() != expected:
            message = (
                f"a worker on {socket.gethostname()} has another version of the suite, or other tables, than the process "
                "that wants it; install the same on all nodes, and if files were changed here meanwhile, go on with --resume"
            )
            return Refused(message, is_input=True)
        return _answer(lambda: self._set_up(recipe(), number))

    def _set_up(self, recipe: Recipe, number: int) -> Ready:
        self.work = recipe.work(number)
        return Ready()

    def do(self, job: Callable[[], Any]) -> Done | Refused:
        """The result of a job, which is unpacked here."""
        return _answer(lambda: self._do(job()))

    def _do(self, job: Any) -> Done:
        assert self.work is not None, "a worker is set up before its first job"
        began = time.perf_counter()
        result = self.work(job)
        return Done(result, time.perf_counter() - began)


def _answer(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except InputError as error:
        return Refused(str(error), is_input=True)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return Refused(f"a worker failed ({what})\n{traceback.format_exc()}", is_input=False)
