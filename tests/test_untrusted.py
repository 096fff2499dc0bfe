"""Untrusted input: the one way to read each kind of file, and to print each kind of text."""

import io
import json
import os
import tarfile
import time
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import datasets
from evaluation.cli import comparison, summary
from evaluation.datasets import decode
from evaluation.datasets.containers import open_container
from evaluation.run import main
from evaluation.runs import checkpoints
from evaluation.runs.folder import read_record
from evaluation.runs.record import Failure, Judged, Record
from evaluation.settings.config import RunConfig
from methods import METHODS
from reports import build
from reports.load import load
from spaces.cli.terminal import Terminal
from spaces.errors import InputError
from spaces.files.arrays import read_array, read_arrays
from spaces.files.csv_files import read_rows
from spaces.files.json_files import parse_json, read_json
from spaces.files.reading import parsing, read_bytes
from spaces.files.saving import save_bytes, save_json
from spaces.files.schema import typed
from spaces.files.untrusted_text import csv_cell, terminal_line
from spaces.multipliers.files.datasheet import read_figures
from spaces.multipliers.files.tables import read_table
from tests import tiny
from tests.made_records import RECORDS, finalist, record, save

CPU = torch.device("cpu")
SOMEBODYS = RECORDS / "random-digits-quick-s4" / "record.json"


# -- files and their bytes ---------------------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, reason in (("pipe", "a pipe or a device"), ("endless", "a pipe or a device"), (".", "a folder")):
        with pytest.raises(InputError, match=reason):
            read_bytes(tmp_path / name, 1000)
    with pytest.raises(InputError, match="does not exist"):
        read_bytes(tmp_path / "nowhere", 1000)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 200_000])
def test_files_are_read_whole_up_to_their_bound(size, tmp_path):
    content = os.urandom(size)
    save_bytes(tmp_path / "file", content)
    assert read_bytes(tmp_path / "file", size) == content
    if size:
        with pytest.raises(InputError, match=f"at most {size - 1:,} bytes"):
            read_bytes(tmp_path / "file", size - 1)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_among_images_are_refused(kind, tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (4, 4)).save(tmp_path / part / name / f"{number}.png")
    odd = tmp_path / "train" / "a" / "1.png"
    odd.unlink()
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="train/a/1.png is a pipe or a device"):
        datasets.load(str(tmp_path))


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" + b"1" * 5000 + b"]", "a whole number of 5000 digits"),
        (b"[18446744073709551616]", "a whole number of 20 digits"),
        (b"[1e999]", "the number 1e999 is too large"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[" * 101 + b"]" * 101, "nested more than 100"),
        (b"[" * 100_000, "recursion"),
        (b"\xff", "decode"),
        (b"", "Expecting value"),
    ],
)
def test_json_is_bounded(content, reason, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"a.json is damaged .*{reason}"):
        read_json(tmp_path / "a.json")


def test_json_up_to_its_bounds_is_read():
    assert parse_json(b'[18446744073709551615, -1.5e300, "\\ud800"]', "") == [2**64 - 1, -1.5e300, "\ud800"]
    assert parse_json(b"[" * 100 + b"]" * 100, "")


@dataclass(frozen=True)
class Point:
    x: int
    name: str = "none"


class Shape(TypedDict):
    points: list[Point]
    size: tuple[float, float]
    kind: Literal["a", "b"]
    note: NotRequired[str | None]


