"""``python -m evaluation.check_device``: what a user sees, what a program reads, and that nothing wrong gets past it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from evaluation import check_device
from evaluation.device_check import agreement, exactness, program, report, speed, steps, timing
from evaluation.device_check.checks import Check, Outcome, Row, run_checks
from methods import METHODS, installed
from spaces.arithmetic import emulate
from spaces.arithmetic import quantise as quantise_module
from spaces.arithmetic.engines import self_test
from spaces.arithmetic.layers import ApproxConv2d
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests import pretend
from tests.convolutions import forget_self_tests

CPU = torch.device("cpu")
RATIOS = {
    "dense_forward_geomean",
    "dense_training_geomean",
    "depthwise_low_rank",
    "depthwise_any_table",
    "search_step_vs_fp32",
}


@pytest.fixture(autouse=True)
def forgetful():
    """A planted fault is not remembered."""
    forget_self_tests()
    yield
    forget_self_tests()
    emulate.use_engine("auto")


@pytest.fixture
def only_exactness(monkeypatch):
    """The check without the sections that a fault in an engine need not reach."""
    monkeypatch.setattr(program, "parts", lambda device, quick, _: [(1.0, exactness.checks(device, quick))])


# -- as a process ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick_check(tmp_path_factory) -> tuple[str, dict]:
    """What ``--quick --json`` prints and writes, run as the smoke test of the campaign on GPUs in its dry run."""
    out = tmp_path_factory.mktemp("campaign")
    line = [sys.executable, "-m", "tests.gpu.campaign", "--device", "cpu", "--only", "smoke", "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    shown = (out / "logs" / "smoke.out").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr + shown + (out / "logs" / "smoke.err").read_text(encoding="utf-8")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))["parts"]
    assert list(summary) == ["smoke"] and summary["smoke"]["ran"] and summary["smoke"]["exit_code"] == 0
    return shown, json.loads((out / "smoke.json").read_text(encoding="utf-8"))


def test_a_program_can_read_the_result(quick_check):
    _, found = quick_check
    assert found["exact"] is True and found["complete"] is True and found["failures"] == []
    assert set(found["engines"]) == set(emulate.ENGINES)
    assert found["engines"]["reference"] == found["engines"]["gather"] == "exact"
    assert found["engines"]["triton"] == "unavailable: it needs a CUDA device, not cpu"
    assert found["environment"]["device"]["type"] == "cpu" and found["environment"]["packages"]["torch"]
    assert set(found["speed"]) >= RATIOS
    assert all(found["speed"][name] > 0 for name in RATIOS)
    assert found["speed"]["search_step"]["mixture"]["launches"] is None


def test_a_person_can_read_the_result(quick_check):
    shown, _ = quick_check
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert shown.isascii()  # an ellipsis would be none
    for word in ("exactness", "agreement", "training", "speed", *emulate.ENGINES, *installed(), *RATIOS):
        assert word in shown
    assert lines[-1].startswith("Nothing is wrong")


def test_every_method_takes_a_step(quick_check):
    rows = {row["name"]: row for row in quick_check[1]["rows"] if row["section"] == "training"}
    assert {name.partition(",")[0] for name in rows} == {*installed(), "final training"}
    assert all(row["state"] == "ok" and row["values"]["values_compared"] > 5 for row in rows.values())


def test_help_answers_without_torch():
    code = (
        "import sys\nfrom evaluation import check_device\n"
        "try: check_device.main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--budget" in done.stdout and "exactness comes first" in done.stdout
    assert time.perf_counter() - began < 20  # a few tenths of a second where nothing else runs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--budget", "abc"], "'abc' is no time; write 90s, 3m or 1h"),
        (["--budget", "3steps"], "is no time"),
        (["--json", "missing/check.json"], "there is no folder 'missing'"),
        (["--json", "."], "this is a folder"),
        (["--qick"], "did you mean --quick"),
        pytest.param(
            ["--device", "cuda"],
            "this torch sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_bad_flags_end_with_one_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert check_device.main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written_is_noticed_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_device.writable(str(tmp_path / "check.json"))


# -- planted faults ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_exactness")
def test_a_wrong_sum_is_named_and_ends_with_code_1(monkeypatch, capsys, tmp_path):
    right = emulate.ENGINES["float32"].conv2d

    def wrong(x, packed, fill, scale=None):
        y = right(x, packed, fill, scale)
        if getattr(packed, "kernel", None) == (5, 5):  # depthwise layers are packed otherwise
            y[0, 0, 0, 0] += 1
        return y

    monkeypatch.setattr(emulate.ENGINES["float32"], "conv2d", wrong)
    path = tmp_path / "check.json"
    assert check_device.main(["--device", "cpu", "--quick", "--json", str(path)]) == 1
    found = json.loads(path.read_text())
    assert found["exact"] is False
    first = found["failures"][0]
    assert first.startswith("engine float32, table ") and ", layer 5x5 dilated (1×16×9×8 by" in first
    assert "at (0, 0, 0, 0) it gives" in first
    assert found["engines"]["float32"] == f"wrong: {first}" and found["engines"]["gather"] == "exact"
    shown = capsys.readouterr().out
    assert "FAILED: engine float32, table" in shown and "checks FAILED" in shown


@pytest.mark.usefixtures("only_exactness")
def test_an_engine_that_raises_is_reported(monkeypatch, capsys):
    def raises(*_):
        raise RuntimeError("the kernel does not compile")

    monkeypatch.setattr(emulate.ENGINES["gather"], "conv2d", raises)
    assert check_device.main(["--device", "cpu", "--quick"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "engine gather: its self-test failed (RuntimeError: the kernel does not compile)" in shown
    assert "engine gather, table mul8s_1KV8, layer stem 3x3: RuntimeError: the kernel does not compile" in shown


def test_a_whole_layer_that_differs_is_a_failure(monkeypatch):
    right = exactness._forward

    def wrong(multiplier, layer, images, device, engine):
        found = right(multiplier, layer, images, device, engine)
        return found if engine == "reference" else [found[0], found[1] + 1e-3]

    monkeypatch.setattr(exactness, "_forward", wrong)
    rows = run_checks(check for check in exactness.checks(CPU, True) if check.row == exactness.LAYER_TEST)
    assert "evaluation: outputs differ by up to 0.001 from the reference's" in rows[0].failures[0]


def test_disagreement_is_a_failure():
    sides = (("one", CPU, 1), ("other", CPU, 1))
    values = iter([1.0, 1.0 + 2**-20] * 3)

    def what(_: torch.device) -> dict[str, torch.Tensor]:
        return {"scale": torch.tensor([2.0, next(values)])}

    said = agreement.compare(what, sides, 0.0).failure
    assert said.startswith("scale: at (1,) 1.00000") and "on other, 1.0 on one (allowed: 0 of the largest)" in said
    assert agreement.compare(what, sides, 1e-4).failure == ""
    nan = agreement.compare(lambda _: {"y": torch.tensor([float("nan")])}, sides, 1.0)
    assert nan.failure == "y: not finite on other"


def test_full_memory_is_no_failure_of_a_timing():
    def full() -> Outcome:
        raise torch.OutOfMemoryError("CUDA out of memory")

    timing_row, exact_row = run_checks([Check("speed", "a", full), Check("exactness", "b", full)])
    assert timing_row.state == "ok" and timing_row.note == "not measured in part: memory is full"
    assert exact_row.failures == ["exactness, b: OutOfMemoryError: CUDA out of memory"]


def test_exactness_leaves_time_for_the_rest(monkeypatch):
    begun = []
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    checks = [
        Check("made", str(number), lambda number=number: begun.append(number) or Outcome()) for number in range(40)
    ]
    monkeypatch.setattr(program, "parts", lambda *_: [(0.6, checks[:20]), (1.0, checks[20:])])
    assert program.run(CPU, True, budget=20.0) == 0
    assert 0 in begun and 19 not in begun and 20 not in begun  # 20 checks that were left out took 20 looks at the clock


def test_a_training_that_is_never_the_same_is_a_failure():
    numbers = iter(range(10))
    said = steps.twice("made", lambda *_: {"weights": [torch.tensor(next(numbers))]}, CPU).failure
    assert said == "training, made: weights.0 differs between two equal runs under --deterministic"
    assert "loss is not finite" in steps.twice("made", lambda *_: {"loss": float("inf")}, CPU).failure
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("strict", [False, True])
def test_batches_after_the_first_are_worked_on_without_waiting(monkeypatch, strict):
    """The watch over waits, with a double in the place of CUDA's."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    posed = steps.problem("random", METHODS["random"].Config(), CPU, strict)
    posed.data.training.device = torch.device("cuda")
    monkeypatch.setattr(steps.DeviceImages, "shuffled", lambda *_: iter(range(4)))
    seen = [modes[-1] for _ in posed.data.training.shuffled(1, None)]
    assert seen == ["default", *["error" if strict else "default"] * 3]
    assert modes[-1] == "default"  # what an epoch's end reads is free to wait
    posed.data.validation.device = torch.device("cuda")
    validation, inside = posed.data.validation.shuffled(1, None), []
    for number in posed.data.training.shuffled(1, None):
        if number:  # as many as there are but one
            next(validation)
        inside.append(modes[-1])
    del validation  # as a search leaves it, which then reads what it came to
    assert inside == seen and modes[-1] == "default"


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_the_budget_leaves_out_the_rest_and_says_so():
    done = []
    checks = [Check("exactness", name, lambda name=name: done.append(name) or Outcome()) for name in "aab"]
    rows = run_checks(checks, time.perf_counter() + 60)
    assert done == ["a", "a", "b"] and [row.state for row in rows] == ["ok", "ok"]
    rows = run_checks(checks, time.perf_counter() - 1)
    assert [(row.name, row.done, row.left_out, row.state) for row in rows] == [
        ("a", 0, 2, "left out"),
        ("b", 0, 1, "left out"),
    ]
    found = report.as_json(rows, speed.Times(CPU, True), True, 0.0)
    assert found["exact"] is False and found["complete"] is False
    assert found["left_out"] == {"exactness, a": 2, "exactness, b": 1}
    assert all(found["speed"][name] is None for name in RATIOS)
    assert check_device.seconds("3m") == 180 and check_device.seconds("") is None


