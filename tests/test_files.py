"""Foreign truth tables: every format against files made by hand, round trips, and all that must be refused."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spaces.errors import InputError
from spaces.multipliers.families import broken_array
from spaces.multipliers.files.index_order import AXES
from spaces.multipliers.files.tables import SUFFIXES, read_multipliers, read_table, write_table
from spaces.multipliers.multiplier import Multiplier, exact_products
from tests.table_files import NUMERIC, UNSIGNED, multiplier, product, rows, saved

BYTES = [*range(128), *range(-128, 0)]  # operand values in the order of their two's-complement bytes


def words(table: list[list[int]]) -> bytes:
    return b"".join(struct.pack("<256H", *(value & 0xFFFF for value in row)) for row in table)


def lines(table: list[list[int]], separator: str = " ") -> str:
    return "\n".join(separator.join(map(str, row)) for row in table)


def header(table: list[list[int]], declaration: str = "const int16_t lut [256][256]") -> str:
    body = ",\n".join("{" + ", ".join(map(str, row)) + "}" for row in table)
    return f"#include <stdint.h>\n\n{declaration} = {{{body}}};\n"


def labelled(values: list[int], labels: list[int], corner: str, separator: str) -> str:
    beside = [[label, *row] for label, row in zip(labels, rows(values, values))]
    return lines([[corner, *labels], *beside], separator)


# -- reading files made by hand ----------------------------------------------------------------------------------------

NPY = np.array(rows(NUMERIC, NUMERIC))
HANDMADE = {
    "words, unsigned": (".bin", words(rows(UNSIGNED, UNSIGNED)), False),
    "words, two's complement": (".bin", words(rows(BYTES, BYTES)), True),
    "words, numeric": (".bin", words(rows(NUMERIC, NUMERIC)), True),
    "array": (".npy", NPY, True),
    "array, flat, 16 bits": (".npy", NPY.astype(np.int16).ravel(), True),
    "array, 16-bit words": (".npy", NPY.astype(np.int16).view(np.uint16), True),
    "array in Fortran's order": (".npy", np.asfortranarray(NPY), True),
    "array, two's complement": (".npy", np.array(rows(BYTES, BYTES)), True),
    "array, unsigned": (".npy", np.array(rows(UNSIGNED, UNSIGNED), dtype=np.uint64), False),
    "array, unsigned in int16": (".npy", np.array(rows(UNSIGNED, UNSIGNED)).astype(np.int16), False),
    "text from −128": (".txt", "# a table\n" + lines(rows(NUMERIC, NUMERIC)) + "\n\n", True),
    "text from 0": (".txt", lines(rows(UNSIGNED, UNSIGNED), "\t"), False),
    "text, two's complement": (".txt", lines(rows(BYTES, BYTES), "  "), True),
    "text, one per line": (".txt", lines([[p] for row in rows(NUMERIC, NUMERIC) for p in row]), True),
    "text, 16-bit words": (".txt", lines(rows(NUMERIC, NUMERIC, word=16)), True),
    "commas": (".csv", lines(rows(NUMERIC, NUMERIC), ", "), True),
    "commas at the end": (".csv", "\ufeff" + lines(rows(UNSIGNED, UNSIGNED), ",").replace("\n", ",\r\n"), False),
    "header": (".h", header(rows(BYTES, BYTES)), True),
    "header, one row": (
        ".h",
        f"short lut[65536]={{{','.join(lines([row], ',') for row in rows(BYTES, BYTES))}}};",
        True,
    ),
    "header, words": (".h", header(rows(BYTES, BYTES, word=16), "static const uint16_t mul8s_x[256][256]"), True),
    "header, commented": (".h", "// int16_t x[2][2] = {{1}};\n/* {1, 2} */" + header(rows(BYTES, BYTES)), True),
    "header, unsigned": (".h", header(rows(UNSIGNED, UNSIGNED), "uint16_t lut[256][256]"), False),
    "array of whole floats": (".npy", NPY.astype(float), True),
    "array in a row": (".npy", NPY.reshape(1, -1), True),
    "array of one channel": (".npy", NPY[None].astype(np.float32), True),
    "text of floats": (".txt", lines(rows(UNSIGNED, UNSIGNED)).replace(" ", ".0 ").replace("\n", ".0\n"), False),
    "np.savetxt": (".txt", "\n".join(" ".join(f"{p:.18e}" for p in row) for row in rows(NUMERIC, NUMERIC)), True),
    "hexadecimal": (".txt", "\n".join(" ".join(hex(p) for p in row) for row in rows(NUMERIC, NUMERIC)), True),
    "hexadecimal words": (".txt", "\n".join(f"0X{p:04X}" for row in rows(BYTES, BYTES, 16) for p in row), True),
    "32-bit words": (".csv", "\n".join(",".join(f"0x{p:08x}" for p in r) for r in rows(BYTES, BYTES, word=32)), True),
    "memory file": (".txt", "\n".join(f"{p:04x}" for row in rows(UNSIGNED, UNSIGNED) for p in row), False),
    "pandas with index": (".csv", labelled(NUMERIC, UNSIGNED, corner="", separator=","), True),
    "pandas with index, unsigned": (".csv", labelled(UNSIGNED, UNSIGNED, corner="", separator=","), False),
    "pandas without index": (".csv", lines([UNSIGNED, *rows(NUMERIC, NUMERIC)], ","), True),
    "operands beside the table": (".txt", labelled(NUMERIC, NUMERIC, corner="a\\b", separator=" "), True),
    "operands in the order of bytes": (".csv", labelled(BYTES, BYTES, corner="0", separator=";"), True),
    "header with suffixes": (".h", header(rows(UNSIGNED, UNSIGNED), "uint16_t t[256][256]").replace(",", "u,"), False),
    "header, hexadecimal": (
        ".h",
        f"const uint32_t t[65536] = {{{','.join(f'0x{p:X}UL' for row in rows(UNSIGNED, UNSIGNED) for p in row)}}};",
        False,
    ),
    "header, wide": (".h", header(rows(UNSIGNED, UNSIGNED), "const int lut[256][256]"), False),
}


@pytest.mark.parametrize("case", HANDMADE)
def test_a_file_made_by_hand_is_read(case, tmp_path):
    suffix, content, signed = HANDMADE[case]
    path = saved(tmp_path / f"{'mul8s_x' if case == 'header, words' else 'mine'}{suffix}", content)
    table, found = read_table(path)
    assert found is signed and table.dtype == np.int64
    values = NUMERIC if signed else UNSIGNED
    assert table.tolist() == rows(values, values)
    assert read_table(path, signed=signed)[0].tolist() == table.tolist()
    (read,) = read_multipliers(path)
    assert read.name == path.stem and read.power_mw is None
    assert read == multiplier(signed)


def test_the_one_array_of_an_archive_is_read(tmp_path):
    np.savez(tmp_path / "mul8s_x.npz", NPY)
    assert read_multipliers(tmp_path / "mul8s_x.npz")[0] == multiplier(True)
    np.savez(tmp_path / "two.npz", table=NPY, power=np.array(0.3))
    with pytest.raises(InputError, match=r"two.npz: holds 2 arrays \(power, table\)"):
        read_table(tmp_path / "two.npz")


def test_a_folder_of_files_from_pandas_is_told_from_figures(tmp_path):
    saved(tmp_path / "mine.csv", labelled(NUMERIC, UNSIGNED, corner="", separator=","))
    saved(tmp_path / "figures.csv", "name,power_mw\nmine,0.3\n")
    (read,) = read_multipliers(tmp_path)
    assert read == multiplier(True) and read.power_mw == 0.3


# -- round trips -------------------------------------------------------------------------------------------------------


@st.composite
def multipliers(draw) -> Multiplier:
    """Broken arrays, and exact circuits with some wrong products."""
    if draw(st.booleans()):
        parameters = draw(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 13)))
        assume(parameters[:2] != (7, 7))  # nothing but signs: see below
        return broken_array(*parameters)
    signed = draw(st.booleans())
    table = exact_products(signed)
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    wrong = rng.random(table.shape) < draw(st.sampled_from([0.001, 0.5, 1]))
    lowest, highest = (-(1 << 15), (1 << 15) - 1) if signed else (0, (1 << 16) - 1)
    table = np.where(wrong, np.clip(table + rng.integers(-3000, 3001, table.shape), lowest, highest), table)
    return Multiplier(name="wrong", signed=signed, table=table)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(multipliers(), st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, suffix, multiplier, declared):
    path = tmp_path_factory.mktemp("tables") / f"{multiplier.name}{suffix}"
    write_table(multiplier, path)
    table, signed = read_table(path, signed=multiplier.signed if declared else None)
    assert signed is multiplier.signed
    assert np.array_equal(table, multiplier.table)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_files_are_written_in_the_order_that_their_tools_expect(tmp_path):
    for signed, values in ((True, BYTES), (False, UNSIGNED)):
        written = multiplier(signed)
        for suffix in SUFFIXES:
            write_table(written, tmp_path / f"table{suffix}")
        numeric = NUMERIC if signed else UNSIGNED
        assert (tmp_path / "table.bin").read_bytes() == words(rows(values, values))
        kind = "int16_t" if signed else "uint16_t"
        assert (tmp_path / "table.h").read_text() == header(rows(values, values), f"const {kind} lut [256][256]")
        assert (tmp_path / "table.txt").read_text() == lines(rows(numeric, numeric)) + "\n"
        assert (tmp_path / "table.csv").read_text() == lines(rows(numeric, numeric), ",") + "\n"
        assert np.load(tmp_path / "table.npy").tolist() == rows(numeric, numeric)


def test_a_product_beyond_16_bits_is_not_cut_off(tmp_path):
    for signed, wrong in ((True, 1 << 15), (False, 1 << 16), (False, -1)):
        table = exact_products(signed)
        table[3, 5] = wrong
        multiplier = Multiplier(name="wide", signed=signed, table=table)
        for suffix in (".bin", ".h"):
            with pytest.raises(InputError, match="wide.*16 bits"):
                write_table(multiplier, tmp_path / f"wide{suffix}")
        for suffix in (".npy", ".txt", ".csv"):
            write_table(multiplier, tmp_path / f"wide{suffix}")
            assert np.array_equal(read_table(tmp_path / f"wide{suffix}")[0], table)
    with pytest.raises(InputError, match="unknown kind of table '.pkl'"):
        write_table(multiplier, tmp_path / "wide.pkl")
    with pytest.raises(InputError, match="cannot write"):
        write_table(multiplier, tmp_path / "nowhere" / "wide.npy")


# -- index order and signedness ----------------------------------------------------------------------------------------

AXIS = {"unsigned": UNSIGNED, "numeric": NUMERIC, "twos-complement": BYTES}


def test_axes_are_what_they_say():
    assert {name: values.tolist() for name, values in AXES.items()} == AXIS


@pytest.mark.parametrize("a", AXIS)
@pytest.mark.parametrize("b", AXIS)
def test_axes_in_mixed_order_are_refused(a, b, tmp_path):
    path = saved(tmp_path / "mine.npy", np.array(rows(AXIS[a], AXIS[b])))
    if a == b:
        assert read_table(path)[1] is (a != "unsigned")
        return
    for signed in (None, True, False):
        with pytest.raises(InputError, match="its rows look .* and its columns (un)?signed"):
            read_table(path, signed=signed)


MAGNITUDES = [*range(128), *(-value for value in range(128))]  # of a sign bit and seven bits


@pytest.mark.parametrize("entries", ["numbers", "two's complement", "sign and magnitude"])
@pytest.mark.parametrize("signed", [None, True, False])
def test_tables_of_signs_and_magnitudes_are_refused(entries, signed, tmp_path):
    """Read as two's complement they correlate with the exact product by 0.56 only."""
    table = np.array(rows(MAGNITUDES, MAGNITUDES))
    if entries != "numbers":
        table = table % 65536 if entries == "two's complement" else np.where(table < 0, 32768 - table, table)
        path = saved(tmp_path / "mine.bin", table.astype("<u2").tobytes())
    else:
        path = saved(tmp_path / "mine.npy", table)
    with pytest.raises(InputError, match=r"sign-magnitude order .* no products for −128; write it for two's"):
        read_table(path, signed=signed)


