"""Folders of tables, the published figures beside them, and libraries made of both."""

import dataclasses
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.families import broken_array
from spaces.multipliers.files import datasheet
from spaces.multipliers.files.datasheet import deviations, read_figures
from spaces.multipliers.files.tables import read_datasheets, read_multipliers, write_table
from spaces.multipliers.multiplier import error_metrics, exact_products
from tests.table_files import multiplier, saved

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "evoapprox"
needs_tables = pytest.mark.skipif(not (SHARED / "tables").is_dir(), reason="shared/data is not mounted here")

# -- folders and figures -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """``deep/tables`` with one signed and one unsigned circuit, and things that are no tables."""
    path = tmp_path / "deep" / "tables"
    path.mkdir(parents=True)
    write_table(multiplier(True), path / "one.npy")
    write_table(multiplier(False), path / "two.bin")
    (path / "README.md").write_text("Nothing.\n")
    (path / "notes.csv").write_text("date,text\n1,2\n")
    (path / ".hidden.npy").write_bytes(b"")
    (path / "folder.npy").mkdir()
    return path


def test_a_folder_is_read_sorted_without_figures(folder):
    one, two = read_multipliers(folder)
    assert (one.name, two.name) == ("one", "two")
    assert (one, two) == (multiplier(True), multiplier(False))
    assert (one.power_mw, one.area_um2, one.delay_ns, one.technology, one.source) == (None, None, None, "", "one.npy")


def test_figures_beside_the_tables_are_read(folder):
    (folder / "a.csv").write_text(
        "name,pdk45_power_mw,pdk45_area_um2,pdk45_delay_ns,wce\none,0.2,100,1.5,384\nthird,9,9,9,9\n"
    )
    (folder / "b.csv").write_text('"name", power_mw, technology, source, mre_pct\n two , 3e-1 , TSMC 7, "A, B",\n')
    (folder.parent / "c.csv").write_text("name,power_mw\none,7\n")  # not asked
    one, two = read_multipliers(folder)
    assert (one.power_mw, one.area_um2, one.delay_ns, one.technology, one.source) == (
        0.2,
        100,
        1.5,
        "FreePDK45",
        "a.csv",
    )
    assert (two.power_mw, two.area_um2, two.delay_ns, two.technology, two.source) == (0.3, None, None, "TSMC 7", "A, B")
    assert read_multipliers(folder / "two.bin")[0].power_mw == 0.3


def test_figures_are_found_in_the_parent(folder):
    (folder.parent / "ours.csv").write_text("name,power_mw\none,0.2\ntwo,0.3\n")
    (folder.parent / "others.csv").write_text("name,power_mw\nmul8s_x,7\n")
    (folder.parent / "people.csv").write_text("name,age\none,7\n")
    (folder.parent.parent / "above.csv").write_text("name,power_mw\none,7\n")
    assert [multiplier.power_mw for multiplier in read_multipliers(folder)] == [0.2, 0.3]
    assert read_multipliers(folder / "one.npy")[0].power_mw == 0.2
    (folder.parent / "ours.csv").unlink()
    assert [multiplier.power_mw for multiplier in read_multipliers(folder)] == [None, None]


def test_named_figures_come_before_found_ones(folder):
    (folder / "a.csv").write_text("name,power_mw\none,0.2\ntwo,0.3\n")
    other = saved(folder.parent / "other.csv", "name,power_mw\none,0.4\ntwo,0.5\n")
    assert [multiplier.power_mw for multiplier in read_multipliers(folder, figures=other)] == [0.4, 0.5]


def test_a_published_bias_may_be_negative(folder):
    # a & ~3 lacks 0, 1, 2 or 3, on average 1.5: the error is −1.5 b on average, and the mean of b is −0.5 or 127.5.
    datasheet = saved(folder.parent / "bias.csv", "name,bias\none,0.75\ntwo,-191.25\n")
    assert len(read_multipliers(folder, figures=datasheet)) == 2


READ_ALIKE = {
    "as our own": "name,power_mw,area_um2,delay_ns,mae_pct\none,0.301,558.9,1.36,\ntwo,0.3,500,1.3,\n",
    "from a German spreadsheet": "\ufeffName;Power [mW];Area (µm²);Delay [ns]\r\none;0,301;558,9;1,36\r\ntwo;0,3;500;1,3\r\n",
    "in tabs": "Circuit\tPower (uW)\tArea\tDelay_ps\none\t301\t558.9\t1360\ntwo\t300\t500\t1300\n",
    "as EvoApproxLib": "circuit_name,PDK45_PWR,PDK45_AREA,PDK45_DELAY\none,0.301,558.9,1.36\ntwo,0.3,500,1.3\n",
    "in other units": "multiplier; power/W; area/mm^2; delay_us\none; 0,000301; 5,589e-4; 0,00136\ntwo; 3e-4; 5e-4; 1,3e-3\n",
    "with notes": "name,comment,cells,Power_mW,Area,delay ns\none,a,3,0.301,558.9,1.36\ntwo,b,4,0.3,500,1.3\n",
    "with a sign": "Name,Signed,POWER_MW,AREA_UM2,DELAY_NS\none,TRUE,0.301,558.9,1.36\ntwo,FALSE,0.3,500,1.3\n",
}


