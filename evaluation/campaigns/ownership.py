"""One campaign per folder: a file says which process owns it, and its age that the process is alive.

A dead owner on this machine is known to be dead, and its folder taken over. One on another machine is not: after a time
without a heartbeat, --take-over does it.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spaces.errors import InputError
from spaces.files.schema import typed

OWNER = "owner.json"
HEARTBEAT = 10.0  # seconds between two
SILENT = 120.0  # seconds without one, after which an owner elsewhere may be dead


@dataclass(frozen=True)
class Owner:
    """A process on a machine since its last start."""

    pid: int
    started: str  # by the machine's clock: a pid is used again
    host: str
    boot: str

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        return cls(os.getpid(), _started(os.getpid()), socket.gethostname(), _boot())

    @property
    def on_this_machine(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Of an owner on this machine."""
        if self.boot != _boot():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _started(self.pid) == self.started


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _started(pid: int) -> str:
    """When a process was started, in ticks since boot; "" where the system does not tell."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    return ""


@contextmanager
def owned(folder: Path, take_over: bool = False) -> Iterator[None]:
    """Own a campaign's folder. Raises InputError where another process does, or may do."""
    folder.mkdir(parents=True, exist_ok=True)
    file, me = folder / OWNER, Owner.here()
    _acquire(file, me, take_over)
    left = threading.Event()
    thread = threading.Thread(target=_beat, args=(file, me, left), daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
        if _read(file) == me:
            file.unlink(missing_ok=True)


def _acquire(file: Path, me: Owner, take_over: bool) -> None:
    for _ in range(3):
        try:
            _create(file, me)
            return
        except FileExistsError:
            owner, seen = _read(file), _last_seen(file)
        if seen is None:
            continue  # it has just left
        _require_dead(file, owner, time.time() - seen, take_over)
        # Only one process can rename a file away: of two that take over, the other one finds the new owner.
        with contextlib.suppress(FileNotFoundError):
            old = file.with_name(f".{OWNER}.{os.getpid()}")
            if _last_seen(file) == seen:
                file.rename(old)
                old.unlink()
    raise InputError(f"{file.parent} is being taken by other processes; look which, and try again")


def _require_dead(file: Path, owner: Owner | None, silent: float, take_over: bool) -> None:
    who = "an unknown process" if owner is None else f"process {owner.pid} on {owner.host}"
    if owner is not None and owner.on_this_machine:
        if owner.alive:
            raise InputError(f"{file.parent} is in use by {who}; wait for it, or end it with: kill {owner.pid}")
        return
    if silent < SILENT:
        raise InputError(
            f"{file.parent} is in use by {who}, last heard of {silent:.0f} s ago; one that is silent for {SILENT:.0f} s "
            "can be replaced with --take-over"
        )
    if not take_over:
        raise InputError(
            f"{file.parent} is owned by {who}, which has been silent for {silent / 60:.0f} minutes; if it is dead, go on "
            "with --take-over"
        )


def _create(file: Path, me: Owner) -> None:
    with open(file, "x", encoding="utf-8") as opened:  # noqa: PTH123
        json.dump(asdict(me), opened)


def _read(file: Path) -> Owner | None:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return typed(content, Owner)
    except (OSError, ValueError):
        return None


def _last_seen(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def _beat(file: Path, me: Owner, left: threading.Event) -> None:
    """Touch the file from time to time. Where another process has taken it over, this one must end: at once."""
    while not left.wait(HEARTBEAT):
        if _read(file) != me:
            os.write(2, f"error: {file.parent} was taken over by another process; this one ends\n".encode())
            os._exit(2)
        with contextlib.suppress(OSError):
            os.utime(file)
