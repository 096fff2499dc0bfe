"""Whole runs: stages, resuming after a stop at any moment, and the command line driven as a process."""

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.runs import checkpoints
from evaluation.runs.folder import RunFolder, read_history, read_record
from evaluation.runs.stages import Run
from evaluation.runs.state import STATE
from evaluation.settings.baselines import arithmetics_of, require_baselines
from methods import installed
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.costs import COSTS
from spaces.costs.trace import total_macs, total_params
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests import tiny
from tests.method_contract import ONE_OF_EACH_KIND
from tests.running import (
    CPU,
    SMALL_RANDOM,
    Killed,
    counted_run,
    finished_run,
    moments_to_kill_at,
    quiet,
    resume,
    run_cli,
    run_here,
    stopped_run,
    without_times,
)

# -- the record --------------------------------------------------------------------------------------------------------


def test_the_record_adds_up(tmp_path):
    config = tiny.run_config("random", baselines="all")
    folder, record = finished_run(tmp_path, config)
    assert record == read_record(folder.path / "record.json")
    assert record.protocol.hash == tiny.PROTOCOL.hash
    run = Run(config, tiny.dataset(), CPU, tiny.library(config))
    assert 1 <= len(record.finalists) <= 2
    for finalist in record.finalists:
        architecture = run.problem.space.from_json(finalist.architecture)
        assert architecture.key == finalist.key
        rows = run.problem.space.costs(architecture, run.final_shape)
        assert (finalist.params, finalist.macs) == (total_params(rows), total_macs(rows))
        assert set(finalist.accuracy.test) == {"fp32", "int8", "approximate"}
        assert all(0 <= share <= 1 for share in finalist.accuracy.test.values())
        for name, costs in finalist.costs.items():
            approximate = COSTS[name].network(rows, "approximate").total
            assert costs.values["approximate"] == approximate
            assert costs.saving("int8") == pytest.approx(1 - approximate / costs.values["int8"])
            assert costs.values["fp32"] > costs.values["int8"] >= costs.values["approximate"]
            assert {name: sum(parts.values()) for name, parts in costs.split.items()} == pytest.approx(costs.values)
        for name in ARITHMETICS:
            layers = sum(layer.costs[name] for layer in finalist.layers)
            assert layers == pytest.approx(finalist.costs["horowitz45"].values[name])
        assert sum(layer.macs for layer in finalist.layers) == finalist.macs
        assert {layer.multiplier for layer in finalist.layers} - {None} == set(architecture.multipliers)
    assert all(times.device_seconds > 0 for stage, times in record.ledger.items() if stage != "snapshots")
    assert record.ledger["snapshots"].device_seconds == 0
    history = read_history(folder.path / "history.jsonl")
    assert [line["step"] for line in history] == list(range(1, len(history) + 1))
    assert sorted({line["stage"] for line in history}) == ["final", "search", "selection"]
    proposals = json.loads((folder.path / "proposals.json").read_text())
    assert {run.problem.space.from_json(data).key for data in proposals} >= {f.key for f in record.finalists}
    assert (folder.path / "finalist1.svg").read_text().startswith("<?xml")


def test_baselines_are_trained_where_asked(tmp_path):
    _, record = finished_run(tmp_path, tiny.run_config("random", baselines=("fp32",)))
    tested = [f.accuracy.test for f in record.finalists]
    assert tested and all(one["fp32"] is not None and one["int8"] is None for one in tested)


EVERY = ["approximate", "int8", "fp32"]


@pytest.mark.parametrize(
    ("asked", "first", "others"),
    [
        ("none", ["approximate"], ["approximate"]),
        ("first", EVERY, ["approximate"]),
        ("all", EVERY, EVERY),
        ("int8", ["approximate", "int8"], ["approximate", "int8"]),
        ("fp32 approximate", ["approximate", "fp32"], ["approximate", "fp32"]),
    ],
)
def test_baselines_by_name(asked, first, others):
    require_baselines(asked.split())
    assert [arithmetics_of(finalist, asked.split()) for finalist in range(3)] == [first, others, others]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [("int", "unknown arithmetic 'int'; did you mean int8"), ("fp32 all", "all stands alone"), ("", "needs names")],
)
def test_baselines_that_mean_nothing_are_refused(asked, reason):
    with pytest.raises(InputError, match=reason):
        tiny.run_config(baselines=tuple(asked.split()))


