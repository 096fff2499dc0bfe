"""Workers that are actors of a Ray cluster: one that runs already, or one that is started here and ends with this process.

Actors rather than tasks: each is set up once, and this process knows at any time which one has which job. The recipe, with
all images and tables, is in the object store once for every node. Ray is imported when a run asks for it.
"""

import functools
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evaluation.searching.executors.executor import Limits, Recipe
from evaluation.searching.executors.fingerprint import fingerprint
from evaluation.searching.executors.pool import Died, Done, Pool, Ready, Refused
from evaluation.searching.executors.serving import Server
from evaluation.settings.config import Place
from spaces import stopping
from spaces.errors import InputError

TIMEOUT = 10.0  # seconds for a cluster to answer
TOKEN = Path.home() / ".ray" / "auth_token"
PORTS = {"": 6379, "ray": 10001}  # by the scheme of the address, where it names none


def ray_cluster(work: Callable[[Any], Any], recipe: Recipe, limits: Limits, place: Place) -> Pool:  # noqa: ARG001
    """The executor. Raises InputError where Ray is not installed; the cluster is looked for when there is work."""
    return Pool(RayWorkers(recipe, place, _ray(place.ray_address)), limits)


def _ray(address: str = "") -> Any:
    has_token = not address or "RAY_AUTH_TOKEN" in os.environ or TOKEN.exists()  # a cluster here makes one
    if has_token and "ray" not in sys.modules:  # read at the import
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as for clusters that "ray start" starts
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # 15 by default: beside other work, a cluster here would stand still
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # of GPUs nobody asked for; else Ray warns
    try:
        import ray
    except ImportError:
        raise InputError(
            "--executor ray needs Ray, which is not installed: pip install 'approxnas-bench[ray]'"
        ) from None
    return ray


class RayWorkers:
    """See ``pool.Workers``."""

    def __init__(self, recipe: Any, place: Place, ray: Any) -> None:
        self.recipe, self.place, self.ray = recipe, place, ray
        on_gpu = getattr(recipe, "device", "cpu") == "cuda"
        self.needs = {"CPU": place.ray_num_cpus, "GPU": place.ray_num_gpus or float(on_gpu)}

    @functools.cached_property
    def count(self) -> int:
        """As many as were asked for, or as the cluster has room for. Raises InputError where it has too little."""
        self._connect()
        there = self.ray.cluster_resources()
        shares = [math.floor(there.get(kind, 0) / need + 1e-9) for kind, need in self.needs.items() if need > 0]
        room = min(shares, default=max(1, int(there.get("CPU", 1))))
        wanted = self.place.workers or max(1, room)
        if wanted > room:
            raise InputError(
                f"{wanted} worker{'s' * (wanted > 1)} of {self.needs['CPU']:g} CPU cores and {self.needs['GPU']:g} GPUs "
                f"do not fit: the Ray cluster has {there.get('CPU', 0):g} and {there.get('GPU', 0):g}; change --workers, "
                "--ray-num-cpus or --ray-num-gpus"
            )
        return wanted

    @functools.cached_property
    def _stored(self) -> Any:
        try:
            return self.ray.put(self.recipe)
        except self.ray.exceptions.RayError as error:
            raise InputError(f"images and tables cannot be kept in Ray's object store: {_told(error)}") from error

    @functools.cached_property
    def _actor(self) -> Any:
        options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_restarts": 0}
        return self.ray.remote(Actor).options(**options)

    def _connect(self) -> None:
        if self.ray.is_initialized():  # by an earlier run of this process
            return
        address = self.place.ray_address
        _require_answer(address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if address:
            options["address"] = address
        else:
            options |= {"address": "local", "include_dashboard": False}  # whatever RAY_ADDRESS says
        try:
            with _signals_kept():
                self.ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
            raise InputError(
                f"the Ray cluster at '{address or 'this machine'}' cannot be used ({_told(error)}); if it asks for a token, "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN give it one"
            ) from error

    def start(self, number: int) -> "RayWorker":
        return RayWorker(self.ray, self._actor.remote(), [self._stored], number)

    def wait(self, workers: Sequence["RayWorker"], seconds: float | None) -> list["RayWorker"]:
        by_answer = {worker.answer: worker for worker in workers if worker.answer is not None}
        if not by_answer:
            return []
        ready, others = self.ray.wait(list(by_answer), num_returns=1, timeout=seconds, fetch_local=False)
        if ready and others:
            ready += self.ray.wait(others, num_returns=len(others), timeout=0, fetch_local=False)[0]
        return [by_answer[answer] for answer in ready]

    def close(self) -> None:
        """The cluster stays, for a further run of this process."""
        for name in ("_stored", "_actor"):
            self.__dict__.pop(name, None)


class RayWorker:
    """See ``pool.Worker``. ``answer`` refers to what its actor is to say next."""

    def __init__(self, ray: Any, actor: Any, stored: list[Any], number: int) -> None:
        self.ray, self.actor = ray, actor
        self.answer: Any = actor.set_up.remote(stored, number, fingerprint())

    def send(self, job: Any) -> None:
        self.answer = self.actor.do.remote(job)

    def answers(self) -> bool:
        try:
            return self.ray.get(self.actor.answer.remote(), timeout=TIMEOUT)
        except self.ray.exceptions.RayError:  # a time-out is one, too
            return False

    def receive(self) -> Ready | Done | Refused:
        answer, self.answer = self.answer, None
        try:
            return self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            raise Died(_why(error)) from error

    def kill(self) -> None:
        with suppress(Exception):  # the node may be gone, or the whole cluster
            self.ray.kill(self.actor)


class Actor:
    """A worker's side."""

    def __init__(self) -> None:
        self.server = Server()

    def set_up(self, stored: list[Any], number: int, expected: str) -> Ready | Refused:
        """Get ready by the recipe in the object store."""
        import ray

        return self.server.set_up(lambda: ray.get(stored[0]), number, expected)

    def do(self, job: Any) -> Done | Refused:
        """The result of a job."""
        return self.server.do(lambda: job)

    def answer(self) -> bool:
        """A sign of life."""
        return True


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _why(error: Exception) -> str:
    """The reason of an actor's end in one line: Ray tells it in many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    cause = next((line for line in lines if "died" in line.lower() or "memory" in line.lower()), lines[0])
    return f"its Ray worker ended ({type(error).__name__}: {cause[:160]})"


def _require_answer(address: str) -> None:
    """Raises InputError where nothing listens at the address: Ray itself would try for minutes."""
    if address in ("", "auto", "local"):
        return
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":") if ":" in place else (place, "", str(PORTS.get(scheme, 6379)))
    try:
        socket.create_connection((host, int(port)), TIMEOUT).close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"no Ray cluster answers at --ray-address {address} ({why}); start one there with: ray start --head"
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and a stop would be none of ours."""
    before = {number: signal.getsignal(number) for number in stopping.STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError, TypeError):  # not in the main thread, or not set from Python
                signal.signal(number, handler)
