"""The command ``approxnas``: beside packages of the same names, what it lists, and what it refuses before torch is imported."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import approxnas
from evaluation import compare
from evaluation.cli import choices
from methods import METHODS
from spaces.cli import programs
from spaces.errors import InputError

ROOT = Path(__file__).parents[1]
FLOORS = ("spaces", "methods", "evaluation", "reports")
SCRIPT = """import sys
from approxnas import script
if __name__ == "__main__":
    script()
"""  # as pip writes it


def process(*line: str, path: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, *line], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A folder of a user whose packages are called as ours, with the installed command in another folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "approxnas").write_text(SCRIPT)
    for name in FLOORS:
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "__init__.py").write_text("raise ImportError('not yours')\n")
    return tmp_path


def test_it_works_beside_packages_of_the_same_names(foreign):
    project = foreign / "project"
    line = ("multipliers", "list", "--multipliers", "mul8s_1L2H", "--csv")
    answer = process(
        str(foreign / "bin" / "approxnas"), *line, path=os.pathsep.join((str(project), str(ROOT))), cwd=project
    )
    assert answer.returncode == 0 and answer.stderr == "", answer.stderr
    assert answer.stdout.splitlines()[1].startswith("mul8s_1L2H,true,")


def test_processes_that_it_spawns_find_our_packages_too(foreign):
    """multiprocessing imports the main script in every process."""
    program = SCRIPT.replace("    script()", "    go()").replace(
        "if __name__",
        "def work(_):\n    from spaces.errors import InputError\n    return InputError.__module__\n\n"
        "def go():\n    import multiprocessing\n    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(work, [0]))\n\nif __name__",
    )
    (foreign / "bin" / "approxnas").write_text(program)
    path = os.pathsep.join((str(foreign / "project"), str(ROOT)))
    answer = process(str(foreign / "bin" / "approxnas"), path=path, cwd=foreign / "project")
    assert answer.stdout == "['spaces.errors']\n", answer.stderr


@pytest.mark.parametrize(("module", "shadowed"), [("evaluation.run", "spaces"), ("reports.build", "evaluation")])
def test_python_m_says_in_one_line_which_package_is_in_the_way(module, shadowed, tmp_path):
    (tmp_path / shadowed).mkdir()
    (tmp_path / shadowed / "__init__.py").touch()
    answer = process("-m", module, "--help", path=str(ROOT), cwd=tmp_path)
    assert answer.returncode == 2 and answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert f"takes '{shadowed}' from {tmp_path / shadowed} and not from" in line and "command approxnas" in line


def test_imports_raise_where_a_package_is_in_the_way(tmp_path):
    (tmp_path / "methods.py").touch()
    answer = process("-c", "import evaluation", path=str(ROOT), cwd=tmp_path)
    assert answer.stderr.splitlines()[-1].startswith("ImportError: Python takes 'methods' from ")


def test_a_package_that_was_overwritten_is_named(tmp_path):
    for name in FLOORS:
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / name / "__init__.py", tmp_path / name)
    shutil.copy(ROOT / "spaces" / "own_floors.py", tmp_path / "spaces")
    ask = "import runpy; print(runpy.run_path('spaces/own_floors.py')['complaint']())"
    assert process("-c", ask, path="", cwd=tmp_path).stdout == "None\n"
    (tmp_path / "spaces" / "__init__.py").write_text('"""Hardware for demos."""\n')
    said = process("-c", ask, path="", cwd=tmp_path).stdout
    assert said.startswith(f"another package has overwritten {tmp_path / 'spaces'};")


REFUSED = {
    "--cost bar": "unknown cost model 'bar'",
    "--energy-model bar": "unknown flag '--energy-model'",
    "--method randon": "did you mean random",
    "--executor foo": "unknown executor 'foo'",
    "--dataset nope": "'nope'",
    "--dataset no/pe": "'no/pe' does not exist",
    "--task x": "unknown task 'x'",
    "--evaluator x": "unknown evaluator 'x'",
    "--device gpu": "unknown device 'gpu'",
    "--baselines fp31": "did you mean fp32",
    "--protocol x": "unknown protocol 'x'",
    "--space c": "unknown space 'c'",
    "--rundom.samples 3": "unknown flag '--rundom.samples'",
}
REFUSE = """
import sys
from evaluation import run
for arguments in sys.argv[1:]:
    assert run.main(arguments.split()) == 2
assert "torch" not in sys.modules
"""


def test_a_wrong_name_is_refused_before_torch_is_imported(tmp_path):
    answer = process("-c", REFUSE, *REFUSED, path=str(ROOT), cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    for line, says in zip(answer.stderr.splitlines(), REFUSED.values(), strict=True):
        assert line.startswith("error: ") and says in line


def test_what_can_be_chosen_has_a_line_each(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = choices.listing()
    assert max(map(len, shown.splitlines())) <= 60
    found = choices.choices()
    assert list(found["methods (--method)"]) == list(METHODS)
    assert {"quick", "bench"} < found["protocols (--protocol)"].keys()
    assert found["spaces (--space)"].keys() >= {"cells", "grid", "bench"}
    assert found["cost models (--cost)"].keys() >= {"horowitz45", "system45"}
    for lines in found.values():
        assert all(lines.values()), lines


def test_its_help_and_version(capsys):
    assert approxnas.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in programs.MODULES)
    assert approxnas.main(["--version"]) == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"approxnas {project['version']}\n"


def test_messages_call_a_command_as_it_was_called(monkeypatch):
    assert programs.program("multipliers") == "python -m spaces.multipliers"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/approxnas", "run"])
    assert programs.program("run") == "approxnas run"


def test_completion_knows_commands_and_flags(capsys):
    assert approxnas.main(["--tyro-print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    for word in ("multipliers", "--evoapproxnas.population", "--retry-failed", "--watch", "front"):
        assert word in script


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "did you mean run"),
        (["--versio"], "--versio"),
        (["--tyro-print-completion"], "needs a shell (bash, zsh, fish)"),
        (["--tyro-print-completion", "bsh"], "did you mean bash"),
        (["compare", "--method", "random"], "at least two methods"),
        (["compare", "--resume", "runs"], "run --resume"),
        (["compare", "--method", "random", "zeri"], "did you mean zero"),
    ],
)
def test_what_it_does_not_know_is_one_line(arguments, says, capsys):
    assert approxnas.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and says in line


def test_a_comparison_has_controls_and_several_seeds_unless_it_is_told_otherwise():
    assert compare.with_defaults(["--budget", "60s"])[:8] == [
        "--method", "approxdarts", "evoapproxnas", "random", "local_search", "zero", "--seeds", "3"
    ]  # fmt: skip
    given = ["--method", "gdas", "zero", "--seeds", "5"]
    assert compare.with_defaults(given) == given
    with pytest.raises(InputError, match="at least two"):
        compare.with_defaults(["--method"])