def test_a_finalist_that_diverges_is_recorded(tmp_path):
    wild = dataclasses.replace(tiny.PROTOCOL, final_lr=1e30, clip=1e30)
    _, record = finished_run(tmp_path, tiny.run_config("random", protocol=wild, baselines="none"))
    assert record.failures
    assert all(f.stage == "final" and "finite" in f.reason for f in record.failures)
    assert record.finalists[0].accuracy.test["approximate"] is None


def lines_without_times(folder: RunFolder) -> list[dict]:
    lines = read_history(folder.path / "history.jsonl")
    return [{key: value for key, value in line.items() if key != "device_seconds"} for line in lines]


@pytest.mark.parametrize(
    ("name", "every"),
    [
        # Of random search, the simplest, test_kills has two moments in CI.
        pytest.param(name, every, marks=[pytest.mark.slow] if every or name not in killed else [])
        for killed in [{*ONE_OF_EACH_KIND} - {"random"}]
        for name in sorted(installed())
        for every in (False, True)
    ],
)
def test_a_run_killed_around_any_checkpoint_and_resumed_equals_an_uninterrupted_one(name, every, tmp_path):
    protocol = dataclasses.replace(tiny.PROTOCOL, finalists=1)
    config = tiny.run_config(name, protocol=protocol, space_config={"nodes": 1}, baselines="none", snapshots=1)
    folder, whole, kinds = counted_run(tmp_path / "whole", config)
    for number, before in moments_to_kill_at(kinds, every):
        killed = stopped_run(tmp_path / "killed", config, number, before)
        assert without_times(resume(killed)) == without_times(whole), f"killed at checkpoint {number}"
        assert lines_without_times(killed) == lines_without_times(folder)


def test_kill_9_and_resume_as_a_process(tmp_path):
    flags = [*SMALL_RANDOM, "--out", str(tmp_path / "a")]
    assert run_cli(*flags).returncode == 0
    (whole,) = (tmp_path / "a").iterdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "evaluation.run", *SMALL_RANDOM, "--out", str(tmp_path / "b")],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "b").glob("*/history.jsonl")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    (killed,) = (tmp_path / "b").iterdir()
    assert not (killed / "record.json").exists()
    assert run_cli("--resume", str(killed)).returncode == 0
    expected, resumed = (without_times(read_record(path / "record.json")) for path in (whole, killed))
    assert resumed == expected


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    config = tiny.run_config("random")
    folder, record = finished_run(tmp_path, config)
    before = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir() if path.name != ".lock"}
    assert Run(config, tiny.dataset(), CPU, tiny.library(config)).execute(folder, quiet()) == record
    assert {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir() if path.name != ".lock"} == before


def test_a_run_in_use_is_not_resumed_twice(tmp_path):
    config = tiny.run_config("random")
    folder = RunFolder.create(tmp_path, config, tiny.library(config))
    with filelock.FileLock(folder.path / ".lock"), pytest.raises(InputError, match="in use"):
        Run(config, tiny.dataset(), CPU, tiny.library(config)).execute(folder, quiet())


# -- the command line --------------------------------------------------------------------------------------------------


def test_help_needs_no_torch_and_names_every_general_flag():
    code = (
        "import sys\nfrom evaluation.run import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    for flag in (
        "--method",
        "--dataset",
        "--multipliers",
        "--seeds",
        "--budget",
        "--resume",
        "--protocol.final-epochs",
    ):
        assert flag in shown.stdout


def test_help_of_a_method_shows_its_settings():
    shown = run_cli("--method", "approxdarts", "--help").stdout
    assert "--approxdarts.energy-weight" in shown
    assert "E[cost in exact int8]" in " ".join(shown.replace("│", " ").split())


