"""An object that several processes of one machine unpack, whose arrays they share: one copy in memory, mapped by all.

The arrays lie in a file without a name, which is gone when the last process that has it open ends, however it ends.
"""

import mmap
import pickle
import tempfile
from multiprocessing import reduction
from typing import Any

ALIGNMENT = 64  # bytes


class Shared:
    """``value``, to be given to processes that multiprocessing spawns, and unpacked there once, by ``load``."""

    def __init__(self, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self.content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        self.spans: list[tuple[int, int]] = []
        self.file: Any = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as workers are started
        try:
            for buffer in buffers:
                start = -(-self.file.tell() // ALIGNMENT) * ALIGNMENT
                self.file.seek(start)
                self.spans.append((start, self.file.write(buffer.raw())))
            self.file.flush()
        except OSError as error:
            error.filename = tempfile.gettempdir()  # it has no name of its own
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {"content": self.content, "spans": self.spans, "file": reduction.DupFd(self.file.fileno())}

    def load(self) -> Any:
        """The value, in another process. What it writes to its arrays, no other one sees."""
        if not self.spans:
            return pickle.loads(self.content)  # noqa: S301 -- of the process that started this one
        with open(self.file.detach(), "rb") as file:  # noqa: PTH123
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return pickle.loads(self.content, buffers=[whole[start : start + size] for start, size in self.spans])  # noqa: S301

    def close(self) -> None:
        self.file.close()
