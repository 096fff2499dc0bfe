"""A machine that fails is no failure of a network: the second equal one in a row ends the work, with one line."""

import dataclasses
import errno
import importlib.util
import multiprocessing
import os

import pytest
import torch

from evaluation.runs import checkpoints, finals
from evaluation.runs.folder import STATE, RunFolder
from evaluation.runs.stages import WORK
from evaluation.searching import failures
from evaluation.searching.evaluators import EVALUATORS
from evaluation.training.loop import Training
from spaces.cli import commands
from spaces.errors import InputError
from spaces.files import saving
from tests import evaluators, tiny
from tests.running import finished_run, new_run, quiet, resume, without_times

BROKEN = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …")
LINE = r"two trainings in a row failed alike \(RuntimeError: CUDA error: an illegal memory access .*\): .*check_device"
OWN = [
    FloatingPointError("the loss is not finite"),
    ValueError("cannot be built"),
    MemoryError(),
    torch.OutOfMemoryError(""),
]


def raising(error: Exception, times: int = 10**6, after: int = 0):
    """A ``Training.run_epoch`` that fails so many times after so many epochs that do not."""
    calls, run_epoch = iter(range(10**9)), Training.run_epoch

    def run(self) -> float:
        if after <= next(calls) < after + times:
            raise error
        return run_epoch(self)

    return run


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_networks_that_fail_by_themselves_may_do_so_for_ever(error):
    machine = failures.MachineFailures()
    for _ in range(5):
        machine.note(failures.suspicion(error))


def test_only_equal_failures_in_a_row_count():
    machine, others = failures.MachineFailures(), [RuntimeError("a"), RuntimeError("b"), TypeError("a")]
    for error in (*others, *others, BROKEN):
        machine.note(failures.suspicion(error))
    machine.clear()
    machine.note(failures.suspicion(BROKEN))
    with pytest.raises(InputError, match=LINE):
        machine.note(failures.suspicion(BROKEN))


@pytest.mark.parametrize("method", ["random", "evoapproxnas"])
def test_a_search_on_a_broken_machine_ends_at_its_second_candidate(tmp_path, monkeypatch, method):
    tried = []
    monkeypatch.setattr(Training, "run_epoch", lambda self: tried.append(self) or raising(BROKEN)(self))
    run, folder = new_run(tmp_path, tiny.run_config(method, budget="1000evals"))
    with pytest.raises(InputError, match=LINE):
        run.execute(folder, quiet())
    assert len(tried) == 2 and not (folder.path / "record.json").exists()


@pytest.mark.parametrize("where", ["search", "selection", "final"])
def test_a_machine_that_was_mended_ends_with_the_undisturbed_record(tmp_path, monkeypatch, where):
    config = tiny.run_config("random", baselines="all")
    _, whole = finished_run(tmp_path, config)
    run, folder = new_run(tmp_path, config)
    work = WORK[where]

    def broken(run, progress) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Training, "run_epoch", raising(BROKEN))
            work(run, progress)

    with monkeypatch.context() as patch:
        patch.setitem(WORK, where, broken)
        with pytest.raises(InputError, match=LINE):
            run.execute(folder, quiet())
    resumed = resume(folder)
    assert resumed.failures == ()
    assert without_times(resumed) == without_times(whole)


def test_one_failure_alone_is_recorded_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "run_epoch", raising(BROKEN, times=1))
    _, record = finished_run(tmp_path, tiny.run_config("random", baselines="none"))
    reasons = [(failure.stage, failure.reason) for failure in record.failures]
    assert reasons == [("candidate", "RuntimeError: CUDA error: an illegal memory access was encountered")]


def test_a_supernet_on_a_broken_machine_says_what_to_look_at(tmp_path, monkeypatch):
    from methods.approxdarts import ApproxDarts

    def broken(_) -> None:
        raise BROKEN

    monkeypatch.setattr(ApproxDarts, "step", broken)
    run, folder = new_run(tmp_path, tiny.run_config("approxdarts"))
    with pytest.raises(InputError, match=r"the search cannot go on \(RuntimeError: .*check_device"):
        run.execute(folder, quiet())


def test_a_damaged_training_in_a_checkpoint_is_bad_input_and_no_failed_training(tmp_path):
    run, run.folder = new_run(tmp_path, tiny.run_config("random"))
    run.state.finalists = [run.problem.space.reference()]
    damaged = {"epoch": 1, "network": {"stem": torch.zeros(1)}, "optimiser": {}, "generator": torch.zeros(3)}
    run.state.training["0-approximate"] = {"training": damaged, "losses": [1.0], "told": 1}
    with pytest.raises(InputError, match="the checkpoint does not fit this training.*start a new run"):
        finals.final(run, quiet())
    assert run.state.failures == []


def test_a_disk_that_is_full_when_weights_are_saved_is_no_failed_training(tmp_path, monkeypatch):
    save = checkpoints.save

    def full(path, state) -> None:
        if path.name != STATE.name:
            raise RuntimeError("unexpected pos 64 vs 0")  # as torch's own writer says
        save(path, state)

    run, folder = new_run(tmp_path, tiny.run_config("random", baselines="none"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full)
        with pytest.raises(RuntimeError, match="unexpected pos"):
            run.execute(folder, quiet())
    assert resume(folder).failures == ()


@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_full_disk_ends_a_run_with_one_line_and_it_can_go_on(executor, tmp_path, monkeypatch, capsys):
    """Whatever workers are at then, none is left."""
    if (
        executor == "ray" and importlib.util.find_spec("ray") is None
    ):  # not imported: the executor sets its settings first
        pytest.skip("Ray is not installed")
    places = {"executor": executor, "workers": 2, "ray_num_cpus": 0.5}
    config = tiny.run_config("random", baselines="none", space_config={"nodes": 1}, evaluator="no_op", **places)
    with EVALUATORS.temporarily("no_op", evaluators.NoOp):
        run, folder = new_run(tmp_path, config)
    writes, open_ = iter(range(10**6)), saving._open

    def full(path, mode):
        if next(writes) >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return open_(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "_open", full)
        code = commands.guarded(lambda: run.execute(folder, quiet()), advice="; go on with --resume")
    assert code == commands.BAD_INPUT
    said = capsys.readouterr().err
    (line,) = [
        line for line in said.splitlines() if line.startswith("error:")
    ]  # Ray may have said something of its own
    assert line.startswith("error: No space left on device ") and line.endswith("; go on with --resume"), line
    assert "Traceback" not in said and not multiprocessing.active_children()
    monkeypatch.setattr(RunFolder, "config", lambda _: dataclasses.replace(config, executor="serial"))
    with EVALUATORS.temporarily("no_op", evaluators.NoOp):
        assert resume(folder).failures == ()


def test_a_supernet_that_diverges_names_both_rates(monkeypatch):
    from methods import approxdarts, bilevel

    monkeypatch.setattr(bilevel.Tally, "loss", float("nan"))
    problem = tiny.problem("approxdarts")
    method = approxdarts.ApproxDarts(problem, approxdarts.ApproxDartsConfig(**problem.config.method_config))
    with pytest.raises(
        InputError, match=r"lower --approxdarts.weight-lr or --approxdarts.choice-lr.*now 0\.\d+ and 0\.1"
    ):
        method.step()