BAD = {
    "method": (["--method", "aproxdarts"], "did you mean approxdarts"),
    "data set": (["--dataset", "digit"], "digits"),
    "multiplier": (["--multipliers", "mul8s_1KV9"], "did you mean mul8s_1K"),
    "multiplier twice": (["--multipliers", "mul8s_1L2H", "bam8s_1_1_0"], "same circuit"),
    "multiplier without power": (["--multipliers", "bam8s_7_7_14"], "no power figure"),
    "protocol": (["--protocol", "quik"], "did you mean quick"),
    "preset": (["--preset", "publishd"], "unknown preset of approxdarts 'publishd'; did you mean published"),
    "published without its multiplier": (["--preset", "published"], "name it with --multipliers"),
    "flag": (["--protocl", "quick"], "did you mean --protocol"),
    "key of the protocol": (["--protocol.final-epoch", "3"], "--protocol.final-epochs"),
    "key of a method": (["--random.sample", "3", "--method", "random"], "--random.samples"),
    "key of another method": (["--random.samples", "3"], "not in --method"),
    "value": (["--protocol.final-epochs", "many"], "many"),
    "range": (["--protocol.final-epochs", "0"], "at least 1"),
    "choice": (["--scope", "everything"], "separable"),
    "budget": (["--budget", "60"], "60s"),
    "cost model": (["--cost", "horowitz"], "horowitz45"),
    "same method twice": (["--method", "random", "random"], "--seeds"),
    "depth": (["--protocol.search-cells", "2"], "at least 3 cells"),
    "odd width": (["--protocol.final-channels", "5"], "even"),
    "resume": (["--resume", "nowhere"], "not a run folder"),
    "resume with other flags": (["--resume", "nowhere", "--seed", "1"], "no other flag"),
    "resume of nothing": (["--resume"], "at least one run folder"),
    "value missing": (["--method"], "expected at least one argument"),
    "not a number": (["--approxdarts.energy-weight", "nan"], "must be finite"),
    "infinite": (["--protocol.final-lr", "inf"], "must be finite"),
    "momentum": (["--approxdarts.weight-momentum", "-1"], "[0, 1)"),
    "far too many": (["--protocol.final-cells", "100000"], "at most"),
    "size of the digits": (["--image-size", "32"], "image folders"),
    "limit": (["--train-limit", "19"], "10 classes need at least 20 images"),
    "limit above the set": (["--train-limit", "1438"], "has 1,437 training images"),
    "negative limit": (["--train-limit", "-1"], "must be between 0"),
    "folder of files for the digits": (["--data-dir", "."], "'digits' has no use for it"),
    "folder without the files": (["--dataset", "svhn", "--data-dir", "."], "lacks train_32x32.mat, test_32x32.mat"),
    "archive that is not there": (["--dataset", "pets.tar.gz"], "does not exist"),
    "device": (["--device", "gpu"], "cpu"),
}


AS_A_PROCESS = ("method", "flag", "resume")  # every other case in this process, where it ends in the same way


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line_and_exit_code_2(case, tmp_path):
    arguments, expected = BAD[case]
    called = run_cli if case in AS_A_PROCESS else run_here
    answer = called(*arguments, "--out", str(tmp_path / "runs")) if "resume" not in case else called(*arguments)
    assert answer.returncode == 2
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert expected in answer.stderr
    assert not list(tmp_path.rglob("*.json")), "something was left behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused(tmp_path):
    answer = run_here("--device", "cuda", "--out", str(tmp_path / "runs"))
    assert answer.returncode == 2
    assert "--device cpu" in answer.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    answer = run_here(*SMALL_RANDOM, "--out", str(tmp_path / "runs"))
    tmp_path.chmod(0o700)
    assert answer.returncode == 2
    assert "--out" in answer.stderr


def test_an_out_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    answer = run_here(*SMALL_RANDOM, "--out", str(tmp_path / "file"))
    assert answer.returncode == 2
    assert "--out" in answer.stderr