def test_labels_declare_the_order(tmp_path):
    path = saved(tmp_path / "mine.csv", labelled(BYTES, NUMERIC, corner="", separator=","))
    with pytest.raises(InputError, match="numeric order, but it looks signed in two's-complement order"):
        read_table(path)


MISREAD = {
    "signed as unsigned": ("mine.npy", NUMERIC, {"signed": False}, "declared unsigned, but it looks signed in numeric"),
    "bytes as unsigned": ("mine.bin", BYTES, {"signed": False}, "declared unsigned, but it looks signed in two's"),
    "unsigned as signed": ("mine.txt", UNSIGNED, {"signed": True}, "declared signed, but it looks unsigned"),
    "by its name": ("mul8u_1.txt", NUMERIC, {}, "declared unsigned by its name, but it looks signed"),
    "bytes as numeric": (
        "mine.npy",
        BYTES,
        {"order": "numeric"},
        "declared in numeric order, but it looks signed in two's",
    ),
    "numeric as bytes": ("mine.csv", NUMERIC, {"order": "twos-complement"}, "two's-complement.*looks signed in num"),
    "numeric header": (
        "mine.h",
        NUMERIC,
        {},
        "signed in two's-complement order by its element type, but it looks .* numeric",
    ),
    "unsigned header": ("mine.h", UNSIGNED, {}, "signed.*by its element type, but it looks unsigned"),
}


