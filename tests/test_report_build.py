"""The whole report, driven as a process: what it writes, what it refuses, how it watches, and how it copes with many runs."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reports import build
from tests.made_records import ROOT, finalist, history, many_runs, record, save

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(*arguments: object, **options) -> subprocess.Popen:
    line = [sys.executable, "-m", "reports.build", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, env=ENVIRONMENT, **pipes, **options)


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    with start(*arguments, **options) as process:
        out, error = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """The report of two methods over two seeds, beside a torn record."""
    folder = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        made = finalist(approximate=0.9 + 0.02 * seed)
        save(folder / "runs" / f"r{seed}", record(made, seed=seed))
        save(folder / "runs" / f"a{seed}", record(made, seed=seed, method="approxdarts"), history())
    save(folder / "runs" / "torn", "{")
    done = command(folder / "runs", "--out", folder / "report")
    assert (done.returncode, done.stderr) == (0, "")
    page = folder / "report" / "index.html"
    assert done.stdout == f"wrote {page}: 4 runs, 4 finalists; 1 left out, listed at its end\n"
    return folder


def test_every_kind_of_file_is_there(reported):
    found = {path.relative_to(reported / "report").as_posix() for path in (reported / "report").rglob("*.*")}
    tables = {name for name in found if name.startswith("tables/")}
    figures = {name for name in found if name.startswith("figures/")}
    assert found - tables - figures == {"index.html", "report.md", "finalists.csv", ".report.json", ".report.lock"}
    assert {f"tables/section1-headline.{suffix}" for suffix in ("md", "tex", "csv")} < tables
    assert "tables/section1-methods.md" in tables and "tables/section1-methods.tex" not in tables
    for name in ("front", "anytime", "layers-1", "evolution-1", "architecture-1"):
        assert {f"figures/section1-{name}.{suffix}" for suffix in ("pdf", "svg", "png")} < figures


def test_the_text_holds_the_tables_and_what_was_left_out(reported):
    text = (reported / "report" / "report.md").read_text(encoding="utf-8")
    # Accuracies 90 and 92 %: a mean error of 9 with a deviation of √2.
    assert "| approxdarts (2) | 9.00 ± 1.41 |" in text and "9.00 ± 1.41" in text
    assert "not distinguishable in hypervolume" in text
    assert text.index("## Left out") < text.index("torn/record.json is damaged") < text.index("## Commands")
    assert "r0: python -m evaluation.run --method random, --seed 0" in text


def test_the_csv_reads_back_exactly(reported):
    with (reported / "report" / "finalists.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["test_accuracy_approximate"]) for row in rows] == [
        ("approxdarts", "0", "0.9"),
        ("approxdarts", "1", "0.92"),
        ("random", "0", "0.9"),
        ("random", "1", "0.92"),
    ]
    assert float(rows[0]["hypervolume"]) == 0.1 + 0.2


def test_the_same_runs_give_the_same_files(reported):
    first = {path: path.read_bytes() for path in (reported / "report").rglob("*.*") if path.is_file()}
    assert command(reported / "runs", "--out", reported / "report").returncode == 0
    assert {path: path.read_bytes() for path in first} == first


def test_a_run_alone_says_what_cannot_be_concluded(tmp_path):
    save(tmp_path / "runs" / "a", record(finalist(int8=None, fp32=None)))
    assert build.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "What these runs cannot show:" in text and "one seed only" in text and "no other was run" in text


def test_an_error_keeps_the_old_report(reported, tmp_path, monkeypatch):
    runs, out = tmp_path / "runs", tmp_path / "out"
    save(runs / "a", record())
    assert build.main([str(runs), "--out", str(out)]) == 0
    before = (out / "index.html").read_bytes()
    (runs / "a" / "record.json").write_text("{")
    assert build.main([str(runs), "--out", str(out)]) == 2
    monkeypatch.setattr(build.text, "report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build.main([str(reported / "runs"), "--out", str(out)])
    assert (out / "index.html").read_bytes() == before


def test_watching_builds_again_when_a_run_ends_or_comes_back_and_ctrl_c_ends_it(tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    runs.mkdir()
    # A shell that starts the tests in the background has told them to ignore Ctrl-C.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with start(runs, "--out", out, "--watch", "0.2", **heeding) as process:
        try:
            assert "waiting: no finished run to report" in process.stdout.readline()
            save(runs / "a", record())
            assert ": 1 run, 1 finalist" in process.stdout.readline()
            assert (out / "index.html").exists()
            runs.rename(tmp_path / "away")
            assert "does not exist" in process.stdout.readline()
            (tmp_path / "away").rename(runs)
            assert ": 1 run, 1 finalist" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
            assert process.stderr.read() == "stopped\n"
        finally:
            process.kill()


def test_importing_leaves_torch_alone():
    code = "import sys, reports.build, reports.paper.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{tmp}/missing"], "missing' does not exist"),
        (["{tmp}/nothing"], "no finished run to report"),
        (["{tmp}/torn"], "torn/record.json is damaged"),
        (["{tmp}/runs", "--out", "{tmp}/file"], "choose another folder with --out"),
        (["{tmp}/runs", "--out", "{tmp}/file/below"], "choose another folder with --out"),
        (["{tmp}/runs", "--ot", "x"], "did you mean --out"),
        (["{tmp}/runs", "--out"], "expected one argument"),
        (["{tmp}/runs", "--out", ""], "argument --out: an empty path"),
        ([""], "argument paths: an empty path"),
        (["{tmp}/runs", "--out", "{tmp}/runs/a"], "is the folder of a run"),
        (["{tmp}/runs", "--watch", "0"], "--watch needs a positive number of seconds"),
        (["{tmp}/runs", "--watch", "soon"], "invalid float value"),
        ([], "required: paths"),
        (["{tmp}/two\nlines"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, complaint):
    save(tmp_path / "runs" / "a", record())
    save(tmp_path / "torn", "{")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("")
    assert build.main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert complaint in told.err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the memory of a process")
def test_200_runs_fit_in_memory_and_the_page_in_a_message(tmp_path):
    """How long it takes is measured by tests/benchmarks/test_report_speed.py."""
    many_runs(tmp_path / "runs", 200)
    code = (
        "import re, sys; from pathlib import Path; from reports import build; code = build.main(sys.argv[1:]); "
        # Not ru_maxrss, which begins with what the process that starts this one holds.
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1]); sys.exit(code)"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told, kibibytes = done.stdout.splitlines()
    assert re.search(r": 200 runs, \d+ finalists$", told) and int(kibibytes) < 2**20
    assert (tmp_path / "report" / "index.html").stat().st_size < 8e6
