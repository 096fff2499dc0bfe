"""The one way to write a file: whole or not at all, and never cut short by a stop.

What is written is made in memory first. It then goes to a temporary file beside its place, to the disk, and is renamed:
a reader sees the old content or the new, never a part. A stop (see ``spaces.stopping``) waits until that is done.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from spaces import stopping

_open = open  # tests put files in its place that send signals or fail


def save_bytes(path: Path, *parts: bytes | memoryview, shared: bool = False) -> None:
    """Replace the file at ``path`` by the ``parts``, one after the other. Raises OSError, and then leaves it as it was.

    ``shared``: other processes may write the same file at this moment, so that the temporary file is this one's own.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    with stopping.postponed():
        try:
            with _open(temporary, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename, error.filename2 = str(path), None  # the file that was meant
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def save_text(path: Path, text: str) -> None:
    """UTF-8 with the line ends of ``text``. A name from outside need not be valid Unicode."""
    save_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def save_json(path: Path, data: Any, shared: bool = False) -> None:
    """Refuses NaN and infinities, which are no JSON, with ValueError."""
    save_bytes(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode(), shared=shared)


def append_line(path: Path, line: str) -> None:
    """Add a line to the end of a log. A process that is killed meanwhile may leave a part of it."""
    with stopping.postponed(), _open(path, "ab") as file:
        file.write(f"{line}\n".encode())
