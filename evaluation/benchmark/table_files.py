"""The file of a table: plain arrays, one of which holds JSON that says what they are. Nothing is unpickled."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.benchmark.header import SCHEMA, Header
from spaces.errors import InputError
from spaces.files.arrays import read_arrays
from spaces.files.json_files import parse_json
from spaces.files.reading import parsing
from spaces.files.saving import save_bytes
from spaces.files.schema import typed
from spaces.registry import architecture_from_json
from spaces.space import Architecture


@dataclass(frozen=True)
class Contents:
    """What the file of a table holds."""

    header: Header
    architectures: Sequence[Architecture]  # that were trained
    arrays: Mapping[str, np.ndarray]
    features: tuple[str, ...] = ()  # of a surrogate: what it predicts from


def write_contents(path: Path, contents: Contents) -> None:
    """Raises OSError."""
    said: dict[str, Any] = asdict(contents.header)
    said["architectures"] = [architecture.to_json() for architecture in contents.architectures]
    if contents.features:
        said["features"] = contents.features
    arrays: dict[str, Any] = dict(contents.arrays)
    written = io.BytesIO()
    np.savez_compressed(written, header=np.frombuffer(json.dumps(said).encode(), np.uint8), **arrays)
    save_bytes(path, written.getvalue())


def read_contents(path: Path, require: Callable[[Contents], None]) -> Contents:
    """Raises InputError for anything but a whole table of this schema, and where ``require`` does."""
    arrays = read_arrays(path)
    with parsing(path, "is no table of trained networks"):
        data = parse_json(arrays.pop("header").tobytes(), path)
        architectures = [architecture_from_json(each) for each in data.pop("architectures")]
        if data.get("schema") != SCHEMA:
            raise InputError(f"its schema is {data.get('schema')}, not {SCHEMA}")
        features = typed(data.pop("features", ()), tuple[str, ...], "features")
        contents = Contents(typed(data, Header), architectures, arrays, features)
        require(contents)
    return contents