GOOD = {"points": [{"x": 1}], "size": [1, 2.5], "kind": "a", "more": object}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"points": {}}, "points is {}, not a list"),
        ({"points": [{"x": True}]}, "points.0.x is True, not a whole number"),
        ({"points": [{"x": 1.0}]}, "points.0.x is 1.0, not a whole number"),
        ({"points": [{}]}, "points.0.x is missing"),
        ({"points": [{"x": 1, "y": 2}]}, "points.0.y is unknown"),
        ({"points": [{"x": 1, "name": None}]}, "points.0.name is None, not text"),
        ({"size": [1]}, "size has 1 entries, not 2"),
        ({"size": [1, "2"]}, "size.1 is '2', not a number"),
        ({"kind": "c"}, "kind is 'c', not 'a' or 'b'"),
        ({"note": 3}, "note is 3, not text"),
    ],
)
def test_types_are_checked(change, reason):
    assert typed(GOOD, Shape) == GOOD and typed(GOOD | {"note": None}, Shape)
    assert typed({"x": 1}, Point) == Point(1)
    with pytest.raises(InputError) as caught:
        typed(GOOD | change, Shape)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"space_config": {"nodes": "x"}}, "space_config.nodes is 'x', not a whole number"),
        ({"seed": None}, "seed is None"),
        ({"space_config": {"nodes": 65}}, "between 1 and 64 nodes, not 65"),
        ({"space": "gird"}, "unknown space 'gird'; did you mean grid"),
        ({"protocol": {"name": "a", "batch": "b"}}, "protocol.batch is 'b'"),
        ({"multipliers": "mul8s_1KV8"}, "multipliers is 'mul8s_1KV8', not a list"),
        ({"architecture": 3}, "architecture is 3"),
    ],
)
def test_settings_of_other_types_are_refused(change, reason, tmp_path):
    save_json(tmp_path / "config.json", tiny.run_config().to_json() | change)
    with pytest.raises(InputError, match=f"config.json: not the settings of a run .*{reason}"):
        RunConfig.from_json(read_json(tmp_path / "config.json"), tmp_path / "config.json")


@pytest.mark.parametrize(
    "change", [{"failures": None}, {"method": 3}, {"anytime": [1]}, {"energy_model": "x"}, {"schema": 3}]
)
def test_resuming_a_finished_run_with_a_damaged_record_is_refused(change, tmp_path, capsys):
    save_json(tmp_path / "record.json", read_json(SOMEBODYS) | change)
    save_json(tmp_path / "config.json", {})
    assert main(["--resume", str(tmp_path)]) == 2
    assert "record.json is damaged" in capsys.readouterr().err


def test_a_part_of_a_finalist_of_another_type_is_refused(tmp_path):
    content = read_json(SOMEBODYS)
    content["finalists"][0]["params"] = "many"
    save_json(tmp_path / "record.json", content)
    with pytest.raises(InputError, match="finalists.0.params is 'many', not a whole number"):
        read_record(tmp_path / "record.json")


def test_every_record_of_the_project_can_be_shown():
    for path in RECORDS.glob("*/record.json"):
        record = read_record(path)
        summary.show(Terminal(file=io.StringIO(), width=100), record, "here")
        assert Record.from_json(parse_json(json.dumps(record.to_json()).encode(), "")) == record


def test_records_of_schema_2_say_the_same_in_schema_3():
    assert any(read_json(path)["schema"] == 2 for path in RECORDS.glob("*/record.json"))
    for path in RECORDS.glob("*/record.json"):
        older, record = read_json(path), read_record(path)
        if older["schema"] != 2:
            continue
        assert record.cost == older["energy_model"]
        assert record.reference_cost == older["reference_pj"] and record.protocol.hash == older["protocol"]["hash"]
        assert record.protocol.settings["batch"] == older["protocol"]["batch"]
        # A run of today in the same settings repeats it.
        cls = METHODS[record.method].Config
        today = json.loads(json.dumps(asdict(typed(record.method_config, cls))))
        assert {name: today[name] for name in record.method_config} == record.method_config
        for found, before in zip(record.finalists, older["finalists"], strict=True):
            assert found.accuracy.test == before["accuracy"]["test"]
            for model, figures in found.costs.items():
                energy = before["energy"][model]
                assert figures.unit == "pJ" and figures.values["int8"] == energy["int8_pj"]
                assert figures.saving("fp32") == energy["saving_vs_fp32"]
                assert figures.saving("int8") == energy["saving_vs_int8"]
                assert figures.split["fp32"]["additions"] == energy["split"]["fp32"]["additions_pj"]
                assert figures.apart["approximate"]["memory"] == energy["split"]["approximate"]["memory_pj"]
            pairs = zip(found.layers, before.get("layers", []), strict=True)
            assert all(layer.costs["approximate"] == old["approximate_pj"] for layer, old in pairs)


def optional_fields(cls: type, at: tuple = ()) -> list[tuple]:
    """Where a record need not have a part: the path of its name, an index standing for a list's first entry."""
    found, hints = [], get_type_hints(cls)
    for field in fields(cls):
        kind, place = hints[field.name], (*at, field.name)
        if not field.default is field.default_factory is MISSING:
            found.append(place)
        if get_origin(kind) is tuple:
            kind, place = get_args(kind)[0], (*place, 0)
        if is_dataclass(kind):
            found += optional_fields(kind, place)
    return found


