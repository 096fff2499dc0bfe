"""One reader and one writer for each file format of truth tables; what the entries mean is settled elsewhere."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spaces.errors import InputError
from spaces.files.arrays import read_array
from spaces.files.reading import read_bytes, read_text
from spaces.files.untrusted_text import shortened
from spaces.multipliers.files.index_order import TWOS_COMPLEMENT, RawTable
from spaces.multipliers.multiplier import SIZE, Multiplier

COUNT = SIZE * SIZE
LARGEST_FILE = 2 << 20  # bytes; the longest table of 65,536 numbers in text is below 1 MiB
_LARGEST = np.iinfo(np.int32).max
# A comment without an end takes all that follows: looking for the end from every beginning would take minutes.
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
# "const int16_t lut [256][256] = {", whatever the name and the sizes are; bounded, so that no text takes long to search.
_ARRAY = re.compile(r"((?:\b\w{1,64}\s{1,64}){1,5})\w{1,64}\s{0,64}(?:\[[^\]]{0,64}\]\s{0,64}){1,3}=\s{0,64}\{")
_WORDS_UNSIGNED = re.compile(r"\buint16_t\b|\bunsigned\s+short\b")
_WORDS_SIGNED = re.compile(r"\bint16_t\b|\bshort\b")


@dataclass(frozen=True)
class Format:
    """``read`` raises InputError for what is no table; ``write`` returns a file's content."""

    read: Callable[[Path], RawTable]
    write: Callable[[Multiplier], bytes]


# -- 16-bit words ------------------------------------------------------------------------------------------------------


def _read_words(path: Path) -> RawTable:
    content = read_bytes(path, LARGEST_FILE)
    if len(content) != 2 * COUNT:
        raise InputError(
            f"{path}: {len(content):,} bytes are {len(content) / 2:,.10g} 16-bit words; a table is {COUNT:,}"
        )
    entries = np.frombuffer(content, "<u2").astype(np.int64).reshape(SIZE, SIZE)
    return RawTable(str(path), entries, words=True)


def _in_words(multiplier: Multiplier) -> np.ndarray:
    """The table in the order of the operands' bytes (int64, 256×256), if each product fits into a 16-bit word."""
    lowest, highest = (-(1 << 15), (1 << 15) - 1) if multiplier.signed else (0, (1 << 16) - 1)
    if multiplier.table.min() < lowest or multiplier.table.max() > highest:
        raise InputError(f"multiplier {multiplier.name}: a product does not fit into 16 bits; write .npy or .txt")
    table = multiplier.table.astype(np.int64)
    return np.roll(table, SIZE // 2, axis=(0, 1)) if multiplier.signed else table


def _write_words(multiplier: Multiplier) -> bytes:
    return (_in_words(multiplier) % (1 << 16)).astype("<u2").tobytes()


# -- NumPy -------------------------------------------------------------------------------------------------------------


def _read_npy(path: Path) -> RawTable:
    array = read_array(path, LARGEST_FILE)
    if array.dtype.kind not in "iu":
        raise InputError(f"{path}: holds {array.dtype}, but the products of a truth table are integers")
    if array.shape not in ((SIZE, SIZE), (COUNT,)):
        shape = "×".join(map(str, array.shape))
        raise InputError(f"{path}: {shape} is {array.size:,} entries; a table is {SIZE}×{SIZE} or {COUNT:,}")
    entries = _entries(path, np.array(array).reshape(SIZE, SIZE))
    return RawTable(str(path), entries, words=array.dtype.itemsize == 2)


def _write_npy(multiplier: Multiplier) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, multiplier.table, allow_pickle=False)
    return buffer.getvalue()


# -- text --------------------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> RawTable:
    lines = (line.partition("#")[0] for line in read_text(path, LARGEST_FILE).splitlines())
    rows = [row for line in lines if (row := re.split(r"[,;\s]+", line.strip(" \t,;"))) != [""]]
    return RawTable(str(path), _numbers(path, rows))


def _write_text(separator: str) -> Callable[[Multiplier], bytes]:
    def write(multiplier: Multiplier) -> bytes:
        rows = multiplier.table.tolist()
        return "".join(separator.join(map(str, row)) + "\n" for row in rows).encode()

    return write


def _read_header(path: Path) -> RawTable:
    text = _COMMENT.sub(" ", read_text(path, LARGEST_FILE))
    arrays = list(_ARRAY.finditer(text))
    if len(arrays) != 1:
        raise InputError(f"{path}: holds {len(arrays)} arrays, not the one 'int16_t lut[256][256] = {{{{…}}, …}};'")
    kind, body = arrays[0][1], text[arrays[0].end() :].partition(";")[0].rstrip().removesuffix("}")
    rows = re.findall(r"\{([^{}]*)\}", body) or [body]
    entries = _numbers(path, [[cell.strip() for cell in row.strip(" \t\r\n,").split(",")] for row in rows])
    unsigned, signed = _WORDS_UNSIGNED.search(kind), _WORDS_SIGNED.search(kind)
    declared = False if unsigned else (True if signed else None)
    return RawTable(str(path), entries, bool(unsigned or signed), declared, TWOS_COMPLEMENT)


def _write_header(multiplier: Multiplier) -> bytes:
    rows = ",\n".join("{" + ", ".join(map(str, row)) + "}" for row in _in_words(multiplier).tolist())
    kind = "int16_t" if multiplier.signed else "uint16_t"
    return f"#include <stdint.h>\n\nconst {kind} lut [{SIZE}][{SIZE}] = {{{rows}}};\n".encode()


def _numbers(path: Path, rows: list[list[str]]) -> np.ndarray:
    """The entries of 256 rows of 256 numbers, or of 65,536 numbers in one row or one column."""
    sizes = {len(row) for row in rows}
    if (len(rows), sizes) not in ((SIZE, {SIZE}), (1, {COUNT}), (COUNT, {1})):
        if (len(rows), sizes) == (SIZE + 1, {SIZE + 1}):
            raise InputError(f"{path}: {SIZE + 1} rows of {SIZE + 1}; leave out the operands beside the table")
        shape = f"{len(rows):,} rows of {sizes.pop():,}" if len(sizes) == 1 else f"{len(rows):,} rows of unequal length"
        count = sum(map(len, rows))
        raise InputError(f"{path}: {shape}, {count:,} entries in all; a table is {SIZE} rows of {SIZE}")
    try:
        numbers = [int(cell) for row in rows for cell in row]
    except ValueError as error:
        cell = re.search(r"'.*'", str(error))
        raise InputError(f"{path}: {shortened(cell[0], 60) if cell else 'an entry'} is not an integer") from None
    return _entries(path, np.array(numbers, dtype=object).reshape(SIZE, SIZE))


def _entries(path: Path, array: np.ndarray) -> np.ndarray:
    if array.max() > _LARGEST or array.min() < -_LARGEST:
        raise InputError(f"{path}: an entry does not fit into 32 bits")
    return array.astype(np.int64)


FORMATS = {
    ".bin": Format(_read_words, _write_words),
    ".npy": Format(_read_npy, _write_npy),
    ".txt": Format(_read_text, _write_text(" ")),
    ".csv": Format(_read_text, _write_text(",")),
    ".h": Format(_read_header, _write_header),
}
