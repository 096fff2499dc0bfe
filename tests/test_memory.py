"""A device whose memory is full, in every stage: faked, as a real one would take all of this machine's."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import torch

from evaluation.runs import finals
from evaluation.runs.stages import Run
from evaluation.searching import candidates, failures
from evaluation.training import loop, memory
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.loop import Training, accuracy
from methods.approxdarts import ApproxDarts
from spaces.errors import InputError
from tests import tiny
from tests.running import finished_run, new_run, quiet, resume, without_times

CPU = torch.device("cpu")
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …\nmore"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried …"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def full(*_, **__) -> None:
    raise FULL[0]


@pytest.mark.parametrize("error", FULL)
def test_every_form_of_it_is_known(error):
    assert memory.is_full(error)
    assert failures.reason(error, 96) == "out of memory at batch size 96"


def test_other_failures_are_not_taken_for_it():
    for error in (RuntimeError("shapes do not fit"), ValueError("out of memory"), FloatingPointError("nan")):
        assert not memory.is_full(error)
        assert failures.reason(error, 96) == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("stage", "batch", "expected"),
    [
        ("search", 20, "start anew with --protocol.search-batch 10 or --approxdarts.partial 2"),
        ("search", 1, "start anew with --approxdarts.partial 2"),
        ("final", 21, "start anew with --protocol.batch 10"),
        ("final", 1, "start anew with fewer --protocol.final-channels"),
    ],
)
def test_the_advice_halves_the_batch_that_counts(stage, batch, expected):
    sizes = {"search_batch": batch, "batch": 500} if stage == "search" else {"search_batch": 500, "batch": batch}
    config = tiny.run_config("approxdarts", protocol=dataclasses.replace(tiny.PROTOCOL, **sizes))
    assert memory.smaller(config, stage) == expected


@pytest.mark.parametrize("where", ["step", "__init__"])
def test_in_the_search_of_a_supernet(tmp_path, monkeypatch, where):
    run, folder = new_run(tmp_path, tiny.run_config("approxdarts"))
    with monkeypatch.context() as patch:
        patch.setattr(ApproxDarts, where, full)
        message = "in search at batch size 20: .*search-batch 10 or --approxdarts.partial 2, or go on with --resume on"
        with pytest.raises(InputError, match=message):
            run.execute(folder, quiet())
    assert resume(folder).failures == ()


def test_a_candidate_that_does_not_fit_is_a_recorded_failure(tmp_path, monkeypatch):
    calls, run_epoch = iter(range(100)), Training.run_epoch
    monkeypatch.setattr(Training, "run_epoch", lambda self: full() if next(calls) == 0 else run_epoch(self))
    _, record = finished_run(tmp_path, tiny.run_config("random", baselines="none"))
    reasons = [(failure.stage, failure.reason) for failure in record.failures]
    assert reasons == [("candidate", "out of memory at batch size 20")]


def test_where_no_candidate_fits_the_reason_is_told(tmp_path, monkeypatch):
    run, folder = new_run(tmp_path, tiny.run_config("random"))
    monkeypatch.setattr(Training, "run_epoch", full)
    with pytest.raises(
        InputError, match="every candidate failed, the last with: out of memory .* 20; .*--protocol.batch 10$"
    ):
        run.execute(folder, quiet())


def test_in_final_training_the_run_can_go_on_to_the_same_result(tmp_path, monkeypatch):
    config = tiny.run_config("random", baselines="none", protocol=dataclasses.replace(tiny.PROTOCOL, batch=30))
    _, whole = finished_run(tmp_path, config)
    run, folder = new_run(tmp_path, config)
    record_step = Run.record_step

    def fill_up(self, stage, *arguments) -> None:
        record_step(self, stage, *arguments)
        if stage == "final":
            monkeypatch.setattr(Training, "run_epoch", full)

    with monkeypatch.context() as patch:
        run_epoch = Training.run_epoch
        patch.setattr(Run, "record_step", fill_up)
        with pytest.raises(InputError, match="out of memory in final at batch size 30: .*--protocol.batch 15"):
            run.execute(folder, quiet())
        monkeypatch.setattr(Training, "run_epoch", run_epoch)
    resumed = resume(folder)
    assert without_times(resumed) == without_times(whole) and resumed.failures == ()


def test_a_test_that_does_not_fit_is_done_in_smaller_batches(monkeypatch):
    data = DeviceImages(tiny._blobs(700, seed=4), *channel_statistics(tiny._blobs(700, seed=4)), CPU)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in data.in_order(7))
    sizes, limit = [], 200

    def forward(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return full() if len(images) > limit else torch.nn.Sequential.forward(network, images)

    monkeypatch.setattr(network, "forward", forward)
    assert accuracy(network, data) == right / 700
    assert sizes == [512, 256, *[128] * 5, 60]
    limit = 63
    with pytest.raises(torch.OutOfMemoryError):
        accuracy(network, data)
    assert sizes[-1] == loop.SMALLEST_EVALUATION_BATCH == 64


def test_in_the_test_the_run_can_go_on_to_the_same_result(tmp_path, monkeypatch):
    config = tiny.run_config("random", baselines="none")
    _, whole = finished_run(tmp_path, config)
    run, folder = new_run(tmp_path, config)
    with monkeypatch.context() as patch:
        patch.setattr(finals, "accuracy", full)
        assert candidates.accuracy is not full
        with pytest.raises(InputError, match="out of memory in the test: go on with --resume on a device with"):
            run.execute(folder, quiet())
    assert without_times(resume(folder)) == without_times(whole)


def test_images_that_do_not_fit_end_with_one_line(tmp_path):
    code = (
        "import sys, torch\nfrom evaluation import run\nfrom evaluation.searching import data\n"
        "def full(*_): raise torch.OutOfMemoryError('CUDA out of memory.')\n"
        "data.DeviceImages = full\nsys.exit(run.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "--out", str(tmp_path / "runs")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert answer.returncode == 2 and not (tmp_path / "runs").exists()
    assert re.fullmatch(r"error: out of memory: .*--device cpu.*\n", answer.stderr)