@pytest.mark.parametrize("path", optional_fields(Record), ids=lambda path: ".".join(map(str, path)))
def test_what_a_record_need_not_have_is_not_asked_for(path, tmp_path):
    failures, judged = (Failure("final", "loss is nan", "k", 1.0),), (Judged("k", 1.0, (0.5,), {"cost": 1.0}),)
    whole = replace(read_record(SOMEBODYS), failures=failures, judged=judged)
    content = parse_json(json.dumps(whole.to_json()).encode(), "")
    *parents, last = path
    part = content
    for name in parents:
        part = part[name]
    del part[last]
    save_json(tmp_path / "record.json", content)
    found = read_record(tmp_path / "record.json")
    summary.show(Terminal(file=io.StringIO(), width=100), found, "here")
    comparison.show(Terminal(file=io.StringIO(), width=100), [found, whole])
    (tmp_path / "other").mkdir()
    save_json(tmp_path / "other" / "record.json", whole.to_json())
    assert len(load([tmp_path / "record.json", tmp_path / "other"]).runs) == 2 - (found == whole)


def test_a_finished_run_is_shown_where_nothing_can_be_written(tmp_path, capsys, monkeypatch):
    save_json(tmp_path / "record.json", read_json(SOMEBODYS))
    save_json(tmp_path / "config.json", {})
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: 1 / 0)
    before = sorted(tmp_path.iterdir())
    assert main(["--resume", str(tmp_path)]) == 0
    assert "random on digits" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


# -- arrays and tables -------------------------------------------------------------------------------------------------


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        header(b"(" * 4000),
        header(b"{" * 900),
        header(b"{'descr': '<i4', 'fortran_order': False, 'shape': (" + b"9" * 3000 + b",)}"),
        header(b"{'descr': '<i4', 'fortran_order': False, 'shape': (-4,)}"),
        header(b"{'descr': 'O', 'fortran_order': False, 'shape': (8,)}"),
        header(b"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (16,)}"),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"",
    ],
)
def test_arrays_of_anything_but_plain_numbers_are_refused(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match="a.npy"):
        read_array(tmp_path / "a.npy", 1 << 20)


@pytest.mark.parametrize("kind", ["<i4", ">f8", "u1", "?", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_they_were_written(kind, order, tmp_path):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype=kind, order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "b.npz", one=array, two=array[0])
    assert np.array_equal(read_array(tmp_path / "a.npy", 1000), array)
    read = read_arrays(tmp_path / "b.npz")
    assert list(read) == ["one", "two"] and np.array_equal(read["one"], array) and read["one"].flags.writeable


def test_an_unfinished_comment_takes_no_time(tmp_path):
    (tmp_path / "a.h").write_text("/* " * 600_000)
    began = time.process_time()
    with pytest.raises(InputError, match="holds 0 arrays"):
        read_table(tmp_path / "a.h")
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["0e999", "1e-400", "nan", "1_0", "٣", "1e999", "-1", "--1"])
def test_figures_are_plain_numbers(text, tmp_path):
    (tmp_path / "f.csv").write_text(f"name,mae\na,{text}\n", encoding="utf-8")
    with pytest.raises(InputError, match="mae must be a number"):
        read_figures(tmp_path / "f.csv")
    assert read_rows(tmp_path / "f.csv", 1000)[1] == [(2, {"name": "a", "mae": text})]


# -- archives and images -----------------------------------------------------------------------------------------------


def tar_of_size(size: int) -> bytes:
    """A tar whose one member claims the size."""
    block = bytearray(tarfile.TarInfo("train/a/1.png").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % 256**12).to_bytes(12, "big")
    block[124] = 0xFF if size < 0 else 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(2048)


@pytest.mark.parametrize("size", [-1024, -1, 1 << 40])
def test_members_of_impossible_sizes_are_refused(size, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of_size(size))
    with pytest.raises(InputError, match="a.tar unpacks to far more"):
        open_container(tmp_path / "a.tar")._members  # noqa: B018


def test_transparent_images_are_whitened_strip_by_strip(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 29, 4), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    whole, kind = decode._picture(content.getvalue(), "x", 0)
    monkeypatch.setattr(decode, "STRIP", 100)  # pixels: three rows
    strips, _ = decode._picture(content.getvalue(), "x", 0)
    assert kind == "PNG" and whole.tobytes() == strips.tobytes()
    white = Image.alpha_composite(Image.new("RGBA", (29, 37), "white"), Image.fromarray(pixels)).convert("RGB")
    assert whole.tobytes() == white.tobytes()


