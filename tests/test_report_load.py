"""Loading for reports: sections that never mix, variants, and what is left out."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.runs.sound_records import LARGEST
from evaluation.settings.config import RunConfig
from evaluation.settings.protocols import named_protocol
from reports.load import Loaded, Run, load
from spaces.errors import InputError
from tests.examples import examples
from tests.made_records import NAN, RECORDS, damaged, finalist, history, moment, record, save


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def only(loaded: Loaded) -> Run:
    (run,) = loaded.runs
    return run


# -- rows --------------------------------------------------------------------------------------------------------------


def test_every_number_of_a_finalist_is_in_its_row(runs):
    third = finalist(validation=1 / 3, fp32=2 / 3, int8=None, approximate=0.1 + 0.7, pj=100 / 7)
    folder = save(runs / "a", record(finalist(), third, seed=7))
    frame = load([runs]).finalists
    assert list(frame["finalist"]) == [1, 2]
    row = frame.iloc[1]
    numbers = {
        "validation_accuracy": 1 / 3,
        "test_accuracy_fp32": 2 / 3,
        "test_accuracy_approximate": 0.1 + 0.7,
        "horowitz45_fp32_pj": 1000.0,
        "horowitz45_approximate_pj": 100 / 7,
        "horowitz45_saving_vs_int8": 1 - 100 / 7 / 200,
        "approxdarts_int8_pj": 400.0,
        "approxdarts_saving_vs_fp32": 1 - 200 / 7 / 800,
        "int8_multiplications_pj": 0.9 * 200.0,
        "fp32_additions_pj": 100.0,
        "approximate_memory_pj": 7 * (100 / 7),
        "final_device_seconds": 360.0,
        "total_device_seconds": 471.6,
        "hypervolume": 0.30000000000000004,
    }
    assert {name: row[name] for name in numbers} == numbers
    assert (row["seed"], row["params"], row["macs"], row["scope"]) == (7, 1234, 56789, "all")
    assert (row["device_name"], row["protocol_hash"]) == ("a | processor", "a" * 64)
    assert row["command"] == "python -m evaluation.run --method random, --seed 7"
    assert row["record_file"] == str(folder / "record.json")
    assert frame["test_accuracy_int8"].isna().tolist() == [False, True]
    assert frame["accuracy_drop_vs_int8"].isna().tolist() == [False, True]
    assert frame["accuracy_drop_vs_int8"][0] == 0.95 - 0.94


def test_best_finalist_is_chosen_on_validation_never_on_test(runs):
    flattering, best = finalist(validation=0.8, approximate=0.99), finalist(validation=0.9, approximate=0.7)
    save(runs / "a", record(flattering, best))
    assert only(load([runs])).best["test_accuracy_approximate"] == 0.7


def test_best_finalist_whose_training_failed_is_not_replaced(runs):
    failure = {"stage": "final", "key": "abcdef01", "reason": "FloatingPointError: loss is nan"}
    save(runs / "a", record(finalist(0.8), finalist(0.9, approximate=None), failures=[failure, failure]))
    run = only(load([runs]))
    assert run.best.isna()["test_accuracy_approximate"]
    assert run.failures == ["final: FloatingPointError: loss is nan (2 ×)"]


def test_a_run_keeps_its_history_and_a_torn_end_is_still_being_written(runs):
    folder = save(runs / "a", record(), history(3))
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "sta')
    assert list(only(load([runs])).history) == history(3)


@pytest.mark.parametrize("line", ["nonsense", "[1]", "[" * 100_000])
def test_a_damaged_history_is_named_and_the_record_still_used(runs, line):
    save(runs / "a", record())
    (runs / "a" / "history.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    loaded = load([runs])
    assert only(loaded).history == ()
    (left,) = loaded.left_out
    assert "history.jsonl (its record is used)" in left.place and "line 2 is torn" in left.reason


# -- sections and variants ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "b" * 64},
        {"scope": "separable"},
        {"dataset": "cifar10"},
        {"dataset_fingerprint": "0" * 64},  # another folder of the same name
        {"train_limit": 2000},
        {"cost": "approxdarts"},
        {"space": "grid"},
        {"space_config": {"nodes": 3}},
    ],
)
def test_sections_never_mix(runs, other):
    save(runs / "a", record(finalist(approximate=0.8)))
    save(runs / "b", record(finalist(approximate=0.6), seed=1, **other))
    sections = load([runs]).sections
    assert [section.name for section in sections] == ["section1", "section2"]
    assert sorted(section.finalists["test_accuracy_approximate"].tolist() for section in sections) == [[0.6], [0.8]]
    assert sections[0].data.startswith("UCI digits (fingerprint ")


def test_a_training_limit_is_in_the_title(runs):
    save(runs / "older", record())
    save(runs / "whole", record(seed=1, train_limit=0))
    save(runs / "part", record(seed=2, train_limit=2000))
    save(runs / "wrong", record(seed=3, train_limit="many"))
    loaded = load([runs])
    told = [(section.title.partition(", space")[0], len(section.runs)) for section in loaded.sections]
    assert told == [("digits", 2), ("digits (2,000 training images)", 1)]
    assert "train_limit is 'many'" in loaded.left_out[0].reason


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"method_config": {"samples": 99}}, "random (samples=99)"),
        ({"multipliers": ["mul8s_1KVA"]}, "random (multipliers=mul8s_1KVA)"),
        ({"multiplier_choice": "network"}, "random (multiplier_choice=network)"),
        ({"tables": {"mul8s_1KV8": "0" * 64}}, "random (other truth tables under the same names)"),
        ({"device": {"type": "cuda", "name": "H100", "count": 1}}, "random (device=cuda H100 1)"),
        ({"budget": "45s"}, "random (budget=45s)"),
        ({"engine": "gather"}, "random (engine=gather)"),
    ],
)
def test_other_settings_are_no_repetitions(runs, other, told):
    """The variant that most runs belong to bears the method's name alone."""
    save(runs / "a", record())
    save(runs / "b", record(seed=1))
    save(runs / "c", record(seed=2, **other))
    (section,) = load([runs]).sections
    assert {variant: [run.seed for run in group] for variant, group in section.variants.items()} == {
        "random": [0, 1],
        told: [2],
    }


