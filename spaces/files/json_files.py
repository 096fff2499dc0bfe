"""JSON that somebody hands in: bounded in size, depth and digits, and only what JSON itself allows."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from spaces.errors import InputError
from spaces.files.reading import parsing, read_bytes

LARGEST = 64 << 20  # bytes of a file
DEEPEST = 100  # levels of lists and objects
WIDEST = 1 << 64  # of a whole number


def read_json(path: Path, advice: str = "; restore it or start a new run") -> Any:
    """Raises InputError that names the file when it is missing, too large or not JSON."""
    return parse_json(read_bytes(path, LARGEST), path, advice)


def parse_json(content: bytes | str, where: object, advice: str = "") -> Any:
    """The value. Raises InputError for NaN and infinities, numbers beyond 64 bits and what is nested too deeply."""
    with parsing(where, "is damaged", advice):
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = _DECODER.decode(text)
        _refuse_depth(value)
    return value


def is_json_object(line: bytes) -> bool:
    """Whether ``parse_json`` gives an object."""
    try:
        return isinstance(parse_json(line, ""), dict)
    except InputError:
        return False


def _integer(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= WIDEST:
        raise ValueError(f"a whole number of {len(text)} digits")
    return number


def _real(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=_no_number)


def _refuse_depth(value: Any) -> None:
    """Level by level, so that no depth is too much for it."""
    level = [value]
    for _ in range(DEEPEST):
        level = (
            [
                part
                for node in level
                for part in (node.values() if isinstance(node, dict) else node)
                if isinstance(part, (dict, list))
            ]
            if isinstance(value, (dict, list))
            else []
        )
        if not level:
            return
    raise ValueError(f"nested more than {DEEPEST} levels deep")
