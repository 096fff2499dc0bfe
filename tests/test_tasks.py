"""A second task in one class: where the bright third of an image is, as a number from 0 to 1."""

import dataclasses

import numpy as np
import pytest
import torch

from evaluation.searching import candidates
from evaluation.searching.candidates import Job
from evaluation.training.tasks import TASKS
from evaluation.training.tasks.image_classification import ImageClassification
from methods import METHODS, installed
from reports.load import load
from tests import tiny
from tests.running import finished_run


class Place:
    """One output, whose sigmoid is the place; the targets are class numbers 0, 1 and 2."""

    def input_shape(self, dataset):
        return tuple(dataset.train.images.shape[1:])

    def outputs(self, _):
        return 1

    def augment(self, inputs, *_):
        return inputs

    def loss(self, outputs, targets, smoothing=0.0):  # noqa: ARG002
        return (outputs[:, 0].sigmoid() - targets / 2).square().mean()

    def errors(self, outputs, targets):
        return (outputs[:, 0].sigmoid() - targets / 2).abs()

    def answers(self, outputs):
        return 2 * outputs[:, 0].sigmoid()


@pytest.fixture
def place():
    with TASKS.temporarily("place", Place):
        yield "place"


def test_a_candidate_is_judged_by_its_task(place):
    problem = tiny.problem(task=place)
    architecture = problem.space.sample(np.random.default_rng(0))
    (evaluation,) = problem.evaluate([architecture], epochs=3)
    job = Job(architecture, "search", 0, 3)
    network = candidates.trained_network(job, problem.conditions).eval()
    with torch.no_grad():
        apart = [abs(float(network(x).sigmoid()) - float(y) / 2) for x, y in problem.data.validation.in_order(1)]
    assert evaluation.failure is None
    assert evaluation.error == pytest.approx(np.mean(apart), rel=1e-5)
    assert problem.shape.classes == 1


@pytest.mark.parametrize("name", sorted(installed()))
def test_every_method_searches_for_another_task(place, name):
    problem = tiny.problem(name, task=place, space_config={"nodes": 1})
    method = METHODS[name](problem, METHODS[name].Config(**tiny.method_config(name)))
    report = method.step()
    if name != "zero":  # which trains nothing
        assert 0 < report.validation_error < 1 and report.validation_error * 3 % 1 != 0
    assert method.proposals()


def test_a_whole_run_on_another_task(place, tmp_path):
    _, record = finished_run(tmp_path, tiny.run_config("random", task=place, baselines="none"))
    accuracies = [finalist.accuracy.test["approximate"] for finalist in record.finalists]
    assert accuracies and all(0 < accuracy < 1 for accuracy in accuracies)
    assert record.failures == ()


def test_errors_of_a_classification_are_wrong_answers():
    outputs, targets = torch.tensor([[0.1, 0.9], [0.8, 0.3], [2.0, 1.0]]), torch.tensor([1, 1, 0])
    task = ImageClassification()
    assert task.errors(outputs, targets).tolist() == [False, True, False]
    assert task.answers(outputs).tolist() == [1, 0, 0]
    by_hand = -torch.stack([row[t] - row.exp().sum().log() for row, t in zip(outputs, targets)]).mean()
    assert torch.allclose(task.loss(outputs, targets), by_hand)


def test_the_record_names_the_task_and_a_report_sets_it_apart(place, tmp_path):
    config = tiny.run_config("random", baselines="none")
    for task in (place, "image_classification"):
        finished_run(tmp_path, dataclasses.replace(config, task=task))
    sections = load([tmp_path]).sections
    assert sorted(section.runs[0].record.task for section in sections) == ["image_classification", "place"]
