"""Arrays of NumPy's files that somebody hands in: headers are bounded, and nothing is ever unpickled."""

import io
import math
import warnings
import zipfile
from pathlib import Path

import numpy as np

from spaces.errors import InputError
from spaces.files.reading import open_file, parsing, read_bytes

LONGEST_HEADER = 1 << 12  # bytes; that of a plain array has 118
MOST_ARRAYS = 10_000  # of one .npz
LARGEST = 256 << 20  # bytes of all arrays of one .npz


def read_array(path: Path, most: int, advice: str = "") -> np.ndarray:
    """The array of a .npy file of up to ``most`` bytes. Raises InputError for anything but plain numbers."""
    return _array(read_bytes(path, most), str(path), advice)


def read_arrays(path: Path, advice: str = "", most: int = LARGEST) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name. Raises InputError as ``read_array``, and above ``most`` bytes in all."""
    found = {}
    with open_file(path) as file, parsing(path, "is damaged", advice), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MOST_ARRAYS or sum(member.file_size for member in members) > most:
            raise InputError(f"{path} unpacks to more than such arrays can have ({most:,} bytes){advice}")
        for member in members:
            name = member.filename.removesuffix(".npy")
            found[name] = _array(archive.read(member), f"its array {name}", "")
    return found


def _array(content: bytes, where: str, advice: str) -> np.ndarray:
    with parsing(where, "is not a NumPy array", advice), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on headers of old versions, which are read all the same
        shape, fortran, dtype, start = _header(content)
    count = math.prod(shape)
    if dtype.kind not in "biuf" or dtype.hasobject or not dtype.itemsize:
        raise InputError(f"{where} holds {dtype}, not plain numbers{advice}")
    if count * dtype.itemsize != len(content) - start:
        size, there = count * dtype.itemsize, len(content) - start
        raise InputError(
            f"{where} is not a NumPy array ({there:,} bytes follow a header that promises {size:,}){advice}"
        )
    array = np.frombuffer(content, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="))  # a copy, which may be written to


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, type, and where the values begin."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    wide = 2 if version == (1, 0) else 4
    if int.from_bytes(content[8 : 8 + wide], "little") > LONGEST_HEADER:
        raise ValueError("its header is too long")
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format {version[0]}.{version[1]} is unknown")
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        raise ValueError("its shape is impossible")
    return shape, fortran, dtype, file.tell()
