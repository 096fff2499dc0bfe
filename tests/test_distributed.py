"""Final training on several processes against one process, or against two replicas that are averaged by hand."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.cli.processes import command_line
from evaluation.run import main
from evaluation.runs import checkpoints
from evaluation.runs.folder import read_history, read_record
from evaluation.runs.record import Record
from evaluation.runs.stages import Run
from evaluation.runs.state import STATE
from evaluation.training import distributed
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.distributed import ALONE, Team
from evaluation.training.loop import Schedule, Training
from spaces.cells.network import DropPath
from spaces.errors import InputError
from tests import tiny
from tests.running import SMALL_RANDOM, resume, stopped_run, without_times

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")

SCHEDULE = dataclasses.replace(Schedule.final(tiny.PROTOCOL), batch=21)  # which two processes cannot halve
TIME = 240  # seconds after which a process has hung


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [7, 20, 96])
def test_shares_are_disjoint_complete_and_even(batch, size):
    shares = [list(range(batch))[Team(rank, size).share(batch)] for rank in range(size)]
    assert [image for share in shares for image in share] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# -- trainings, in torchrun's processes and here -----------------------------------------------------------------------


class NormFree(nn.Module):
    """Nothing in it depends on which images are together, so that one process is the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.idle = nn.Conv2d(1, 4, 3), nn.Linear(64, 3), nn.Linear(2, 2)
        self.drop_path = DropPath()

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.drop_path(F.relu(self.conv(images))).flatten(1))


def cell_network() -> nn.Module:
    problem = tiny.problem()
    architecture = problem.space.sample(problem.rng)
    return problem.space.build(architecture, dataclasses.replace(problem.shape, auxiliary=True), "approximate")


def images() -> DeviceImages:
    train = tiny.dataset().train
    return DeviceImages(train, *channel_statistics(train), torch.device("cpu"))


def make_training(network: str, team: Team) -> Training:
    torch.manual_seed(3)
    built = NormFree() if network == "norm-free" else cell_network()
    return Training(built, images(), SCHEDULE, torch.Generator().manual_seed(5), team)


def in_a_process(out: str) -> None:
    """What each of torchrun's processes runs."""
    torch.set_num_threads(1)
    with distributed.joined():
        results = {}
        for network in ("norm-free", "cells"):
            training = make_training(network, distributed.team())
            losses = [training.run_epoch() for _ in range(2)]
            results[network] = {"losses": losses, "weights": training.network.state_dict()}
        torch.save(results, f"{out}.{distributed.team().rank}")
        if distributed.team().rank > 0:
            assert distributed.receive() == {}


def torchrun(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, error = process.communicate(timeout=TIME)
    finally:
        process.kill()
    return process.returncode, out, error


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[dict]:
    """The results of both processes."""
    folder = tmp_path_factory.mktemp("trained")
    script = folder / "script.py"
    lines = (
        "import sys",
        "from spaces.cli.commands import leave",
        "from tests.test_distributed import in_a_process",
        "in_a_process(sys.argv[1])",
        "leave(0)",
    )
    script.write_text("\n".join(lines))
    code, _, error = finish(torchrun(str(script), str(folder / "out"), cwd=Path(__file__).parents[1]))
    assert code == 0, error
    assert "Warning" not in error.replace("OMP_NUM_THREADS", ""), error
    return [torch.load(f"{folder / 'out'}.{rank}", weights_only=True) for rank in range(2)]


def test_two_processes_train_as_one_does(trained):
    alone = make_training("norm-free", ALONE)
    losses = [alone.run_epoch() for _ in range(2)]
    for result in trained:
        assert result["norm-free"]["losses"] == pytest.approx(losses, rel=1e-5)
        for name, value in alone.network.state_dict().items():
            torch.testing.assert_close(result["norm-free"]["weights"][name], value, rtol=1e-4, atol=1e-6)
    before = make_training("norm-free", ALONE).network.state_dict()
    moved = (trained[0]["norm-free"]["weights"]["conv.weight"] - before["conv.weight"]).abs().max()
    assert moved > 1e-2  # the tolerance says something


def test_two_processes_train_as_two_replicas_averaged_by_hand(trained):
    """The network of a run, with batch normalisation, codes, auxiliary head and drop-path: each sees its own share."""
    first = make_training("cells", ALONE).network
    replicas = [first, copy.deepcopy(first)]
    generators = [torch.Generator().manual_seed(5) for _ in replicas]
    optimisers = [torch.optim.SGD(r.parameters(), 0.05, 0.9, weight_decay=3e-4) for r in replicas]
    plan, losses = SCHEDULE, []
    for epoch in range(2):
        for replica, generator in zip(replicas, generators):
            replica.train()
            replica.drop_path.probability, replica.drop_path.generator = plan.drop_path * epoch / 2, generator
        batches = [images().shuffled(21, g, plan.augmentation) for g in generators]
        sums = []
        for step, pair in enumerate(zip(*batches)):
            torch.testing.assert_close(pair[0][0], pair[1][0], rtol=0, atol=0)
            for mine, theirs in zip(first.buffers(), replicas[1].buffers()):
                theirs.copy_(mine)
            total = 0.0
            for replica, share, (x, y) in zip(replicas, (slice(0, 10), slice(10, 21)), pair):
                replica.drop_path.share = (share, 21)
                logits = replica(x[share])
                both = F.cross_entropy(logits, y[share], reduction="sum") / 21
                both = both + 0.4 * F.cross_entropy(replica.auxiliary_logits, y[share], reduction="sum") / 21
                replica.zero_grad()
                both.backward()
                total += float(both.detach())
            sums.append(total)
            gradients = [[p.grad for p in replica.parameters()] for replica in replicas]
            # The learning rate falls along a cosine over 2 epochs of 5 steps.
            rate = 0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (epoch / 2 + step / 10)))).item()
            for replica, optimiser in zip(replicas, optimisers):
                for parameter, a, b in zip(replica.parameters(), *gradients):
                    parameter.grad = None if a is None else a + b
                optimiser.param_groups[0]["lr"] = rate
                nn.utils.clip_grad_norm_(replica.parameters(), plan.clip)
                optimiser.step()
        losses.append(sum(sums) / len(sums))
    assert trained[0]["cells"]["losses"] == pytest.approx(losses, rel=1e-4)
    used = {name for name, parameter in first.named_parameters() if parameter.grad is not None}
    for name, value in first.state_dict().items():
        if name in used or name not in dict(first.named_parameters()):
            torch.testing.assert_close(trained[0]["cells"]["weights"][name], value, rtol=1e-3, atol=1e-5)