def test_usual_are_the_settings_that_methods_share(runs):
    """Six of one budget and seven of another, and the other way round: what both methods have is the same either way."""
    for method, counts in (("a", {"45s": 2, "90s": 3}), ("b", {"45s": 3}), ("c", {"45s": 1, "10s": 2})):
        for budget, count in counts.items():
            for seed in range(count):
                save(runs / f"{method}{budget}{seed}", record(method=method, seed=seed, budget=budget))
    (section,) = load([runs]).sections
    assert {variant: len(group) for variant, group in section.variants.items()} == {
        "a": 2, "b": 3, "c": 1, "a (budget=90s)": 3, "c (budget=10s)": 2,
    }  # fmt: skip
    assert {run.record.budget for run in section.pictured[""].runs} == {"45s"}


def test_two_long_lists_of_multipliers_do_not_read_the_same(runs):
    for seed, names in enumerate((["a"], ["a", "b", "c"], ["a", "b", "d"])):
        save(runs / str(seed), record(seed=seed, multipliers=names))
    assert len(load([runs]).sections[0].variants) == 3


def test_a_new_driver_is_a_repetition_and_another_device_on_the_way_is_not(runs):
    gpu = {"type": "cuda", "name": "H200", "count": 1}
    moved = "resumed on cpu after cuda at step 3: other random numbers from there on"
    save(runs / "a", record(device=gpu | {"driver": "1", "power_limit_watts": 700}))
    save(runs / "b", record(seed=1, device=gpu | {"driver": "2", "power_limit_watts": 600}))
    save(runs / "c", record(seed=2, device=gpu, notes=[moved, "another note"]))
    (section,) = load([runs]).sections
    assert [[run.seed for run in group] for group in section.variants.values()] == [[0, 1], [2]]
    assert section.runs[2].notes == (moved, "another note")


def test_a_picture_shows_methods_or_the_variants_of_one(runs):
    for seed, (method, budget) in enumerate((("a", ""), ("a", ""), ("a", "5m"), ("b", ""))):
        save(runs / str(seed), record(method=method, seed=seed, budget=budget, space_config={"nodes": 4}))
    (section,) = load([runs]).sections
    assert section.title.startswith("digits, space cells (4 nodes), protocol quick")
    assert list(section.variants) == ["a", "b", "a (budget=5m)"]
    shown = {name: (part.name, list(part.variants)) for name, part in section.pictured.items()}
    assert shown == {"": ("section1", ["a", "b"]), "a": ("section1-variants-1", ["a", "a (budget=5m)"])}


def test_runs_are_sorted_by_method_variant_and_seed(runs):
    for number, (method, seed) in enumerate((("b", 1), ("a", 2), ("b", 0), ("a", 10))):
        save(runs / str(number), record(method=method, seed=seed))
    assert [(run.variant, run.seed) for run in load([runs]).runs] == [("a", 2), ("a", 10), ("b", 0), ("b", 1)]