def test_the_quick_check_reaches_every_table_and_every_layer():
    pairs, others = (set(exactness._pairs(selected)) for selected in (True, False))
    assert {layer for layer, _ in pairs} == {*exactness.SMALL, *exactness.LARGE_BATCH, *exactness.LARGE}
    assert {table for _, table in pairs} == set(exactness.tables())
    assert len(exactness.tables()) == 13 + 4 + 2
    assert not pairs & others and len(pairs) < len(others) / 8 and len(pairs | others) == 21 * 19
    assert {layer.input[0] for layer in exactness.LARGE_BATCH} == {512}
    for layer, table in pairs | others:
        products = layer.weights[1] * layer.weights[2] * layer.weights[3]
        assert products * int(abs(table.table.astype(int)).max()) < 2**31


@pytest.mark.parametrize("what", ["forward", "training"])
def test_whole_layers_are_timed_with_their_quantisation(monkeypatch, what):
    """Which a layer remembers with its input: a second pass over the same tensor would be without it."""
    quantised, quantise = [], quantise_module.quantise
    monkeypatch.setattr(quantise_module, "quantise", lambda *args: quantised.append(1) or quantise(*args))
    layer = ApproxConv2d(4, 4, 3, multiplier=speed.multipliers()["rank 1"])
    call = speed._pass(layer, torch.randn(2, 4, 6, 6), what)
    before = len(quantised)
    for _ in range(3):
        call()
    assert len(quantised) - before == 3