# -- whole runs --------------------------------------------------------------------------------------------------------

RUN = ["-m", "evaluation.run"]


def record_of(folder: Path) -> Record:
    return read_record(next(folder.glob("*/record.json")))


def test_a_run_under_torchrun_is_booked_on_two_devices_and_goes_on_after_a_stop(tmp_path):
    flags = [*SMALL_RANDOM, "--baselines", "none"]
    code, out, error = finish(torchrun(*RUN, *flags, "--out", str(tmp_path / "whole")))
    assert code == 0, error
    assert out.count("record: ") == 1  # one process speaks
    whole = record_of(tmp_path / "whole")
    assert whole.device.count == 2
    final, search = whole.ledger["final"], whole.ledger["search"]
    assert final.device_seconds == pytest.approx(2 * final.wall_seconds, rel=0.01) and final.wall_seconds > 0
    assert 0 < search.device_seconds <= search.wall_seconds and whole.ledger["test"].devices == 1
    assert "2 devices" in whole.notes[0] and not whole.failures

    process = torchrun(*RUN, *flags, "--out", str(tmp_path / "killed"))
    try:
        deadline = time.monotonic() + TIME
        while not any('"final"' in path.read_text() for path in (tmp_path / "killed").glob("*/history.jsonl")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    (killed,) = (tmp_path / "killed").iterdir()
    assert not (killed / "record.json").exists()
    assert f"--resume {killed}" in error
    code, _, error = finish(torchrun(*RUN, "--resume", str(killed)))
    assert code == 0, error
    assert without_times(record_of(tmp_path / "killed")) == without_times(whole)

    alone = json.loads((killed / "config.json").read_text())
    assert alone["device"] == "auto"  # nothing of torchrun is a setting


def test_what_fails_in_one_process_ends_all_and_says_how_to_go_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, torch\nfrom evaluation.run import main\nfrom evaluation.training.loop import Training\n"
        "def full(self):\n    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')\n"
        "if os.environ['RANK'] == '1':\n    Training.run_epoch = full\n"
        "sys.exit(main())\n"
    )
    code, _, error = finish(torchrun(str(script), *SMALL_RANDOM, "--out", str(tmp_path / "runs")))
    assert code != 0
    lines = error.splitlines()
    assert [line for line in lines if line.startswith("error in process 1: OutOfMemoryError")], error
    (folder,) = (tmp_path / "runs").iterdir()
    said = [line for line in lines if "--resume" in line]
    assert len(said) == 1, error
    assert not (folder / "record.json").exists()
    stages = [line["stage"] for line in read_history(folder / "history.jsonl")]
    assert stages[-1] == "selection"  # no failed training is on record: a resumed run does it again


def test_final_training_that_goes_on_on_fewer_devices_says_so(tmp_path):
    protocol = dataclasses.replace(tiny.PROTOCOL, finalists=1, final_epochs=3)
    folder = stopped_run(
        tmp_path, tiny.run_config(protocol=protocol, space_config={"nodes": 1}, baselines="none"), saves=12
    )
    kept = checkpoints.load(folder.path / STATE, torch.device("cpu"))
    assert kept["state"]["training"] and kept["state"]["final_devices"] == 1
    kept["state"]["final_devices"] = 2
    checkpoints.save(folder.path / STATE, kept)
    assert resume(folder).notes == ("final training went on with 1 device after 2",)


def test_processes_that_cannot_meet_end_with_one_line(monkeypatch, capsys):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for rank, size in (("0", "2"), ("1", "2"), ("0", "two")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        handler = signal.getsignal(signal.SIGINT)
        assert main(["--method", "random"]) == 2
        signal.signal(signal.SIGINT, handler)
        said = capsys.readouterr().err
        assert said.startswith("error") and said.count("\n") == 1 and "start them with torchrun" in said


def test_a_schedulers_world_size_alone_starts_nothing(monkeypatch, capsys):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["--method", "nosuch"]) == 2
    assert "unknown method" in capsys.readouterr().err
    assert command_line("evaluation.run", ["--seed", "1"]) == "python -m evaluation.run --seed 1"


def test_the_recorded_command_names_the_processes(monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    expected = "torchrun --nnodes 2 --nproc-per-node 2 -m evaluation.run --seed 1"
    assert command_line("evaluation.run", ["--seed", "1"]) == expected


def test_help_under_torchrun_ends_all_processes(tmp_path):
    code, out, error = finish(torchrun(*RUN, "--help", cwd=tmp_path))
    assert code == 0 and "--budget" in out, error


def test_a_batch_must_feed_all_processes(monkeypatch):
    config = tiny.run_config()
    monkeypatch.setattr(distributed, "_team", Team(0, 11))  # 20 images a batch: one process would get a single one
    with pytest.raises(InputError, match="a batch of 20 is too small for 11 processes"):
        Run(config, tiny.dataset(), torch.device("cpu"), tiny.library(config))