@pytest.mark.parametrize("case", MISREAD)
def test_a_table_that_looks_other_than_declared_is_refused(case, tmp_path):
    name, values, declared, expected = MISREAD[case]
    table = rows(values, values)
    content = {
        ".npy": lambda: np.array(table),
        ".bin": lambda: words(table),
        ".txt": lambda: lines(table),
        ".csv": lambda: lines(table, ","),
        ".h": lambda: header(table),
    }[Path(name).suffix]()
    with pytest.raises(InputError, match=expected) as caught:
        read_table(saved(tmp_path / name, content), **declared)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_numeric_header_can_be_declared(tmp_path):
    path = saved(tmp_path / "mine.h", header(rows(NUMERIC, NUMERIC)))
    assert read_table(path, order="numeric")[0].tolist() == rows(NUMERIC, NUMERIC)


@pytest.mark.parametrize("name", ["mul8s_1KV8", "mul8s", "bam8s_1_2_3", "drum8s_3", "x_mul8s_7"])
@pytest.mark.parametrize("suffix", [".npy", ".bin", ".h"])
def test_a_name_declares_the_signedness(name, suffix, tmp_path):
    for shown, signed in ((name, True), (name.replace("8s", "8u"), False)):
        zero = Multiplier(name=shown, signed=signed, table=np.zeros((256, 256), dtype=int))
        path = tmp_path / f"{shown}{suffix}"
        write_table(zero, path)
        assert read_table(path)[1] is signed
        assert read_table(path, signed=not signed)[1] is not signed  # the argument comes first


