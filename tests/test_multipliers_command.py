"""python -m spaces.multipliers: what it prints, what it writes, what it refuses."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.__main__ import main
from spaces.multipliers.error_map import draw_error_map
from spaces.multipliers.families import broken_array
from spaces.multipliers.files import importing
from spaces.multipliers.files.tables import read_multipliers, write_table
from spaces.multipliers.multiplier import Multiplier, exact_products

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "evoapprox"
needs_tables = pytest.mark.skipif(not (SHARED / "tables").is_dir(), reason="shared/data is not mounted here")

# Three tables of two kinds; the first drops the lowest bit of a: |error| = |b| for odd a.
ONE, TWO, THREE = broken_array(1, 0, 0, "one"), broken_array(0, 2, 4, "two"), broken_array(3, 3, 0, "three")
ONE_WCE, ONE_EP = 128, 100 * 128 * 255 / 65536  # b = −128; every odd a with every b but 0


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """The three tables, in two formats, and their figures."""
    folder = tmp_path_factory.mktemp("tables")
    for multiplier, suffix in ((ONE, ".bin"), (TWO, ".npy"), (THREE, ".bin")):
        write_table(multiplier, folder / f"{multiplier.name}{suffix}")
    (folder / "figures.csv").write_text("name,pdk45_power_mw,wce\none,0.3,128.0\ntwo,0.25,\nthree,0.1,\n")
    return folder


@pytest.fixture(autouse=True)
def place(tables, tmp_path, monkeypatch) -> Path:
    """A current folder with nothing but ``tables``, a cache of its own, and a terminal of known width."""
    monkeypatch.setenv("APPROXNAS_CACHE", str(tables / ".cache"))
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "here"
    path.mkdir()
    shutil.copytree(tables, path / "tables", ignore=shutil.ignore_patterns(".cache"))
    monkeypatch.chdir(path)
    return path


def run_cli(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "spaces.multipliers", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        **options,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *arguments: str) -> str:
    """The one line on stderr with which the command line refuses its arguments."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1 and shown.err.startswith("error: ")
    return shown.err


# -- list, show, errors ------------------------------------------------------------------------------------------------


def test_the_built_in_multipliers_are_listed(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if "mul8s" in line] == list(catalogue.names())
    (line,) = (line for line in shown.splitlines() if "mul8s_1L2H" in line)
    # Published: MAE 0.081 %, WCE 0.39 %, MRE 4.41 %, EP 74.61 %, 0.301 mW, 558.9 µm², 1.36 ns.
    assert line.split()[1:] == ["yes", "0.301", "559", "1.36", "0.0814", "0.389", "4.41", "74.6", "0.750", "1", "1"]
    assert f"source 1: {catalogue.EVOAPPROX}" in shown


def test_a_list_is_also_comma_separated(place, capsys):
    zero = Multiplier(name="nil8u_0", signed=False, table=np.zeros((256, 256), dtype=int))
    write_table(zero, place / "nil8u_0.npy")
    assert main(["list", "--csv", "--multipliers", "tables", "mul8s_1KV8", "nil8u_0.npy"]) == 0
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert list(rows) == ["one", "three", "two", "mul8s_1KV8", "nil8u_0"]
    one = rows["one"]
    assert (one["signed"], one["power_mw"], one["area_um2"], one["rank"]) == ("true", "0.3", "", "1")
    assert (one["wce"], float(one["ep_pct"]), one["key"]) == (str(ONE_WCE), ONE_EP, ONE.key)
    assert (one["technology"], one["source"]) == ("FreePDK45", "figures.csv")
    nil = rows["nil8u_0"]
    assert (nil["signed"], nil["power_mw"], nil["rank"], nil["source"]) == ("false", "", "0", "nil8u_0.npy")
    assert float(nil["bias"]) == -(127.5**2)


