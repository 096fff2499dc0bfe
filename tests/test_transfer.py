"""Whether what is good in a table is good on other images: which networks are tried, and what is made of them."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from evaluation import datasets
from evaluation import table as command
from evaluation.benchmark import transfer as module
from evaluation.benchmark.curves import Curve
from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.transfer import Transferred, agreement, transfer
from spaces.errors import InputError
from tests.made_tables import error, made_table


class Pretended:
    """Trains nothing: the errors are those by which the table was made, and as many points more."""

    done: ClassVar[list[str]] = []

    def __init__(self, plan, device, dataset) -> None:  # noqa: ARG002
        self.test = SimpleNamespace(labels=np.zeros(1000))

    def __call__(self, job) -> Curve:
        self.done.append(job.name)
        wrong = round(1000 * (error(job.architecture) + 0.1 + 0.01 * job.seed))
        return Curve((wrong,) * job.epochs, (wrong,) * job.epochs, (1.0,) * job.epochs)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    monkeypatch.setattr(module, "CurveTraining", Pretended)
    monkeypatch.setattr(Pretended, "done", [])
    return Pretended.done


def carried_over(table, out, networks=5, seeds=2) -> list[Transferred]:
    return transfer(table, datasets.load("digits"), networks, seeds, torch.device("cpu"), out, lambda *_: None)


def test_half_are_of_the_front_and_errors_are_means_over_trainings(trained, tmp_path):
    table = made_table()
    found = carried_over(table, tmp_path / "t.jsonl")
    front = {table.architecture(number).key for number in Landscape.of(table, "horowitz45").front}
    assert len(trained) == len(set(trained)) == 2 * len(found)
    assert [each.group for each in found] == ["front"] * 5 + ["random"] * 5
    assert all((each.key in front) == (each.group == "front") for each in found)
    by_key = {architecture.key: architecture for architecture in table.architectures}
    for each in found:
        assert each.other == pytest.approx(error(by_key[each.key]) + 0.105, abs=0.001)
        assert each.table == pytest.approx(float(table.errors()[table.at(by_key[each.key])]))


def test_a_stopped_one_goes_on_and_others_are_left_alone(trained, tmp_path):
    out = tmp_path / "t.jsonl"
    whole = carried_over(made_table(), out)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:10])  # killed while it wrote
    trained.clear()
    assert carried_over(made_table(), out) == whole and len(trained) == 20 - 3
    with pytest.raises(InputError, match="other images"):
        transfer(made_table(), datasets.load("fashion14"), 5, 1, torch.device("cpu"), out, lambda *_: None)


def test_the_agreement_is_kendalls():
    rng = np.random.default_rng(0)
    found = [Transferred(str(at), "front", *map(float, rng.random(2))) for at in range(12)]
    told = agreement(found)
    assert told.tau == pytest.approx(kendalltau([f.table for f in found], [f.other for f in found]).statistic)
    assert -1 <= told.low < told.tau < told.high <= 1 and told.networks == 12
    same = [Transferred(str(at), "front", at / 10, at / 20) for at in range(8)]
    assert agreement(same).tau == pytest.approx(1.0) and agreement(same).low == pytest.approx(1.0)
    assert agreement([Transferred("a", "front", 0.1, 0.1)] * 3).tau == 0.0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["digits", "--networks", "0"], "--networks and --seeds must be at least 1"),
        (["digits", "--train-limit", "-1"], "not negative"),
        (["nothing"], "data set"),
        (["digits", "--image-size", "16"], "--image-size is for image folders"),
    ],
)
def test_bad_flags_are_one_line(capsys, tmp_path, monkeypatch, flags, reason):
    monkeypatch.chdir(tmp_path)
    assert command.main(["transfer", *flags]) == 2
    captured = capsys.readouterr()
    assert reason in " ".join(captured.err.split()) and "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())