def class_folders(path: Path) -> Path:
    for part in ("train", "test"):
        for at, name in enumerate("ab"):
            (path / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((4, 4), 100 * at + number + 10, np.uint8)
                Image.fromarray(pixels).save(path / part / name / f"{number}.png")
                os.utime(path / part / name / f"{number}.png", (1e9, 1e9))
    return path


def test_labels_follow_class_folders_that_change_their_names(tmp_path):
    path = class_folders(tmp_path / "set")
    first = datasets.load(str(path))
    tested = first.test().fingerprint
    for part in ("train", "test"):
        (path / part / "a").rename(path / part / "c")
        (path / part / "b").rename(path / part / "a")
        (path / part / "c").rename(path / part / "b")
    second = datasets.load(str(path))
    assert first.fingerprint != second.fingerprint and tested != second.test().fingerprint
    assert second.train.images[:3].min() >= 110 and second.test().images[:3].min() >= 110


def test_images_that_change_between_listing_and_reading_are_not_kept(tmp_path):
    path = class_folders(tmp_path / "set")
    dataset = datasets.load(str(path))
    (path / "test" / "a").rename(path / "test" / "c")
    (path / "test" / "b").rename(path / "test" / "a")
    (path / "test" / "c").rename(path / "test" / "b")
    with pytest.raises(InputError, match="test images of .* changed while they were read"):
        dataset.test()


def test_a_file_that_takes_anothers_place_is_decoded_again(tmp_path):
    path = class_folders(tmp_path / "set")
    before = datasets.load(str(path))
    one, other = path / "train" / "a" / "0.png", path / "train" / "b" / "2.png"
    size = one.stat().st_size
    content = other.read_bytes()
    assert len(content) == size
    one.write_bytes(content)
    os.utime(one, (1e9, 1e9))
    after = datasets.load(str(path))
    assert before.fingerprint != after.fingerprint and after.train.images[0].max() == 112


def test_a_class_with_one_image_is_named_by_its_folder(tmp_path):
    path = class_folders(tmp_path / "set")
    for number in (1, 2):
        (path / "train" / "b" / f"{number}.png").unlink()
    with pytest.raises(InputError, match="train/b holds one image"):
        datasets.load(str(path))


# -- checkpoints -------------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def test_the_refusal_of_a_malicious_checkpoint_does_not_say_how_to_load_it(tmp_path, capsys):
    torch.save({"state": Malicious()}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="it holds more than tensors and plain values") as caught:
        checkpoints.load(tmp_path / "state.pt", CPU)
    assert "weights_only" not in str(caught.value) and "run" not in capsys.readouterr().out


# -- text --------------------------------------------------------------------------------------------------------------

NASTY = "a\x1b[31m\x07[bold]b\u202ec\x9b2J"


def test_nothing_in_a_record_acts_on_a_terminal():
    content = read_record(SOMEBODYS)
    finalists = (replace(content.finalists[0], summary=NASTY + "x" * 100_000), *content.finalists[1:])
    content = replace(content, method=NASTY, notes=(NASTY,), finalists=finalists)
    console = Terminal(file=io.StringIO(), width=100)
    began = time.process_time()
    summary.show(console, content, NASTY)
    assert time.process_time() - began < 2
    text = console.file.getvalue()
    assert not set(text) & {"\x1b", "\x07", "\u202e", "\x9b"} and "[bold]" in text
    assert len(text) < 20_000


def test_errors_are_one_printable_line(capsys):
    assert build.main(["nowhere\x1b[31m\nelsewhere"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "\x1b" not in error
    assert len(terminal_line("x" * 10**6)) < 3000


def test_finalists_csv_holds_no_formulas(tmp_path):
    save(tmp_path / "runs" / "a", record(finalist(summary="ok"), command="=1+1", method="@x"))
    assert build.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "finalists.csv").read_text(encoding="utf-8")
    assert "'=1+1" in text and "'@x" in text and ",=1" not in text
    assert csv_cell(-1.5) == -1.5 and csv_cell("-1") == "'-1"


def test_a_gpu_whose_memory_is_full_is_no_fault_of_a_checkpoint():
    with pytest.raises(torch.OutOfMemoryError), parsing("the checkpoint", "does not fit"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(InputError, match="the checkpoint does not fit"), parsing("the checkpoint", "does not fit"):
        raise MemoryError  # as a forged size asks for