@pytest.mark.parametrize("case", READ_ALIKE)
def test_figures_are_read_however_they_are_spelled(case, folder):
    (folder / "figures.csv").write_text(READ_ALIKE[case], encoding="utf-8")
    one, two = read_multipliers(folder)
    assert [one.power_mw, one.area_um2, one.delay_ns] == pytest.approx([0.301, 558.9, 1.36], rel=1e-12)
    assert [two.power_mw, two.area_um2, two.delay_ns] == pytest.approx([0.3, 500, 1.3], rel=1e-12)
    assert one.technology == ("FreePDK45" if "PDK" in READ_ALIKE[case] else "")


def test_published_errors_are_found_under_other_spellings(folder):
    (folder / "figures.csv").write_text("Name;WCE;MAE [%];Power_mW\none;384;0,5;0,2\ntwo;765;0,3;0,2\n")
    with pytest.raises(InputError, match=r"one: the table has mae_pct 0.146\d* \(published: 0.5\)"):
        read_multipliers(folder)


UNCLEAR_COLUMNS = {
    "power": "'power' could be several things: call it power_mw",
    "Power [kW]": r"'Power \[kW\]' could be several things",
    "delay": r"'delay' could be several things: call it delay_ns, .*delay_ps",
    "rel_area": "'rel_area' could be several things: call it area_um2",
    "powr_mw": r"'powr_mw' is unknown; did you mean power_mw\?",
    "MRE": "'MRE' has no unit: call it mre_pct, in percent",
}


@pytest.mark.parametrize("column", UNCLEAR_COLUMNS)
def test_columns_that_could_be_several_things_are_refused_by_name(column, folder):
    content = f"name,{column}\none,1\ntwo,1\n"
    (folder / "figures.csv").write_text(content)
    with pytest.raises(InputError, match=rf"figures.csv: column {UNCLEAR_COLUMNS[column]}"):
        read_multipliers(folder)
    (folder / "figures.csv").rename(folder.parent / "figures.csv")
    with pytest.raises(InputError, match="figures.csv: column"):
        read_multipliers(folder)
    (folder.parent / "figures.csv").write_text(content.replace("one", "1").replace("two", "2"))
    assert len(read_multipliers(folder)) == 2  # somebody else's


@pytest.mark.parametrize("power", ["300", "0", "0.0042", "1.28"])
def test_an_implausible_power_is_a_warning(power, folder):
    (folder / "figures.csv").write_text(f"name,power_mw\none,{power}\ntwo,0.3\n")
    with pytest.warns(UserWarning, match=f"multiplier one: a power of {power} mW is .* exact multiplier, 0.425 mW"):
        assert read_multipliers(folder)[0].power_mw == float(power)


BAD_FIGURES = {
    "lacks a circuit": ("name,power_mw\none,1\n", "circuit two is not in .*figures.csv"),
    "circuit twice": ("name,power_mw\none,1\none,2\ntwo,1\n", "circuit one is there twice"),
    "column twice": ("name,power_mw,power_mw\none,1,1\ntwo,1,1\n", "column is there twice"),
    "two units": (
        "name,power_mw,Power (uW)\none,1,1000\ntwo,1,1000\n",
        r"'power_mw' and 'Power \(uW\)' both hold power_mw",
    ),
    "commas and points": ("name;power_mw\none;0,3\ntwo;0.25\n", r"decimal commas \(0,3\) and decimal points \(0.25\)"),
    "thousands": ("name;area_um2\none;1.234,5\ntwo;1\n", "area_um2 must be a number, not '1.234,5'"),
    "decimal commas between commas": ('name,power_mw\none,"0,3"\ntwo,1\n', "power_mw must be a number, not '0,3'"),
    "not a number": ("name,power_mw\none,much\ntwo,1\n", "circuit one: power_mw .* not 'much'"),
    "NaN": ("name,power_mw\none,nan\ntwo,1\n", "circuit one: power_mw .* not 'nan'"),
    "infinite": ("name,mse\none,1e999\ntwo,1\n", "circuit one: mse .* not '1e999'"),
    "negative": ("name,area_um2\none,-1\ntwo,1\n", "circuit one: area_um2 .* not '-1'"),
    "no name": ("name,power_mw\n,1\none,1\ntwo,1\n", "line 2: the circuit has no name"),
    "too many cells": ("name,power_mw\none,1,2\ntwo,1\n", "line 2: more cells than columns"),
    "signedness": ("name,signed\none,yes\ntwo,no\n", "signed must be true or false, not 'yes'"),
    "another signedness": ("name,signed\none,false\ntwo,false\n", "one.npy: declared unsigned, but it looks signed"),
    "another table": ("name,key\none,00\ntwo,00\n", "one.npy: not the table whose key figures.csv records"),
    "another circuit": (
        "name,wce,mae\none,380,190.5\ntwo,1,1\n",
        r"one: .*wce 384 \(published: 380\).*another circuit",
    ),
}