def test_a_multiplier_without_integer_factors_has_no_rank(place, capsys, monkeypatch):
    monkeypatch.setattr("spaces.multipliers.presentation.factorise", lambda _: None)
    write_table(ONE, place / "one.npy")
    assert main(["list", "--multipliers", "one.npy"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("one"))
    assert line.split()[1:5] == ["yes", "–", "–", "–"] and line.split()[-2] == "–"


def test_a_multiplier_is_shown_with_a_picture(place, capsys):
    assert main(["show", "mul8s_1KTY"]) == 0
    shown = capsys.readouterr().out
    for expected in ("0.237 mW", "482.4 µm²", "1.19 ns", "FreePDK45", catalogue.get("mul8s_1KTY").key):
        assert expected in shown
    # Published MRE 15.72 %; nothing was published about the error for a zero operand.
    assert re.search(r"mre_pct +15\.719\d+ +15\.72 +-0\.0006", shown)
    assert re.search(r"zero_operand +0 +– +–", shown)
    assert re.search(r"rank +1\n", re.sub(r" +\n", "\n", shown))
    with Image.open(place / "mul8s_1KTY.png") as picture:
        assert picture.format == "PNG" and min(picture.size) >= 600
    assert main(["show", "mul8s_1KV8", "--png", "exact.png"]) == 0
    assert {path.name for path in place.iterdir()} == {"mul8s_1KTY.png", "exact.png", "tables"}


def test_the_picture_shows_the_error_at_its_operands():
    figure = draw_error_map(ONE)
    axes, bar = figure.axes
    (image,) = axes.images
    error = image.get_array()
    # Row a, column b, from −128 below and left: 3 · 50 = 150 becomes 2 · 50; −1 · −128 = 128 becomes −2 · −128.
    assert error[3 + 128, 50 + 128] == -50 and error[-1 + 128, 0] == 128 and error[2 + 128, 50 + 128] == 0
    assert image.origin == "lower" and image.get_extent() == [-128.5, 127.5, -128.5, 127.5]
    assert image.get_clim() == (-ONE_WCE, ONE_WCE)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("activation a", "weight b")
    assert axes.get_title() == "one: MAE 32 (0.0488 %), WCE 128 (0.195 %)"
    assert "units of the product" in bar.get_ylabel()
    exact = draw_error_map(Multiplier(name="exact", signed=False, table=exact_products(False)))
    assert exact.axes[0].images[0].get_clim() == (-1, 1)
    assert exact.axes[0].images[0].get_extent() == [-0.5, 255.5, -0.5, 255.5]


def test_errors_confirm_the_published_figures(capsys):
    assert main(["errors"]) == 0
    shown = capsys.readouterr().out
    assert "13 circuits, 104 published error figures: none deviates by more than rounding" in shown
    assert re.search(r"mul8s_1L1G +mae +339\.94\d+ +340\.0 +-0\.05", shown)


def test_errors_that_deviate_end_with_one(place, capsys):
    (place / "tables" / "figures.csv").write_text("name,power_mw,wce,bias\none,1,129,0.4\ntwo,1,,\nthree,1,,\n")
    assert main(["errors", "tables"]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"wce +128 +129 +-1 +deviates", shown)
    assert re.search(r"bias +0\.25 +0\.4 +-0\.15 +deviates", shown)  # −b, on average 0.5, for half of all a
    assert "3 circuits, 2 published error figures: 2 deviate" in shown
    assert main(["show", "tables/one.bin"]) == 0  # shown all the same
    assert "deviates" in capsys.readouterr().out


# -- import ------------------------------------------------------------------------------------------------------------


def test_tables_are_imported_and_used(place, capsys):
    assert main(["import", "tables", "--to", "deep/mine"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in shown[:3]] == [
        "new: one (signed)", "new: three (signed)", "new: two (signed)",
    ]  # fmt: skip
    assert "WCE 128 (published 128.0)" in shown[0] and shown[0].endswith("power 0.3 mW")
    assert shown[3] == "use them with: --multipliers deep/mine"
    assert sorted(content(place / "deep")) == [
        f"mine/{name}" for name in ("figures.csv", "one.npy", "three.npy", "two.npy")
    ]
    library = catalogue.library(["deep/mine"])
    assert library == (ONE, THREE, TWO)
    assert [(multiplier.power_mw, multiplier.technology, multiplier.source) for multiplier in library] == [
        (power, "FreePDK45", "figures.csv") for power in (0.3, 0.1, 0.25)
    ]
    row = next(csv.DictReader((place / "deep" / "mine" / "figures.csv").read_text().splitlines()))
    assert (row["name"], row["signed"], row["power_mw"], row["wce"], row["mae"]) == ("one", "true", "0.3", "128.0", "")


def test_importing_again_changes_nothing(place, capsys):
    assert main(["import", "tables", "--to", "mine"]) == 0
    before = {path: path.stat() for path in (place / "mine").iterdir()}
    capsys.readouterr()
    assert main(["import", "tables/two.npy", "tables/one.bin", "--to", "mine"]) == 0
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()[:2]] == [
        "unchanged: one",
        "unchanged: two",
    ]
    after = {path: path.stat() for path in (place / "mine").iterdir()}
    assert {path: (s.st_ino, s.st_mtime_ns) for path, s in before.items()} == {
        path: (s.st_ino, s.st_mtime_ns) for path, s in after.items()
    }


def test_another_table_under_a_name_needs_overwrite(place, capsys):
    assert main(["import", "tables", "--to", "mine"]) == 0
    before = content(place / "mine")
    (place / "other").mkdir()
    write_table(broken_array(1, 1, 3, "one"), place / "other" / "one.npy")
    write_table(broken_array(1, 1, 4), place / "other" / "a.npy")
    assert "holds another table called one" in refused(capsys, "import", "other", "--to", "mine")
    assert content(place / "mine") == before  # not even a.npy
    assert main(["import", "other", "--to", "mine", "--overwrite"]) == 0
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["new: a", "replaced: one"]
    found = {multiplier.name: multiplier for multiplier in read_multipliers(place / "mine")}
    assert sorted(found) == ["a", "one", "three", "two"]
    assert found["one"] == broken_array(1, 1, 3) and found["one"].power_mw is None  # it was another circuit's
    assert found["two"] == TWO and found["two"].power_mw == 0.25


def test_figures_are_added_but_not_changed(place, capsys):
    (place / "tables" / "figures.csv").rename(place / "late.csv")
    (place / "tables" / "one.bin").rename(place / "one.bin")
    assert main(["import", "one.bin", "--to", "mine", "--figures", "late.csv"]) == 0
    (place / "late.csv").write_text("name,power_mw,mae,source\none,0.30,32,elsewhere\n")
    assert main(["import", "one.bin", "--to", "mine", "--figures", "late.csv"]) == 0
    assert "figures updated: one" in capsys.readouterr().out
    row = next(csv.DictReader((place / "mine" / "figures.csv").read_text().splitlines()))
    assert (row["power_mw"], row["mae"], row["wce"], row["source"]) == ("0.3", "32", "128.0", "late.csv")
    before = content(place / "mine")
    (place / "late.csv").write_text("name,power_mw\none,0.4\n")
    message = refused(capsys, "import", "one.bin", "--to", "mine", "--figures", "late.csv")
    assert "power_mw is 0.3" in message and "0.4 in late.csv" in message and "--overwrite" in message
    assert content(place / "mine") == before
    assert main(["import", "one.bin", "--to", "mine", "--figures", "late.csv", "--overwrite"]) == 0
    assert read_multipliers(place / "mine")[0].power_mw == 0.4


def test_a_declared_signedness_is_remembered(place, capsys):
    write_table(Multiplier(name="nil", signed=True, table=np.zeros((256, 256), dtype=int)), place / "nil.npy")
    assert "signed or unsigned; declare which" in refused(capsys, "import", "nil.npy", "--to", "mine")
    for flag, signed in (("--signed", True), ("--unsigned", False)):
        assert main(["import", "nil.npy", "--to", flag[2:], flag]) == 0
        assert read_multipliers(place / flag[2:])[0].signed is signed
    # Nor does it matter that this table looks unsigned in two's-complement order: its key is kept.
    write_table(broken_array(7, 7, 0, "signs"), place / "signs.npy")
    assert main(["import", "signs.npy", "--to", "mine"]) == 0
    write_table(broken_array(7, 7, 0, "signs"), place / "mine" / "signs.bin")
    (place / "mine" / "signs.npy").unlink()
    assert read_multipliers(place / "mine") == (broken_array(7, 7, 0),)


def test_a_table_that_was_changed_after_the_import_is_refused(place, capsys):
    assert main(["import", "tables", "--to", "mine"]) == 0
    write_table(TWO, place / "mine" / "one.npy")
    assert "one.npy: not the table whose key figures.csv records" in refused(capsys, "list", "--multipliers", "mine")


@needs_tables
def test_the_28_published_tables_are_imported(capsys):
    assert main(["import", str(SHARED / "tables"), "--to", "evo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 29
    assert lines[0].startswith(
        "new: mul8u_125K (unsigned), MAE 0.625 (published 0.62), WCE 6 (published 6.0), EP % 17.188"
    )
    published = {row["name"]: row for row in csv.DictReader((SHARED / "mul8u_figures.csv").read_text().splitlines())}
    for multiplier in catalogue.library(["evo"]):
        row = published[multiplier.name]
        assert multiplier.power_mw == float(row["pdk45_power_mw"]) and multiplier.delay_ns == float(
            row["pdk45_delay_ns"]
        )
        assert np.array_equal(
            multiplier.table.ravel(), np.fromfile(SHARED / "tables" / f"{multiplier.name}.bin", "<u2")
        )
    assert main(["errors", "evo"]) == 0
    assert "28 circuits, 224 published error figures: none deviates" in capsys.readouterr().out


# -- all or nothing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [1, 3])
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
def test_an_import_that_fails_leaves_the_folder_untouched(place, capsys, monkeypatch, failing, existing, failure):
    if existing:
        assert main(["import", "tables/three.bin", "--to", "mine"]) == 0
    before = content(place)
    calls = iter(range(1, 100))

    def fsync(_: int) -> None:
        if next(calls) == failing:
            raise failure

    monkeypatch.setattr(importing.os, "fsync", fsync)
    if isinstance(failure, RuntimeError):
        with pytest.raises(RuntimeError):
            main(["import", "tables", "--to", "mine"])
    else:
        assert main(["import", "tables", "--to", "mine"]) == (2 if isinstance(failure, OSError) else 130)
        assert ("cannot write to" in capsys.readouterr().err) is isinstance(failure, OSError)
    assert content(place) == before and (place / "mine").exists() is existing


# Runs an import and dies, without a chance to tidy up, when the named function is called for the n-th time.
DYING = """
import os, pathlib, signal, sys
from spaces.multipliers.__main__ import main
owner, name, last, arguments = {"os": os, "Path": pathlib.Path}[sys.argv[1]], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
real, calls = getattr(owner, name), iter(range(1, 100))
def dying(*given):
    if next(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)
setattr(owner, name, dying)
sys.exit(main(arguments))
"""


@pytest.mark.parametrize(
    ("owner", "function", "call", "existing"),
    [("os", "fsync", 2, False), ("os", "fsync", 2, True), ("Path", "rename", 1, True), ("Path", "replace", 6, True)],
)
def test_an_import_that_is_killed_is_all_or_nothing(place, capsys, owner, function, call, existing):
    if existing:
        assert main(["import", "tables/three.bin", "--to", "mine"]) == 0
        write_table(
            broken_array(0, 0, 5, "three"), place / "tables" / "three.bin"
        )  # so that something is replaced, too
    before = content(place / "mine") if existing else {}
    arguments = ["import", "tables", "--to", "mine", "--overwrite"]
    killed = subprocess.run(
        [sys.executable, "-c", DYING, owner, function, str(call), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    if function == "replace":  # complete, but not all moved: nobody reads it until the next import has moved the rest
        assert "was cut short" in refused(capsys, "list", "--multipliers", "mine")
    elif existing:
        assert {name: data for name, data in content(place / "mine").items() if name[0] != "."} == before
        assert read_multipliers(place / "mine") == (THREE,)
    else:
        assert not (place / "mine").exists()
    assert main(["import", "tables", "--to", "mine", "--overwrite"]) == 0
    third = broken_array(0, 0, 5) if existing else THREE
    assert read_multipliers(place / "mine") == (ONE, third, TWO)
    assert sorted(content(place / "mine")) == ["figures.csv", "one.npy", "three.npy", "two.npy"]
    assert sorted(path.name for path in place.iterdir()) == ["mine", "tables"]


# -- what is refused ---------------------------------------------------------------------------------------------------

BAD = {
    "no command": ([], "say what to do: list, show, import, errors"),
    "flag first": (["--csv"], "say what to do"),
    "command": (["lst"], "unknown command 'lst'; did you mean list"),
    "flag": (["list", "--multiplier", "x"], "did you mean --multipliers"),
    "flag of another command": (["errors", "--png", "x"], "unknown flag of errors '--png'"),
    "value missing": (["import", "tables", "--to"], "--to"),
    "target missing": (["import", "tables"], "--to"),
    "sources missing": (["import", "--to", "mine"], "name the table files or folders"),
    "circuit missing": (["show"], "circuit"),
    "circuit": (["show", "mul8s_1KV9"], "did you mean mul8s_1K"),
    "circuit of a list": (["list", "--multipliers", "mul8s_1KV8", "mul8s_1KV9"], "did you mean mul8s_1K"),
    "file": (["errors", "nowhere.npy"], "'nowhere.npy' does not exist"),
    "folder": (["show", "tables"], "holds 3 circuits"),
    "picture": (["show", "mul8s_1KV8", "--png", "x.pdf"], "end its name in .png"),
    "folder of the picture": (["show", "mul8s_1KV8", "--png", "nowhere/x.png"], "nowhere/x.png"),
    "both signs": (["import", "tables", "--to", "mine", "--signed", "--unsigned"], "exclude each other"),
    "order": (["import", "tables", "--to", "mine", "--order", "number"], "did you mean numeric"),
    "wrong sign": (["import", "tables", "--to", "mine", "--unsigned"], "declared unsigned, but it looks signed"),
    "wrong order": (["import", "tables/one.bin", "--to", "mine", "--order", "numeric"], "declared in numeric order"),
    "figures": (["import", "tables", "--to", "mine", "--figures", "x.csv"], "'x.csv' does not exist"),
    "target is a file": (["import", "tables", "--to", "tables/one.bin"], "is not a folder"),
    "target holds other tables": (["import", "tables/two.npy", "--to", "tables"], "were not imported"),
    "same name twice": (["import", "tables", "tables/one.bin", "--to", "mine"], "two tables are called one"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line(case, place, capsys):
    arguments, expected = BAD[case]
    before = content(place)
    assert expected in refused(capsys, *arguments)
    assert content(place) == before and not (place / "mine").exists()


def test_another_multiplier_under_a_published_name_is_not_imported(place, capsys):
    """mul8s_1KV8 is exact in EvoApproxLib v1; another generation has an approximate one of that name."""
    write_table(broken_array(0, 0, 2), place / "mul8s_1KV8.h")
    message = refused(capsys, "import", "mul8s_1KV8.h", "--to", "mine")
    assert "mul8s_1KV8 is built in and has another truth table" in message
    (place / "mul8s_1KV8.csv").write_text("name,power_mw,wce\nmul8s_1KV8,0.425,0\n")
    message = refused(capsys, "import", "mul8s_1KV8.h", "--to", "mine")
    assert "wce 5 (published: 0)" in message and "EvoApproxLib reuses names" in message
    assert not (place / "mine").exists()


def test_figures_that_an_import_would_not_keep_are_not_overwritten(place, capsys):
    (place / "mine").mkdir()
    (place / "mine" / "figures.csv").write_text("name,power_mw\nprecious,1\n")
    assert "were not imported (figures.csv)" in refused(capsys, "import", "tables", "--to", "mine")
    assert content(place / "mine") == {"figures.csv": b"name,power_mw\nprecious,1\n"}


def test_as_a_process_it_needs_neither_torch_nor_matplotlib_to_help():
    code = (
        "import sys, json\nfrom spaces.multipliers.__main__ import main\n"
        "try:\n    main(['import', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert main(['import', 'tables', '--to', 'mine']) == 0\n"
        "print(json.dumps(sorted({'torch', 'matplotlib'} & set(sys.modules))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert shown.returncode == 0, shown.stderr
    for flag in ("--to", "--signed", "--unsigned", "--order", "--figures", "--overwrite"):
        assert flag in shown.stdout
    assert json.loads(shown.stdout.splitlines()[-1]) == []


def test_as_a_process_it_helps_and_refuses():
    helped = run_cli("--help")
    assert helped.returncode == 0 and all(name in helped.stdout for name in ("list", "show", "import", "errors"))
    failed = run_cli("show", "nowhere.npy")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "error: 'nowhere.npy' does not exist\n"


def test_reading_a_folder_of_an_unfinished_import_is_refused_by_a_library(place):
    (place / "mine" / ".import").mkdir(parents=True)
    with pytest.raises(InputError, match="was cut short"):
        catalogue.library(["mine"])