# -- finding -----------------------------------------------------------------------------------------------------------


def test_runs_are_found_two_levels_deep_and_counted_once(tmp_path, runs):
    save(runs / "a", record())
    save(runs / "night" / "b", record(seed=1))
    save(runs / "far" / "too" / "deep", record(seed=2))
    save(runs / "copy", record())
    alone = save(tmp_path / "other", record(seed=3)) / "record.json"
    (tmp_path / "nothing").mkdir()
    loaded = load([runs, runs / "a", alone, alone.parent, tmp_path / "nothing"])
    assert [(run.seed, run.name) for run in loaded.runs] == [(0, "a"), (1, "b"), (3, "other")]
    assert sorted((left.place, left.reason) for left in loaded.left_out) == [
        (f"{tmp_path}/nothing", "it holds no run folder, up to 2 levels deep"),
        (f"{runs}/copy", f"a copy of {runs}/a; counted once"),
    ]


def test_runs_of_equal_folder_names_are_told_apart_by_those_above(tmp_path):
    save(tmp_path / "x" / "s0", record())
    save(tmp_path / "y" / "s0", record(seed=1))
    save(tmp_path / "y" / "s1", record(seed=2))
    assert [run.name for run in load([tmp_path]).runs] == ["x/s0", "y/s0", "s1"]


def test_what_cannot_be_used_is_listed_with_its_reason(runs):
    save(runs / "good", record())
    (runs / "unfinished").mkdir()
    (runs / "unfinished" / "config.json").write_text(json.dumps({"schema": 99}))
    save(runs / "torn", json.dumps(record())[:200])
    save(runs / "newer", record(schema=99))
    save(runs / "failed", record(status="failed"))
    save(runs / "list", "[]")
    save(runs / "deep", "[" * 100_000)
    save(runs / "nan", record(finalist(validation=NAN)))
    save(runs / "text", record(finalist(approximate="high")))
    save(runs / "huge", record(finalist(pj=1e200)))
    save(runs / "share", record(finalist(fp32=99.0)))
    save(runs / "negative", record(anytime=[moment(1, 1.0, (0.5, -100.0))]))
    save(runs / "beyond", record(anytime=[moment(1, 1.0, (-5.0, 100.0))]))
    save(runs / "backwards", record(anytime=[moment(1, 2.0, (0.5, 100.0)), moment(2, 1.0, (0.5, 100.0))]))
    save(runs / "weightless", record(reference_cost=0))
    save(runs / "empty", record(finalists=[]))
    save(runs / "bare", {key: value for key, value in record().items() if key != "scope"})
    save(runs / "moment", record(anytime=[{"device_seconds": 1.0, "front": [[0.5, NAN]]}]))
    save(runs / "unit", {key: value for key, value in record().items() if key != "reference_cost"})
    (runs / "directory" / "record.json").mkdir(parents=True)
    (runs / "loop").mkdir()
    (runs / "loop" / "config.json").write_text("{}")
    (runs / "loop" / "record.json").symlink_to("record.json")
    loaded = load([runs])
    assert [run.name for run in loaded.runs] == ["good"]
    left = {Path(left.place).name: left.reason for left in loaded.left_out}
    expected = {
        "unfinished": "unfinished/config.json: schema 99 is newer",
        "torn": "torn/record.json is damaged",
        "newer": "newer/record.json: schema 99",
        "failed": "failed/record.json: the run's status is 'failed'",
        "list": "list/record.json is not the record of a run",
        "deep": "deep/record.json is damaged",
        "nan": "nan/record.json is damaged (NaN is no number of JSON)",
        "text": "text/record.json is damaged: finalists.0.accuracy.test.approximate is 'high', not a number",
        "huge": "huge/record.json is damaged",
        "share": "share/record.json is damaged: finalists.0.accuracy.test.fp32 is 99.0, not a share from 0 to 1",
        "negative": "negative/record.json is damaged: anytime.0.front.0.1 is -100.0, below 0",
        "beyond": "beyond/record.json is damaged: anytime.0.front.0.0 is -5.0, not a share from 0 to 1",
        "backwards": "backwards/record.json is damaged: anytime.1 is earlier than the moment before it",
        "weightless": "weightless/record.json is damaged: reference_cost is 0",
        "empty": "empty/record.json is damaged: it has no finalists",
        "bare": "bare/record.json is damaged: scope is missing",
        "moment": "moment/record.json is damaged (NaN is no number of JSON)",
        "unit": "unit/record.json is damaged: reference_cost is missing",
        "directory": "is a folder, not a file",
        "loop": "loop/config.json",
    }
    assert left.keys() == expected.keys()
    assert {name: words for name, words in expected.items() if words not in left[name]} == {}


