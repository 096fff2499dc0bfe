"""Settings as TOML: what a file says is what the flags would have said."""

import pytest

from evaluation import run, train
from evaluation.cli.config_files import as_toml, expanded
from spaces.errors import InputError

FLAGS = ["--method", "random", "evoapproxnas", "--space", "grid", "--grid.rows", "3", "--random.samples", "7"]
FLAGS += [
    "--protocol",
    "fast",
    "--protocol.final-epochs",
    "3",
    "--baselines",
    "int8",
    "--deterministic",
    "--budget",
    "5evals",
]


def printed(asked) -> str:
    return as_toml(
        asked.options, asked.protocol, asked.options.protocol, {**asked.methods, asked.space: asked.space_config}
    )


def test_a_printed_file_stands_for_its_command_line(tmp_path):
    asked, file = run.parse(FLAGS), tmp_path / "run.toml"
    file.write_text(printed(asked))
    again = run.parse(expanded(["--config", str(file)], run.all_flags))
    assert again == asked and again.protocol.name == "fast-custom" and again.options.deterministic
    assert printed(again) == file.read_text()


def test_flags_after_the_file_take_precedence_over_it(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("method = ['random']\nseed = 3\ndeterministic = true\nbudget = '5evals'\nrandom.samples = 7")
    given = expanded([f"--config={file}", "--seed", "4", "--no-deterministic"], run.all_flags)
    asked = run.parse(given)
    assert (asked.options.seed, asked.options.deterministic, asked.methods["random"].samples) == (4, False, 7)


def test_both_programs_print_their_settings(tmp_path, capsys):
    for program, arguments in ((run, FLAGS), (train, ["--architecture", "darts_v2", "--protocol.final-epochs", "2"])):
        assert program.main([*arguments, "--print-config"]) == 0
        file = tmp_path / "settings.toml"
        file.write_text(capsys.readouterr().out)
        assert program.main(["--config", str(file), "--print-config"]) == 0
        assert capsys.readouterr().out == file.read_text()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("budgt = '3s'", "run.toml: unknown key 'budgt'; did you mean budget"),
        ("[protocol]\nfinal_epoch = 3", "unknown key 'protocol.final_epoch'; did you mean protocol.final_epochs"),
        ("[random]\nsamples = {a = 1}", "unknown key 'random.samples.a'"),
        ("method = [['random']]", "is no value of a setting"),
        ("= 3", "is no TOML"),
    ],
)
def test_a_file_that_is_none_is_refused(text, line, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=line):
        expanded(["--config", str(file)], run.all_flags)


def test_a_missing_file_is_bad_input(tmp_path):
    for given in (["--config"], ["--config="], ["--config", str(tmp_path / "none.toml")]):
        with pytest.raises(InputError):
            expanded(given, run.all_flags)
