"""The contract that every registered method keeps: each check takes the method's name and an empty folder."""

import dataclasses
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.runs.folder import HISTORY, RunFolder, read_history
from evaluation.runs.stages import Run
from methods import METHODS, installed
from spaces.errors import InputError
from tests import tiny
from tests.running import CPU, quiet

every_method = pytest.mark.parametrize("name", sorted(installed()))
ONE_OF_EACH_KIND = (
    "approxdarts",
    "evoapproxnas",
    "random",
)  # whose whole runs CI kills; the others' are killed in "slow"


# An epoch of a supernet is one batch
FAST = dataclasses.replace(tiny.PROTOCOL, search_batch=60, finalists=1, final_epochs=1)


def make(name: str, **changes):
    problem = tiny.problem(name, space_config={"nodes": 1}, protocol=FAST, **changes)
    cls = METHODS[name]
    return problem, cls(problem, cls.Config(**tiny.method_config(name)))


def through_a_file(state: dict) -> dict:
    """As a checkpoint would give it back: tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def a_method_finishes_and_proposes_valid_architectures(name: str, _: Path) -> None:
    problem, method = make(name)
    reports = []
    while not method.finished:
        reports.append(method.step())
        assert len(reports) <= 50
    assert [report.step for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].step == reports[-1].total
    for report in reports:
        assert 0 <= report.validation_error <= 1
        assert report.cost > 0
        assert all(np.isfinite(value) for value in report.diagnostics.values())
    proposals = method.proposals()
    assert proposals
    assert len({architecture.key for architecture in proposals}) == len(proposals)
    for architecture in proposals:
        assert problem.space.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
        network = problem.space.build(architecture, problem.shape)
        assert torch.isfinite(network(torch.zeros(2, *problem.shape.input_shape))).all()


def global_generators() -> tuple:
    """Where they stand: nothing is to be drawn from them, since checkpoints do not hold them."""
    return random.getstate(), [str(part) for part in np.random.get_state()], torch.get_rng_state().tolist()  # noqa: NPY002


def same_seed_same_result_and_another_seed_another(name: str, _: Path) -> None:
    runs = []
    for seed in (0, 0, 1):
        random.seed(len(runs))
        np.random.seed(len(runs))  # noqa: NPY002
        torch.manual_seed(len(runs))
        before = global_generators()
        _, method = make(name, seed=seed)
        reports = [method.step(), method.step()]
        assert global_generators() == before
        runs.append((reports, [a.key for a in method.proposals()], method.state_dict()))
    assert runs[0][:2] == runs[1][:2]
    assert same(runs[0][2], runs[1][2])
    assert not same(runs[0][2], runs[2][2])


def a_resumed_method_equals_an_uninterrupted_one(name: str, _: Path) -> None:
    _, straight = make(name)
    reports = []
    while not straight.finished:
        reports.append(straight.step())
    problem, first = make(name)
    first.step()
    saved = through_a_file({"method": first.state_dict(), "problem": problem.state_dict()})
    problem, second = make(name)
    second.load_state_dict(saved["method"])
    problem.load_state_dict(saved["problem"])
    resumed = []
    while not second.finished:
        resumed.append(second.step())
    assert resumed == reports[1:]
    assert second.proposals() == straight.proposals()
    assert same(second.state_dict(), straight.state_dict())


def a_budget_of_time_that_ends_in_a_step_leaves_something_to_propose(name: str, _: Path) -> None:
    """Nothing is trained after the candidate with which the time is over."""
    problem, method = make(name, budget="1h")
    problem.searched.out_of_time = lambda: True
    for step in (1, 2):
        with problem.repeatable_step():
            report = method.step()
        assert report.step == step
        assert len(problem.searched.trials) <= step
        assert method.proposals()


def a_run_keeps_its_budget_of_steps_and_reads_the_test_set_at_the_end_only(name: str, parent: Path) -> None:
    stages_of_reading = []

    def read():
        stages_of_reading.append(run.state.stage)
        return tiny.dataset().test()

    config = tiny.run_config(name, budget="1steps", baselines="none", protocol=FAST, space_config={"nodes": 1})
    run = Run(config, tiny.dataset(read), CPU, tiny.library(config))
    folder = RunFolder.create(parent, config, tiny.library(config))
    run.execute(folder, quiet())
    assert [line["stage"] for line in read_history(folder.path / HISTORY)].count("search") == 1
    assert stages_of_reading == ["test"]


COUNTED = ("samples", "batch", "proposals", "generations", "population", "offspring", "rungs", "starts", "pool")


def settings_that_make_no_sense_are_refused(name: str, _: Path) -> None:
    cls = METHODS[name]
    for field in dataclasses.fields(cls.Config):
        if field.name in COUNTED:
            try:
                dataclasses.replace(cls.Config(), **{field.name: 0})
            except InputError:
                continue
            pytest.fail(f"{name} takes {field.name} = 0")


def presets_are_settings_and_one_is_the_literatures(name: str, _: Path) -> None:
    cls = METHODS[name]
    assert "published" in cls.presets
    assert all(isinstance(preset, cls.Config) for preset in cls.presets.values())


CONTRACT = (
    a_method_finishes_and_proposes_valid_architectures,
    same_seed_same_result_and_another_seed_another,
    a_resumed_method_equals_an_uninterrupted_one,
    a_budget_of_time_that_ends_in_a_step_leaves_something_to_propose,
    a_run_keeps_its_budget_of_steps_and_reads_the_test_set_at_the_end_only,
    settings_that_make_no_sense_are_refused,
    presets_are_settings_and_one_is_the_literatures,
)
