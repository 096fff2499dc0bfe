"""What every command line does alike: help, flags that it does not know, values and files that are wrong, a closed stdout."""

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = 80


@dataclass(frozen=True)
class Wrong:
    """Arguments that a command refuses, and what its line says about them."""

    arguments: str
    says: str


@dataclass(frozen=True)
class Command:
    """A module with a ``main``: wrong arguments of every kind, with an empty current folder."""

    module: str
    flag: Wrong
    value: Wrong
    missing: Wrong


COMMANDS = (
    Command(
        "evaluation.run",
        Wrong("--protocl quick", "did you mean --protocol"),
        Wrong("--seeds many", "many"),
        Wrong("--resume nowhere", "'nowhere' is not a run folder"),
    ),
    Command(
        "evaluation.train",
        Wrong("--architectur darts_v2", "did you mean --architecture"),
        Wrong("--architecture darts_v2 --finalist first", "first"),
        Wrong("--architecture nowhere.json", "nowhere.json"),
    ),
    Command(
        "evaluation.compare",
        Wrong("--protocl quick", "did you mean --protocol"),
        Wrong("--seeds many", "many"),
        Wrong("--config nowhere.toml", "nowhere.toml"),
    ),
    Command(
        "evaluation.table",
        Wrong("front --cots memory", "did you mean --cost"),
        Wrong("verify --entries many", "many"),
        Wrong("front nowhere.npz", "nowhere.npz"),
    ),
    Command(
        "evaluation.campaign",
        Wrong("plan.toml --job 3", "did you mean --jobs"),
        Wrong("plan.toml --jobs many", "'many' is no number from 1 to 1024"),
        Wrong("nowhere.toml", "'nowhere.toml' does not exist"),
    ),
    Command(
        "evaluation.check_device",
        Wrong("--quik", "did you mean --quick"),
        Wrong("--budget soon", "90s"),
        Wrong("--json nowhere/file.json", "no folder 'nowhere'"),
    ),
    Command(
        "evaluation.export.__main__",
        Wrong("runs --to out --finalst 1", "did you mean --finalist"),
        Wrong("runs --to out --finalist first", "first"),
        Wrong("nowhere --to out", "nowhere"),
    ),
    Command(
        "reports.build",
        Wrong("runs --ut report", "did you mean --out"),
        Wrong("runs --watch soon", "soon"),
        Wrong("nowhere", "nowhere"),
    ),
    Command(
        "reports.paper.__main__",
        Wrong("--rerum", "did you mean --rerun"),
        Wrong("--rerun maybe", "maybe"),
        Wrong("nowhere", "nowhere"),
    ),
    Command(
        "spaces.multipliers.__main__",
        Wrong("list --multiplers a", "did you mean --multipliers"),
        Wrong("import --to", "--to"),
        Wrong("show nowhere.npy", "nowhere.npy"),
    ),
)
every_command = pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: command.module.removesuffix(".__main__")
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@every_command
@pytest.mark.parametrize("kind", ["flag", "value", "missing"])
def test_bad_input_is_one_line_and_exit_code_2(command, kind, empty_folder, capsys):
    wrong = getattr(command, kind)
    main = importlib.import_module(command.module).main
    assert main(wrong.arguments.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ") and wrong.says in line
    assert not list(empty_folder.iterdir()), "something was left behind"


def test_a_refusal_is_one_line_where_stdout_knows_only_ascii():
    """tyro frames what it says with other characters there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    line = [sys.executable, "-m", "evaluation.table", "verify", "--entries", "many"]
    answer = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr == (
        "error: Error parsing --entries: invalid literal for int() with base 10: 'many'; "
        "see python -m evaluation.table verify --help\n"
    )


HELP = """
import importlib, os, sys
sys.stdout.reconfigure(encoding="utf-8")
for name in sys.argv[1:]:
    print(f"# {name}", flush=True)
    try:
        importlib.import_module(name).main(["--help"])
    except SystemExit as stop:
        assert not stop.code, stop.code
    else:
        raise AssertionError(name)
assert "torch" not in sys.modules, "torch was imported"
"""


def test_help_fits_a_narrow_terminal_and_needs_no_torch():
    names = [command.module for command in COMMANDS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(COLUMNS), "LINES": "24"}
    line = [sys.executable, "-c", HELP, *names]
    answer = subprocess.run(line, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert answer.returncode == 0, answer.stderr
    for name, text in zip(names, answer.stdout.split("# ")[1:], strict=True):
        assert text.startswith(name) and f"usage: python -m {name.removesuffix('.__main__')}" in text
        # tyro leaves it to the terminal to wrap a line of usage.
        assert not [row for row in text.splitlines() if len(row) > COLUMNS and not row.startswith("usage: ")], name


@every_command
def test_a_reader_that_went_away_ends_it_without_a_word(command):
    """As in ``… --help | head -0``: no traceback. argparse ignores that nobody reads its help, tyro does not."""
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", command.module.removesuffix(".__main__"), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    try:
        answer = subprocess.run(line, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert answer.returncode in (0, 1) and answer.stderr == ""