def test_pipes_are_not_waited_for(runs):
    save(runs / "good", record())
    save(runs / "silent", record(seed=1))
    os.mkfifo(runs / "silent" / "history.jsonl")
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "record.json")
    loaded = load([runs])
    assert [run.name for run in loaded.runs] == ["good", "silent"]
    assert sorted(left.reason for left in loaded.left_out) == [
        f"'{runs}/pipe/record.json' is a pipe or a device, not a file",
        f"'{runs}/silent/history.jsonl' is a pipe or a device, not a file",
    ]


def test_a_folder_that_cannot_be_read_is_told_once(runs, monkeypatch):
    save(runs / "good", record())
    locked = runs.parent / "locked"
    locked.mkdir()
    look = Path.iterdir

    def refused(folder: Path):
        if folder == locked:
            raise PermissionError(13, "Permission denied")
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    (left,) = load([runs, locked]).left_out
    assert (left.place, left.reason) == (str(locked), "it cannot be read: Permission denied")


def test_a_run_without_record_is_unfinished_and_says_how_far_it_is(runs):
    save(runs / "good", record())
    names = (
        "method",
        "dataset",
        "scope",
        "multiplier_choice",
        "budget",
        "device",
        "command",
    )
    sizes = {"seed": 0, "threads": 0, "image_size": 0}
    protocol = named_protocol("quick")
    config = RunConfig(
        **dict.fromkeys(names, "x"),
        **sizes,
        cost="horowitz45",
        baselines=("none",),
        method_config={},
        protocol=protocol,
        multipliers=(),
        space="cells",
        space_config={"nodes": 4},
    )
    going = runs / "going"
    going.mkdir()
    (going / "config.json").write_text(json.dumps(config.to_json()))
    reason = load([runs]).left_out[0].reason
    assert reason.startswith(
        "unfinished (still running or stopped): no step is done; go on with python -m evaluation.run"
    )
    (going / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history(2)))
    assert "2 steps, now in search" in load([runs]).left_out[0].reason


def test_nothing_to_load_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no finished run to report: .*it holds no run folder"):
        load([tmp_path])
    with pytest.raises(InputError, match="missing' does not exist"):
        load([tmp_path / "missing"])


# -- damage ------------------------------------------------------------------------------------------------------------

WHOLE = [
    record(finalist(), finalist(validation=0.8)),
    *(json.loads(f.read_text()) for f in RECORDS.glob("*/record.json")),
]


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_a_record_damaged_anywhere_is_loaded_or_left_out_with_a_line_that_names_it(data):
    broken = damaged(data.draw, data.draw(st.sampled_from(WHOLE)))
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "good", record(seed=99))
        file = save(Path(folder) / "bad", broken) / "record.json"
        found = load([Path(folder)])
    assert 99 in [run.seed for run in found.runs]
    assert len(found.runs) + len(found.left_out) == 2
    for item in found.left_out:
        assert item.place == str(file.parent) and str(file) in item.reason and len(item.reason.splitlines()) == 1
    assert len(found.finalists) == sum(len(run.finalists) for run in found.runs)
    for section in found.sections:
        assert section.title and section.data and section.cost
        assert sorted(run.name for runs in section.variants.values() for run in runs) == sorted(
            r.name for r in section.runs
        )
    for run in found.runs:
        assert run.best["best"] and run.variant.startswith(run.method)
        assert all(isinstance(line, str) for line in [*run.notes, *run.failures])
        for point in run.moments:
            assert all(len(place) == 2 and max(place) < LARGEST for place in point.front)


def test_runs_on_other_test_images_are_not_compared(runs):
    for name, images in (("a", "1" * 64), ("b", "2" * 64), ("c", "1" * 64)):
        save(runs / name, record(seed=ord(name), test_fingerprint=images))
    assert sorted(len(section.runs) for section in load([runs]).sections) == [1, 2]


def test_older_records_do_not_say_their_test_images_and_go_with_the_only_known_ones(runs):
    save(runs / "old", record(seed=1))
    save(runs / "new", record(seed=2, test_fingerprint="1" * 64))
    assert [len(section.runs) for section in load([runs]).sections] == [2]