@pytest.fixture(scope="module")
def half_finished(tmp_path_factory) -> Path:
    """A run that was killed in its second step."""
    config = tiny.run_config("random")
    folder = RunFolder.create(tmp_path_factory.mktemp("half"), config, tiny.library(config))
    run = Run(config, tiny.dataset(), CPU, tiny.library(config))
    step = run.problem.evaluate
    calls = iter(range(10))

    def evaluate(architectures):
        if next(calls) == 1:
            raise Killed
        return step(architectures)

    run.problem.evaluate = evaluate
    with pytest.raises(Killed):
        run.execute(folder, quiet())
    return folder.path


def tear_history(path: Path) -> None:
    (path / "history.jsonl").write_text('{"step": 1, "st')


def lose_history(path: Path) -> None:
    (path / "history.jsonl").unlink()


def damage_state(path: Path) -> None:
    content = (path / STATE).read_bytes()
    (path / STATE).write_bytes(content[: len(content) // 2])


def pickle_state(path: Path) -> None:
    (path / STATE).write_bytes(pickle.dumps({"method": Path}))


def other_method(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config |= {"method": "approxdarts", "method_config": tiny.method_config("approxdarts")}
    (path / "config.json").write_text(json.dumps(config))


def other_data(path: Path) -> None:
    state = checkpoints.load(path / STATE, CPU)
    checkpoints.save(path / STATE, {**state, "data": "0" * 64})


def other_seed(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "seed": 7}))


def unknown_setting(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["method_config"]["sample"] = 3
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (tear_history, "history.jsonl is damaged"),
        (lose_history, "history.jsonl is damaged"),
        (damage_state, "state.pt is damaged"),
        (pickle_state, "state.pt is damaged"),
        (other_method, "belongs to method 'random'"),
        (other_data, "not those that this run began with"),
        (unknown_setting, "config.json"),
        (other_seed, "was changed since the checkpoint"),
    ],
)
def test_a_damaged_run_folder_is_refused(half_finished, tmp_path, harm, expected):
    place = RunFolder(Path(shutil.copytree(half_finished, tmp_path / "run")))
    harm(place.path)
    with pytest.raises(InputError, match=expected):
        Run(place.config(), tiny.dataset(), CPU, tiny.library(place.config())).execute(place, quiet())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 2, "method": "random"}', "\x00\xff"]
)
def test_a_damaged_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    answer = run_here("--resume", str(tmp_path))
    assert answer.returncode == 2
    assert "config.json" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_two_methods_and_two_seeds_and_their_report(tmp_path):
    flags = [
        "--approxdarts.epochs",
        "1",
        "--approxdarts.warmup",
        "0",
        "--approxdarts.proposals",
        "1",
        *SMALL_RANDOM[2:],
    ]
    answer = run_here(
        "--method", "random", "approxdarts", "--seeds", "2", "--budget", "2steps", "--out", str(tmp_path), *flags
    )
    assert answer.returncode == 0, answer.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{m}-digits-quick-custom-s{s}-1" for m in ("approxdarts", "random") for s in (0, 1)]
    report = subprocess.run(
        [sys.executable, "-m", "reports.build", str(tmp_path), "--out", str(tmp_path / "report")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode == 0, report.stderr
    assert "approxdarts" in (tmp_path / "report" / "report.md").read_text()


# -- image folders -----------------------------------------------------------------------------------------------------


def image_folder(root: Path, suffix: str = "png", size: tuple[int, int] = (8, 8)) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (*size, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.{suffix}")
    return root


def test_a_folder_of_images_runs(tmp_path):
    data = image_folder(tmp_path / "pets")
    answer = run_here(*SMALL_RANDOM, "--dataset", str(data), "--out", str(tmp_path / "runs"), "--baselines", "none")
    assert answer.returncode == 0, answer.stderr
    (record,) = (tmp_path / "runs").glob("random-pets-*/record.json")
    assert read_record(record).dataset == "pets"


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def class_missing(root: Path) -> None:
    shutil.rmtree(root / "test" / "dog")


def class_too_many(root: Path) -> None:
    (root / "test" / "fox").mkdir()


def empty_class(root: Path) -> None:
    for path in (root / "train" / "cat").iterdir():
        path.unlink()


def broken_image(root: Path) -> None:
    (root / "train" / "cat" / "0.png").write_bytes(b"not an image")


def deep_image(root: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(root / "train" / "cat" / "0.png")


def other_size(root: Path) -> None:
    Image.new("RGB", (9, 8)).save(root / "train" / "dog" / "3.png")


def too_few(root: Path) -> None:
    for number in range(1, 12):
        (root / "train" / "cat" / f"{number}.png").unlink()


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (no_test, "no folder 'test'"),
        (class_missing, "lacks the class 'dog'"),
        (class_too_many, "fox"),
        (empty_class, "holds no images"),
        (broken_image, "0.png"),
        (deep_image, "8 bits"),
        (other_size, "--image-size"),
        (too_few, "cat holds one image"),
    ],
)
def test_a_bad_image_folder_is_refused(tmp_path, harm, expected):
    data = image_folder(tmp_path / "pets")
    harm(data)
    answer = run_here(*SMALL_RANDOM, "--dataset", str(data), "--out", str(tmp_path / "runs"))
    assert answer.returncode == 2
    assert expected in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


# -- circuits of one's own ---------------------------------------------------------------------------------------------


def foreign_tables(folder: Path, figures: str = "mine_a,0.3\nmine_b,0.1\n") -> Path:
    folder.mkdir()
    values = np.arange(-128, 128)
    for name, cut in (("mine_a", 4), ("mine_b", 16)):
        np.save(folder / f"{name}.npy", np.multiply.outer(values // cut * cut, values))
    if figures:
        (folder / "figures.csv").write_text("name,power_mw\n" + figures)
    return folder


def test_foreign_tables_travel_with_the_run(tmp_path):
    library = catalogue.library([str(foreign_tables(tmp_path / "tables")), "mul8s_1KV8"])
    keys = {multiplier.name: multiplier.key for multiplier in library}
    config = tiny.run_config(multipliers=tuple(keys), tables=keys)
    place = RunFolder.create(tmp_path / "runs", config, library)
    shutil.rmtree(tmp_path / "tables")
    again = RunFolder(place.path).library(place.config())
    assert again == library and [multiplier.power_mw for multiplier in again] == [0.3, 0.1, 0.425]
    assert sorted(path.stem for path in (place.path / "multipliers").glob("*.npy")) == ["mine_a", "mine_b"]
    record = Run(config, tiny.dataset(), CPU, again).execute(place, quiet())
    assert record.tables == keys
    other = {**config.to_json(), "tables": {**keys, "mine_a": "0" * 64}}
    (place.path / "config.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="mine_a has another truth table than when this run began"):
        place.library(place.config())


def test_a_run_on_a_folder_of_tables_and_one_engine(tmp_path):
    tables = foreign_tables(tmp_path / "tables")
    flags = [flag for flag in SMALL_RANDOM if not flag.startswith("mul8s")]
    flags[flags.index("--multipliers") : flags.index("--multipliers") + 1] = ["--multipliers", str(tables)]
    done = run_here(*flags, "--engine", "gather", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    record = read_record(next((tmp_path / "runs").glob("*/record.json")))
    assert record.multipliers == ("mine_a", "mine_b") and record.engine == "gather"
    for arguments, expected in (
        (("--multipliers", str(foreign_tables(tmp_path / "bare", figures=""))), "mine_a has no power figure"),
        (("--multipliers", str(foreign_tables(tmp_path / "lacking", "mine_a,1\n"))), "mine_b"),
        (("--engine", "gahter"), "engine"),
        (("--engine", "triton"), "engine 'triton' cannot be used"),
    ):
        refused = run_here(*flags, *arguments, "--out", str(tmp_path / "none"))
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
        assert expected in refused.stderr and not (tmp_path / "none").exists()