def test_a_constant_table_needs_a_declared_signedness(tmp_path):
    path = saved(tmp_path / "zero.npy", np.zeros((256, 256), dtype=int))
    with pytest.raises(InputError, match="zero.npy.*signed or unsigned; declare which"):
        read_table(path)
    for signed in (True, False):
        table, found = read_table(path, signed=signed)
        assert found is signed and not table.any()


def test_a_table_of_signs_alone_is_read_in_numeric_order_only(tmp_path):
    """As in the module's docstring: in two's-complement order it looks unsigned, and is refused rather than misread."""
    signs = broken_array(7, 7, 0)
    for suffix in (".npy", ".txt", ".csv"):
        write_table(signs, tmp_path / f"bam8s_7_7_0{suffix}")
        assert np.array_equal(read_table(tmp_path / f"bam8s_7_7_0{suffix}")[0], signs.table)
    for suffix in (".bin", ".h"):
        write_table(signs, tmp_path / f"bam8s_7_7_0{suffix}")
        with pytest.raises(InputError, match="looks unsigned"):
            read_table(tmp_path / f"bam8s_7_7_0{suffix}")


def test_the_quadrant_that_adapt_converts_wrongly_is_refused(tmp_path):
    """LUT_convert writes T(|a|, |b|) for two negative operands, and |−128| wraps to −128 again."""

    def converted(a: int, b: int) -> int:
        if a < 0 and b < 0:
            a, b = (value if value == -128 else -value for value in (a, b))
        return product(a, b)

    wrong = [[converted(a, b) for b in BYTES] for a in BYTES]
    assert wrong != rows(BYTES, BYTES)
    with pytest.raises(InputError, match="two negative operands.*LUT_convert"):
        read_table(saved(tmp_path / "mine.h", header(wrong)))


# -- what is no table --------------------------------------------------------------------------------------------------

