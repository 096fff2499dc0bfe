"""A report's files appear together, and those of a former report that have no successor go."""

import json

import pytest

from reports.files import DRAFT, LOCK, MANIFEST, publishing, write_text
from spaces.errors import InputError


def publish(out, files: dict[str, str], program: str = "build") -> None:
    with publishing(out, program) as draft:
        for name, text in files.items():
            write_text(draft / name, text)


def content(out) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in (MANIFEST, LOCK))
    return {path.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in files}


def test_a_new_report_replaces_the_old_one_and_nothing_else(tmp_path):
    out = tmp_path / "report"
    publish(out, {"index.html": "1", "figures/a.svg": "a", "figures/b.svg": "b"})
    (out / "figures" / "mine.svg").write_text("mine")
    (out / "notes.txt").write_text("mine")
    publish(out, {"index.html": "2", "figures/b.svg": "c"})
    assert content(out) == {"index.html": "2", "figures/b.svg": "c", "figures/mine.svg": "mine", "notes.txt": "mine"}
    publish(out, {"index.html": "3"})
    assert content(out) == {"index.html": "3", "figures/mine.svg": "mine", "notes.txt": "mine"}


def test_two_programs_share_a_folder(tmp_path):
    publish(tmp_path, {"paper.md": "p", "shared.md": "p"}, "paper")
    publish(tmp_path, {"index.html": "b", "shared.md": "b", "old/x": "x"}, "build")
    publish(tmp_path, {"index.html": "c"}, "build")
    # shared.md was written by both: it is still the other's to keep.
    assert content(tmp_path) == {"paper.md": "p", "shared.md": "b", "index.html": "c"}


def test_an_error_half_way_leaves_the_old_report(tmp_path):
    publish(tmp_path, {"index.html": "old"})
    with pytest.raises(ZeroDivisionError), publishing(tmp_path, "build") as draft:
        write_text(draft / "index.html", "half")
        raise ZeroDivisionError
    assert content(tmp_path) == {"index.html": "old"}
    assert not (tmp_path / DRAFT).exists()


def test_what_a_killed_report_left_is_cleared_away(tmp_path):
    write_text(tmp_path / DRAFT / "half.md", "half")
    publish(tmp_path, {"index.html": "whole"})
    assert content(tmp_path) == {"index.html": "whole"}


def test_two_reports_at_once_are_refused(tmp_path):
    with publishing(tmp_path, "build"), pytest.raises(InputError, match="another report is being written"):
        publish(tmp_path, {"a": "1"})


@pytest.mark.parametrize("manifest", ["", "[]", '{"build": 1}', '{"build": [1, null]}', "\udcff"])
def test_a_damaged_manifest_removes_nothing(tmp_path, manifest):
    publish(tmp_path, {"a": "1"})
    (tmp_path / MANIFEST).write_bytes(manifest.encode("utf-8", "surrogateescape"))
    publish(tmp_path, {"b": "2"})
    assert content(tmp_path) == {"a": "1", "b": "2"}
    assert json.loads((tmp_path / MANIFEST).read_text()).get("build") == ["b"]


def test_a_manifest_cannot_reach_outside(tmp_path):
    (tmp_path / "treasure").write_text("gold")
    out = tmp_path / "report"
    publish(out, {"a": "1"})
    (out / MANIFEST).write_text(json.dumps({"build": ["../treasure", str(tmp_path / "treasure"), "a\0"]}))
    publish(out, {"a": "2"})
    assert (tmp_path / "treasure").read_text() == "gold"


def test_a_file_in_the_way_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another folder with --out"):
        publish(tmp_path / "file", {"a": "1"})
    (tmp_path / "out" / "index.html").mkdir(parents=True)
    with pytest.raises(InputError, match="choose another folder with --out"):
        publish(tmp_path / "out", {"index.html": "1"})


@pytest.mark.parametrize("name", ["config.json", "record.json"])
def test_a_run_folder_is_no_place_for_a_report(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="is the folder of a run"):
        publish(tmp_path, {"a": "1"})
    assert content(tmp_path) == {name: "{}"}


def test_names_that_are_no_unicode_are_no_reason_to_lose_the_report(tmp_path):
    publish(tmp_path, {"a.md": "run \udcff"})
    assert content(tmp_path) == {"a.md": "run \\udcff"}
