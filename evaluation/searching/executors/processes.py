"""Workers that are processes of this machine: spawned, set up once, and gone when this process is, however that ends."""

import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from typing import Any, NoReturn

from evaluation.searching.executors.executor import Limits, Recipe
from evaluation.searching.executors.fingerprint import fingerprint
from evaluation.searching.executors.pool import Died, Done, Pool, Ready, Refused
from evaluation.searching.executors.serving import Server
from evaluation.searching.executors.shared_bytes import Shared
from evaluation.settings.config import Place
from spaces import stopping
from spaces.errors import InputError


def processes(work: Callable[[Any], Any], recipe: Recipe, limits: Limits, place: Place) -> Pool:  # noqa: ARG001
    """The executor. Raises InputError on Windows, which cannot hand open files to a process."""
    return Pool(ProcessWorkers(recipe, place.workers or usable_cores()), limits)


def usable_cores() -> int:
    """Of this process, which may be confined to a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessWorkers:
    """See ``pool.Workers``."""

    def __init__(self, recipe: Recipe, count: int, has_children: bool = False) -> None:
        if sys.platform == "win32":
            raise InputError("--executor processes does not run on Windows; use serial or ray")
        self.recipe, self.count, self.has_children = recipe, count, has_children
        self.shared: Shared | None = None

    def start(self, number: int) -> "ProcessWorker":
        if self.shared is None:
            self.shared = Shared(self.recipe)
        return ProcessWorker(self.shared, number, self.has_children)

    def wait(self, workers: Sequence["ProcessWorker"], seconds: float | None) -> list["ProcessWorker"]:
        ready = connection.wait([worker.connection for worker in workers], seconds)
        return [worker for worker in workers if worker.connection in ready]

    def close(self) -> None:
        if self.shared is not None:
            self.shared.close()
            self.shared = None


class ProcessWorker:
    """See ``pool.Worker``. The end of its process shows as the end of its connection."""

    def __init__(self, shared: Shared, number: int, has_children: bool) -> None:
        context = multiprocessing.get_context("spawn")
        with stopping.postponed(), _stops_blocked():  # a process that was begun is one that can be ended
            self.connection, theirs = context.Pipe()
            self.process = context.Process(
                target=_serve, args=(theirs, shared, number, fingerprint()), daemon=not has_children
            )
            self.process.start()
            theirs.close()

    def send(self, job: Any) -> None:
        try:
            # Not by ``connection.send``: torch would lend its tensors' memory instead of sending it.
            self.connection.send_bytes(pickle.dumps(job, protocol=5))
        except OSError as error:
            raise Died(self._why()) from error

    def answers(self) -> bool:
        return self.process.is_alive()

    def receive(self) -> Ready | Done | Refused:
        try:
            return pickle.loads(self.connection.recv_bytes())  # noqa: S301 -- of a process that this one started
        except (EOFError, OSError) as error:
            raise Died(self._why()) from error

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _why(self) -> str:
        self.process.join(5)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
            likely = ", as by a system that runs out of memory" if name == "SIGKILL" else ""
            return f"its worker was ended by {name}{likely}"
        return f"its worker ended with exit code {code}"


@contextmanager
def _stops_blocked() -> Iterator[None]:
    """What is started inside begins with stops blocked: a Ctrl-C goes to all processes of a terminal, and one that is
    still importing modules would answer with a traceback.
    """
    resource_tracker.ensure_running()  # would be started inside, and unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(theirs: connection.Connection, shared: Shared, number: int, expected: str) -> None:
    """The life of a worker."""
    for stop in stopping.STOPS:  # a Ctrl-C goes to all processes of a terminal; the first one ends the others
        signal.signal(stop, signal.SIG_IGN if stop != signal.SIGTERM else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.STOPS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server = Server()
    answer: Ready | Done | Refused = server.set_up(shared.load, number, expected)
    while True:
        theirs.send_bytes(pickle.dumps(answer, protocol=5))
        try:
            content = theirs.recv_bytes()
        except EOFError:
            return
        answer = server.do(functools.partial(pickle.loads, content))


def _end_with_parent() -> NoReturn:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