EXACT = exact_products(signed=False)
FLOATS = EXACT.astype(float)
ONE_WRONG = EXACT.astype(object)
TEXT = lines(rows(UNSIGNED, UNSIGNED))
BAD = {
    "words missing": (".bin", words(rows(UNSIGNED, UNSIGNED))[:-2], "131,070 bytes are 65,535 16-bit words"),
    "half a word": (".bin", words(rows(UNSIGNED, UNSIGNED)) + b"\0", "131,073 bytes are 65,536.5"),
    "swapped bytes": (".bin", EXACT.astype(">u2").tobytes(), "in no index order"),
    "no words": (".bin", b"", "0 bytes"),
    "entries missing": (".npy", EXACT.ravel()[:-1], "65535 is 65,535 entries"),
    "shape": (".npy", EXACT.reshape(128, 512), "128×512"),
    "floats": (".npy", FLOATS + np.where(FLOATS == 9, 0.25, 0), "float64 such as 9.25"),
    "NaN": (".npy", np.where(FLOATS == 9, np.nan, FLOATS), "float64 such as nan"),
    "infinite": (".npy", np.where(FLOATS == 9, np.inf, FLOATS), "32 bits"),
    "truth values": (".npy", EXACT > 9, "bool"),
    "durations": (".npy", EXACT.astype("m8[s]"), "timedelta64"),
    "beyond 32 bits": (".npy", EXACT.astype(np.uint64) << np.uint64(40), "32 bits"),
    "no array": (".npy", b"hello", "not a NumPy array"),
    "empty array file": (".npy", b"", "not a NumPy array"),
    "noise": (".npy", np.random.default_rng(0).integers(0, 65536, (256, 256)), "in no index order"),
    "words in text": (".txt", TEXT.replace("\n", "\nabc ", 1), "rows of unequal length"),
    "text": (".txt", "once upon a time\n", "1 rows of 4"),
    "a word in text": (".txt", TEXT.replace(" 252 ", " many ", 1), "'many' is not an integer"),
    "NaN in text": (".txt", TEXT.replace(" 252 ", " nan ", 1), "'nan' is not an integer"),
    "float in text": (".csv", TEXT.replace(" 252 ", " 252.5 ", 1), "'252.5' is not an integer"),
    "number missing": (".txt", TEXT.rpartition(" ")[0], "65,535 entries"),
    "row missing": (".txt", TEXT.rpartition("\n")[0], "255 rows of 256"),
    "other labels": (".txt", labelled(UNSIGNED, UNSIGNED[::-1], "0", " "), "leave out what stands above and beside"),
    "labels above alone": (".txt", lines([[9] * 256, *rows(UNSIGNED, UNSIGNED)]), "leave out what stands above"),
    "octal in header": (".h", header(rows(BYTES, BYTES)).replace(" 252,", " 0252,", 1), "'?0252'? is octal in C"),
    "empty text": (".txt", "", "0 rows"),
    "not text": (".txt", b"\xff\xfe\x00", "not a text file"),
    "no array in header": (".h", "#include <stdint.h>\nint x;\n", "holds 0 arrays"),
    "two arrays": (".h", header(rows(BYTES, BYTES)) * 2, "holds 2 arrays"),
    "row missing in header": (".h", header(rows(BYTES[:-1], BYTES)), "255 rows of 256"),
    "word in header": (".h", header(rows(BYTES, BYTES)).replace(" 252,", " x,", 1), "'x' is not an integer"),
    "header cut short": (".h", header(rows(BYTES, BYTES))[:99_999], "rows of 256, 16,"),
    "unknown suffix": (".mat", b"", "unknown kind of table '.mat'; known: .bin, .npy"),
    "no suffix": ("", b"", "unknown kind of table ''"),
    "too large": (".txt", b"1 " * (3 << 20), "too large"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_table_is_refused_with_the_reason(case, tmp_path):
    suffix, content, expected = BAD[case]
    path = saved(tmp_path / f"bad{suffix}", content)
    with pytest.raises(InputError, match=expected) as caught:
        read_table(path)
    assert f"bad{suffix}" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "nowhere.npy")
    with pytest.raises(InputError, match="not a file"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_multipliers(tmp_path / "nowhere")


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    sprung = tmp_path / "sprung"
    objects = np.empty((256, 256), dtype=object)
    objects[:] = Trap(sprung)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Trap(sprung)))
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, objects)
    for name in ("objects", "pickle", "archive"):
        with pytest.raises(InputError, match=f"{name}.npy"):
            read_table(tmp_path / f"{name}.npy")
    assert not sprung.exists()


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    np.save(tmp_path / "big.npy", EXACT)
    content = (tmp_path / "big.npy").read_bytes()
    (tmp_path / "big.npy").write_bytes(content.replace(b"(256, 256), }      ", b"(256, 256000000), }", 1))
    with pytest.raises(InputError, match="big.npy is not a NumPy array"):
        read_table(tmp_path / "big.npy")