@pytest.mark.parametrize("case", BAD_FIGURES)
def test_bad_figures_are_refused(case, folder):
    content, expected = BAD_FIGURES[case]
    (folder / "figures.csv").write_text(content)
    with pytest.raises(InputError, match=expected) as caught:
        read_multipliers(folder)
    assert "\n" not in str(caught.value)


def test_a_multiplier_in_two_csvs_is_refused(folder):
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("name,power_mw\none,1\ntwo,1\n")
    with pytest.raises(InputError, match="circuit one is in both .*a.csv and .*b.csv"):
        read_multipliers(folder)


@pytest.mark.parametrize("content", ["", "1,2\n3,4\n", "name,age\none,3\n", "\x00", 'name,power_mw\n"one,1\n'])
def test_a_named_csv_without_figures_is_refused(content, folder):
    with pytest.raises(InputError, match="x.csv"):
        read_multipliers(folder, figures=saved(folder.parent / "x.csv", content))
    with pytest.raises(InputError, match="nowhere.csv"):
        read_multipliers(folder, figures=folder / "nowhere.csv")


def test_a_folder_that_cannot_be_read_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("")
    with pytest.raises(InputError, match=r"empty' holds no table files \(.bin, .npy"):
        read_multipliers(tmp_path / "empty")
    write_table(multiplier(True), folder / "two.txt")
    with pytest.raises(InputError, match="two tables of one name: two.bin and two.txt"):
        read_multipliers(folder)


def test_a_table_in_commas_is_told_from_figures(folder):
    write_table(multiplier(True), folder / "three.csv")
    assert [each.name for each in read_multipliers(folder)] == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("recomputed", "published", "within"),
    [
        (0.125, "0.12", True),  # a tie may be rounded either way
        (0.131, "0.12", False),
        (36.535, "36.0", True),  # rounded twice: 36.535 → 36.5 → 36
        (36.7, "36.0", False),
        (384, "384.0", True),
        (384, "383.0", False),
        (471649806.25, "471649810.0", True),  # eight significant digits
        (471649806.25, "471649900.0", False),
        (31960408000.0, "31960.408e6", True),
        (31960999000.0, "31960.408e6", False),
        (0.04, "0.0", True),
        (0.4, "0.0", False),
        (-0.25, "-0.2", True),
    ],
)
def test_rounding_is_that_of_the_printed_figure(recomputed, published, within, monkeypatch):
    real = error_metrics(multiplier(True))
    monkeypatch.setattr(datasheet, "error_metrics", lambda _: dataclasses.replace(real, bias=recomputed))
    (found,) = (each for each in deviations(multiplier(True), {"bias": published}) if each.figure == "bias")
    assert found.within is within and found.amount == recomputed - float(published)


def test_a_percentage_of_the_printed_mae_is_accepted():
    # 1.25 was printed as 1.2, and 100 · 1.2 / 2^16 = 0.00183 as 0.0018, where the MAE itself gives 0.0019.
    multiplier = catalogue.get("mul8s_1KVA")
    by_figure = {d.figure: d.within for d in deviations(multiplier, {"mae": "1.2", "mae_pct": "0.0018"})}
    assert by_figure["mae"] and by_figure["mae_pct"]
    by_figure = {d.figure: d.within for d in deviations(multiplier, {"mae": "1.1", "mae_pct": "0.0017"})}
    assert not by_figure["mae"] and not by_figure["mae_pct"]


# -- names of the catalogue --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mul8s_1KTY", "bam8s_2_1_3"])
def test_another_multiplier_under_a_known_name_is_refused(name, tmp_path):
    known = catalogue.get(name)
    path = tmp_path / f"{name}.npy"
    write_table(known, path)
    assert read_multipliers(path, known=catalogue.find) == (known,)
    np.save(path, known.table.T)
    with pytest.raises(InputError, match=f"built-in {name} with its operands swapped"):
        read_multipliers(path, known=catalogue.find)
    assert read_multipliers(path)[0].name == name  # nobody knows the name
    np.save(path, exact_products(signed=True) + 1)
    with pytest.raises(InputError, match=f"{name} is built in and has another truth table"):
        read_multipliers(path, known=catalogue.find)


