"""One reader and one writer for each file format of truth tables; what the entries mean is settled elsewhere."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spaces.errors import InputError
from spaces.files.arrays import read_array, read_arrays
from spaces.files.reading import read_bytes, read_text
from spaces.files.untrusted_text import shortened
from spaces.multipliers.files.index_order import TWOS_COMPLEMENT, RawTable
from spaces.multipliers.files.numbers import whole_numbers, without_labels
from spaces.multipliers.multiplier import SIZE, Multiplier

COUNT = SIZE * SIZE
LARGEST_FILE = 2 << 20  # bytes; the longest table of 65,536 numbers in text is below 1 MiB
_LARGEST = np.iinfo(np.int32).max
# A comment without an end takes all that follows: looking for the end from every beginning would take minutes.
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
# "const int16_t lut [256][256] = {", whatever the name and the sizes are; bounded, so that no text takes long to search.
_ARRAY = re.compile(r"((?:\b\w{1,64}\s{1,64}){1,5})\w{1,64}\s{0,64}(?:\[[^\]]{0,64}\]\s{0,64}){1,3}=\s{0,64}\{")
_WORDS_UNSIGNED = re.compile(r"\buint16_t\b|\bunsigned\s+short\b")
_C_INTEGER = re.compile(r"([+-]?(?:0x[0-9a-f]{1,16}|\d{1,20}))[ul]{0,3}", re.IGNORECASE)
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
    return _from_array(str(path), read_array(path, LARGEST_FILE))


def _read_npz(path: Path) -> RawTable:
    arrays = read_arrays(path, most=LARGEST_FILE)
    if len(arrays) != 1:
        raise InputError(f"{path}: holds {len(arrays)} arrays ({', '.join(sorted(arrays)[:5])}); a table is one")
    return _from_array(str(path), next(iter(arrays.values())))


def _from_array(where: str, array: np.ndarray) -> RawTable:
    """Integers, or floats that are all whole; axes of length 1 do not count."""
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: holds {array.dtype}, but the products of a truth table are integers")
    if tuple(size for size in array.shape if size != 1) not in ((SIZE, SIZE), (COUNT,)):
        shape = "×".join(map(str, array.shape))
        raise InputError(f"{where}: {shape} is {array.size:,} entries; a table is {SIZE}×{SIZE} or {COUNT:,}")
    words = array.dtype.kind != "f" and array.dtype.itemsize == 2
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        example = array[~(array == np.trunc(array))].flat[0]
        raise InputError(f"{where}: holds {array.dtype} such as {example:g}, but products are whole numbers")
    return RawTable(where, _entries(where, np.array(array).reshape(SIZE, SIZE)), words=words)


def _write_npy(multiplier: Multiplier) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, multiplier.table, allow_pickle=False)
    return buffer.getvalue()


def _write_npz(multiplier: Multiplier) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, table=multiplier.table)
    return buffer.getvalue()


# -- text --------------------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> RawTable:
    lines = (line.partition("#")[0] for line in read_text(path, LARGEST_FILE).splitlines())
    rows = [row for line in lines if (row := _cells(line)) != [""]]
    numbers, order = without_labels(str(path), rows)
    return RawTable(str(path), _table(str(path), numbers), order=order)


def _cells(line: str) -> list[str]:
    """An empty first cell is the corner above pandas' index."""
    return re.split(r"[,;\s]+", line.rstrip(" \t\r,;").lstrip(" \t"))


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
    cells = [[cell.strip() for cell in row.strip(" \t\r\n,").split(",")] for row in rows]
    entries = _table(str(path), [[_without_suffix(str(path), cell) for cell in row] for row in cells])
    unsigned, signed = _WORDS_UNSIGNED.search(kind), _WORDS_SIGNED.search(kind)
    declared = False if unsigned else (True if signed else None)
    return RawTable(str(path), entries, bool(unsigned or signed), declared, TWOS_COMPLEMENT)


def _without_suffix(where: str, literal: str) -> str:
    """An integer literal of C without its type, as 12u and 0x1FUL have it."""
    found = _C_INTEGER.fullmatch(literal)
    if found is None:
        return literal
    if re.fullmatch(r"[+-]?0\d+", found[1]):
        raise InputError(f"{where}: {shortened(literal, 20)} is octal in C; write decimal or hexadecimal numbers")
    return found[1]


def _write_header(multiplier: Multiplier) -> bytes:
    rows = ",\n".join("{" + ", ".join(map(str, row)) + "}" for row in _in_words(multiplier).tolist())
    kind = "int16_t" if multiplier.signed else "uint16_t"
    return f"#include <stdint.h>\n\nconst {kind} lut [{SIZE}][{SIZE}] = {{{rows}}};\n".encode()


def _table(where: str, rows: list[list[str]]) -> np.ndarray:
    """The entries of 256 rows of 256 numbers, or of 65,536 numbers in one row or one column."""
    sizes = {len(row) for row in rows}
    if (len(rows), sizes) not in ((SIZE, {SIZE}), (1, {COUNT}), (COUNT, {1})):
        shape = f"{len(rows):,} rows of {sizes.pop():,}" if len(sizes) == 1 else f"{len(rows):,} rows of unequal length"
        count = sum(map(len, rows))
        raise InputError(f"{where}: {shape}, {count:,} entries in all; a table is {SIZE} rows of {SIZE}")
    numbers = whole_numbers(where, [cell for row in rows for cell in row])
    return _entries(where, np.array(numbers, dtype=object).reshape(SIZE, SIZE))


def _entries(where: str, array: np.ndarray) -> np.ndarray:
    if array.max() > _LARGEST or array.min() < -_LARGEST:
        raise InputError(f"{where}: an entry does not fit into 32 bits")
    return array.astype(np.int64)


FORMATS = {
    ".bin": Format(_read_words, _write_words),
    ".npy": Format(_read_npy, _write_npy),
    ".npz": Format(_read_npz, _write_npz),
    ".txt": Format(_read_text, _write_text(" ")),
    ".csv": Format(_read_text, _write_text(",")),
    ".h": Format(_read_header, _write_header),
}
