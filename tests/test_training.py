"""One training against a loop by hand: what the optimiser's fused step must not hide from the layers."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evaluation.settings.protocols import named_protocol
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.loop import Schedule, Training
from evaluation.training.tasks.image_classification import ImageClassification
from evaluation.training.tasks.task import Augmentation
from tests import tiny

SHIFTED = Augmentation(crop_padding=1, flip=True)
SCHEDULE = Schedule(epochs=1, batch=20, lr=0.05, momentum=0.9, weight_decay=3e-4, clip=5.0, augmentation=SHIFTED)


def images() -> DeviceImages:
    train = tiny.dataset().train
    return DeviceImages(train, *channel_statistics(train), torch.device("cpu"))


def network() -> nn.Module:
    problem = tiny.problem()
    torch.manual_seed(1)
    return problem.space.build(problem.space.sample(problem.rng), problem.shape, "approximate")


def test_an_epoch_equals_one_by_hand():
    training = Training(network(), images(), SCHEDULE, torch.Generator().manual_seed(2))
    loss = training.run_epoch()
    by_hand, losses = network().train(), []
    momenta: dict = {}
    batches = images().shuffled(20, torch.Generator().manual_seed(2), SHIFTED)
    for step, (x, y) in enumerate(batches):
        current = F.cross_entropy(by_hand(x), y)
        names = [name for name, _ in by_hand.named_parameters()]
        gradients = torch.autograd.grad(current, list(by_hand.parameters()), allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
        with torch.no_grad():
            for name, weight, gradient in zip(names, by_hand.parameters(), gradients):
                if gradient is not None:
                    moved = gradient * min(1.0, 5.0 / (norm + 1e-6)) + 3e-4 * weight
                    momenta[name] = moved + 0.9 * momenta.get(name, 0.0)
                    weight -= 0.05 * 0.5 * (1 + math.cos(math.pi * step / 6)) * momenta[name]
        losses.append(float(current.detach()))
    assert len(losses) == 6
    assert abs(loss - sum(losses) / 6) < 1e-4
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(training.network.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_layers_compute_with_the_weights_of_the_latest_step():
    training = Training(network(), images(), SCHEDULE, torch.Generator().manual_seed(2))
    training.run_epoch()
    fresh = network().to(memory_format=torch.channels_last)  # with nothing packed yet
    fresh.load_state_dict(training.network.state_dict())
    x, _ = next(images().in_order(30))
    assert torch.equal(training.network.eval()(x), fresh.eval()(x))


def test_the_learning_rate_rises_and_falls():
    plan = replace(SCHEDULE, lr=0.4, warmup=0.2)
    assert [round(plan.lr_at(done), 6) for done in (0, 0.05, 0.1, 0.2, 0.6, 1)] == [0, 0.1, 0.2, 0.4, 0.2, 0]
    training = Training(network(), images(), replace(plan, epochs=5), torch.Generator().manual_seed(2))
    training.run_epoch()
    assert training.optimiser.param_groups[0]["lr"] == pytest.approx(0.4 * 5 / 6)  # the last of the first six steps
    quick = replace(named_protocol("quick"), warmup=0.3, label_smoothing=0.1)
    selection, final = Schedule.selection(quick, 2), Schedule.final(quick)
    assert (selection.warmup, final.warmup) == (0.3, 0.3)
    assert (selection.label_smoothing, final.label_smoothing) == (0.0, 0.1)


def test_smoothed_labels_ask_a_little_for_every_class():
    logits, right = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    asked = torch.full((5, 3), 0.3 / 3)
    asked[range(5), right] += 0.7
    by_hand = -(asked * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ImageClassification().loss(logits, right, 0.3), by_hand)
    losses = []
    for smoothing in (0.0, 0.9):
        schedule = replace(SCHEDULE, lr=1e-9, label_smoothing=smoothing)
        losses.append(Training(network(), images(), schedule, torch.Generator().manual_seed(2)).run_epoch())
    assert losses[0] != losses[1]
