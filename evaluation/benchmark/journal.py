"""Files of JSON objects, one a line, to which lines are added as work gets done."""

from pathlib import Path

from spaces.errors import InputError
from spaces.files.json_files import is_json_object
from spaces.files.reading import read_bytes

LARGEST = 1 << 30  # bytes


def whole_lines(path: Path, kind: str) -> tuple[list[bytes], bool]:
    """The lines of a file, none where it is not there, and whether a part of one more follows: that of a killed process.

    Raises InputError where the file is somebody else's, and so must be kept: it is no ``kind``.
    """
    lines = read_bytes(path, LARGEST).splitlines(keepends=True) if path.exists() else []
    torn = bool(lines) and not lines[-1].endswith(b"\n")
    if torn and (len(lines) > 1 or lines[0].startswith(b"{")):
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not is_json_object(line):
            raise InputError(f"{path} is no {kind} (line {number}); move it away, or choose another file")
    return lines, torn