def test_ratios_are_geometric_means_of_the_right_rows():
    times = speed.Times(CPU, True)
    for shape, table, ratio in [("3x3 64-64", "rank 1", 2.0), ("1x1 64-64", "rank 5", 8.0), ("3x3 64-64", "any", 99.0)]:
        times.layers.append({"what": "forward", "shape": shape, "table": table, "vs_fp32": ratio})
    times.layers.append({"what": "forward", "shape": speed.DEPTHWISE.name, "table": "any", "vs_fp32": 3.0})
    found = times.ratios()
    assert found["dense_forward_geomean"] == pytest.approx(4.0)
    assert found["depthwise_any_table"] == pytest.approx(3.0)
    assert found["depthwise_low_rank"] is None and found["search_step_vs_fp32"] is None


def test_tf32_is_set_for_a_while_only():
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    before = convolutions.fp32_precision if convolutions else torch.backends.cudnn.allow_tf32
    with timing.tf32(True):
        assert (convolutions.fp32_precision if convolutions else torch.backends.cudnn.allow_tf32) in ("tf32", True)
        assert torch.backends.cudnn.benchmark
    assert (convolutions.fp32_precision if convolutions else torch.backends.cudnn.allow_tf32) == before
    assert not torch.backends.cudnn.benchmark


def test_long_numbers_are_neither_cut_nor_wrapped(capsys):
    times = speed.Times(CPU, True)
    row = {"shape": "depthwise 3x3 64", "table": "rank 5", "engine": "triton-gather", "seconds": 1.2345678}
    times.engines.append({**row, "vs_fp32": 12345.678, "vs_tf32": 12345.678, "vs_bf16": 12345.678})
    console = report.wide(Console(width=40))
    report.show(console, [Row("exactness", "triton-gather", done=10000)], times, 1.0)
    shown = capsys.readouterr().out
    assert shown.count("12346") == 3 and "1235" in shown and "10000" in shown and "triton-gather" in shown
    assert max(map(len, shown.splitlines())) <= 80


# -- on a device that is not there -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "tolerance"),
    [
        (agreement.codes, 0.0),
        (agreement.mixtures, agreement.MIXTURE_TOLERANCE),
        (agreement.logits, agreement.NETWORK_TOLERANCE),
    ],
)
def test_a_pretended_device_agrees_with_the_cpu(monkeypatch, what, tolerance):
    with pretend.pretending(monkeypatch):
        found = agreement.compare(what, (("the CPU", CPU, 1), ("the device", pretend.DEVICE, 1)), tolerance)
    assert found.failure == ""


@pytest.mark.parametrize("name", ["float32", "reference"])
def test_engines_are_exact_on_a_pretended_device(monkeypatch, name):
    layer, table = exactness.SMALL[4], exactness.tables()[3]
    with pretend.pretending(monkeypatch):
        assert self_test.mismatch(emulate.ENGINES[name], table, layer, pretend.DEVICE) == ""


def test_whole_layers_are_exact_on_a_pretended_device(monkeypatch):
    for multiplier in ("mul8s_1KVL", exactness.UNSIGNED):
        with pretend.pretending(monkeypatch):
            found = exactness._whole_layer(catalogue.get(multiplier), exactness.SMALL[2], pretend.DEVICE)
        assert found.failure == ""
