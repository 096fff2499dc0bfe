"""The one way to open a file that somebody hands in, and the one error for all that can be wrong with it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from spaces.errors import InputError
from spaces.files.untrusted_text import shortened

LONGEST_REASON = 300  # characters of what a library says of a file


@contextmanager
def parsing(where: object, what: str, advice: str = "") -> Iterator[None]:
    """Around the parser of foreign bytes: whatever it raises becomes InputError that names the file.

    Parsers fail in more ways than they declare, memory and recursion among them. ``what`` says what the file should be,
    ``advice`` what to do. The block holds nothing but parsing, lest a defect of ours be taken for one of the file.
    """
    try:
        yield
    except Exception as error:
        if (
            type(error).__name__ == "OutOfMemoryError"
        ):  # torch's, of a GPU that a state is loaded to: no fault of the file
            raise
        if isinstance(error, OSError) and error.strerror:  # of the disk; those of decompressors have none
            raise InputError(f"cannot read '{error.filename or where}': {error.strerror}") from None
        if isinstance(error, InputError) and str(where) in str(error):
            raise
        reason = shortened(str(error).partition("\n")[0], LONGEST_REASON) or type(error).__name__
        raise InputError(f"{where} {what} ({reason}){advice}") from None


def open_file(path: Path) -> BufferedReader:
    """The regular file at ``path``, or at the end of a link, for reading.

    A pipe or a device may have no end, so that its kind is looked at once it is open, which does not wait for anyone.
    Raises InputError for anything else and for what cannot be opened.
    """
    handle, _ = _opened(path)
    return os.fdopen(handle, "rb")


def _opened(path: Path) -> tuple[int, int]:
    """Its descriptor and its size."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        about = os.fstat(handle)
    except FileNotFoundError:
        raise InputError(f"'{path}' does not exist") from None
    except (OSError, ValueError) as error:  # a name may hold what no name can
        raise InputError(f"cannot read '{path}': {getattr(error, 'strerror', error)}") from None
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise InputError(f"'{path}' is {kind}, not a file")
    return handle, about.st_size


def read_bytes(path: Path, most: int) -> bytes:
    """The whole file. Raises InputError where ``open_file`` does, and above ``most`` bytes."""
    handle, size = _opened(path)
    try:
        parts, left, next_size = [], most + 1, size + 1  # one more, so that the end is seen at once
        while size <= most and left and (part := os.read(handle, min(left, next_size))):
            parts.append(part)
            left -= len(part)
            next_size = 1 << 20
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    finally:
        with suppress(OSError):
            os.close(handle)
    if size > most or not left:
        raise InputError(f"{path} is too large: such a file has at most {most:,} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_text(path: Path, most: int) -> str:
    """The whole file as UTF-8, without a mark of byte order. Raises InputError as ``read_bytes``, and for other bytes."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