def test_a_library_takes_names_files_and_folders(folder, monkeypatch):
    (folder / "figures.csv").write_text("name,power_mw\none,0.2\ntwo,0.3\n")
    (folder / "two.bin").unlink()
    chosen = catalogue.library(["mul8s_1KV8", str(folder)])
    assert [(multiplier.name, multiplier.power_mw) for multiplier in chosen] == [("mul8s_1KV8", 0.425), ("one", 0.2)]
    assert catalogue.library([str(folder / "one.npy")])[0].power_mw == 0.2
    monkeypatch.chdir(folder)
    assert catalogue.library(["one.npy"]) == chosen[1:]
    monkeypatch.chdir(folder.parent)
    assert catalogue.library(["tables"]) == chosen[1:]
    (folder.parent / "mul8s_1KVA").mkdir()
    assert catalogue.library(["mul8s_1KVA"])[0].source == catalogue.EVOAPPROX  # a name wins over a folder ...
    with pytest.raises(InputError, match="mul8s_1KVA' holds no table files"):
        catalogue.library(["./mul8s_1KVA"])  # ... unless it is written as a path


def test_a_library_of_files_that_cannot_be_searched_is_refused(folder):
    with pytest.raises(InputError, match="multiplier one has no power figure"):
        catalogue.library([str(folder)])
    (folder / "figures.csv").write_text("name,power_mw\none,0.2\ntwo,0.3\n")
    with pytest.raises(InputError, match="signed and unsigned"):
        catalogue.library([str(folder)])
    shutil.copy(folder / "one.npy", folder.parent / "uno.npy")
    (folder.parent / "more.csv").write_text("name,power_mw\nuno,0.2\none,0.2\n")
    with pytest.raises(InputError, match="one and uno are the same circuit"):
        catalogue.library([str(folder / "one.npy"), str(folder.parent / "uno.npy")])
    write_table(broken_array(1, 2, 3), folder.parent / "one.npy")
    with pytest.raises(InputError, match="2 different circuits are called one"):
        catalogue.library([str(folder / "one.npy"), str(folder.parent / "one.npy")])
    np.save(folder / "mul8s_1KTY.npy", catalogue.get("mul8s_1KTY").table.T)
    (folder / "more.csv").write_text("name,power_mw\nmul8s_1KTY,0.237\n")
    with pytest.raises(InputError, match="built-in mul8s_1KTY with its operands swapped"):
        catalogue.library([str(folder / "mul8s_1KTY.npy")])
    with pytest.raises(InputError, match="did you mean"):
        catalogue.library(["mul8s_1KV9"])
    with pytest.raises(InputError, match="does not exist"):
        catalogue.library(["mul8s_1KV9.bin"])


# -- the published tables ----------------------------------------------------------------------------------------------


@needs_tables
def test_the_28_published_tables_are_what_their_figures_say():
    sheets = read_datasheets(SHARED / "tables")
    assert len(sheets) == 28
    compared = 0
    for sheet in sheets:
        multiplier, row = sheet.multiplier, sheet.figures.row
        content = struct.unpack("<65536H", sheet.path.read_bytes())
        assert not multiplier.signed and multiplier.table[3, 200] == content[3 * 256 + 200]
        assert np.array_equal(multiplier.table.ravel(), content)
        assert multiplier.power_mw == float(row["pdk45_power_mw"]) and multiplier.technology == "FreePDK45"
        found = deviations(multiplier, row)
        assert all(deviation.within for deviation in found), multiplier.name
        compared += sum(deviation.published is not None for deviation in found)
    assert compared == 28 * 8
    assert len({sheet.multiplier.key for sheet in sheets}) == 28
    assert [each.name for each in read_multipliers(SHARED / "tables")] == [s.multiplier.name for s in sheets]
    assert len(catalogue.library([str(SHARED / "tables")])) == 28


@needs_tables
def test_no_published_table_passes_for_another():
    """Each of the 27 that differ from the exact circuit is told from it, and from its neighbour in the list."""
    published = read_figures(SHARED / "mul8u_figures.csv")
    sheets = read_datasheets(SHARED / "tables")
    for sheet, other in zip(sheets, [*sheets[1:], sheets[0]]):
        found = deviations(sheet.multiplier, published[other.multiplier.name].row)
        assert not all(deviation.within for deviation in found)
