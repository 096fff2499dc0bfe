"""Steps that are replayed as graphs equal the same steps as they are; a tape stands in for the GPU's graphs."""

import copy
import dataclasses
import sys

import pytest
import torch
from torch import Tensor, nn

from evaluation.searching.problem import SearchProblem
from evaluation.training import loop
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.loop import Schedule, Training
from evaluation.training.tasks.task import Augmentation
from methods import METHODS, supernet
from methods.bilevel import Bilevel, Tally
from spaces import graphed_step
from spaces.arithmetic import precision
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.graphed_step import WARM, GraphedStep
from spaces.optimisers import load_optimiser, set_learning_rate
from tests import tiny
from tests.convolutions import LIBRARY
from tests.pretend import DEVICE, on_host, pretending
from tests.tape import TapeRecorder

CPU = torch.device("cpu")


class Model:
    """A weight that moves by a random share of each batch's mean, as fast as its rate says."""

    def __init__(self, recorder: TapeRecorder | None) -> None:
        self.weight, self.rate = torch.ones(3), torch.tensor(0.5)
        self.generator = torch.Generator().manual_seed(0)
        self.step = GraphedStep(self.move, [self.weight], recorder, (self.generator,))

    def move(self, x: Tensor, y: Tensor) -> None:
        share = torch.rand(3, generator=self.generator)
        self.weight.add_(self.rate * share * (x.mean(0) + y.sum()))


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn((size, 3), generator=generator), torch.randn(size, generator=generator)) for size in sizes]


def test_steps_replayed_equal_steps_as_they_are():
    """With rates that change, random numbers, and a batch of another size at the end of an epoch."""
    recorder = TapeRecorder()
    eager, graphed = Model(None), Model(recorder)
    for number, batch in enumerate(batches(4, 4, 4, 4, 2, 4, 4, 2, 4)):
        for model in (eager, graphed):
            model.rate.fill_(1 / (number + 1))
            model.step(*batch)
        assert torch.equal(eager.weight, graphed.weight)
        assert torch.equal(eager.generator.get_state(), graphed.generator.get_state())
    assert (recorder.ran, recorder.recorded, recorder.replayed) == (WARM + 2, 1, 4)


def test_batches_are_copied_into_memory_of_the_step():
    model = Model(TapeRecorder())
    for x, y in batches(4, 4, 4, 4, 4):
        kept = x.clone()
        model.step(x, y)
        assert torch.equal(x, kept)
        x.fill_(torch.nan)  # what becomes of a batch afterwards is nobody's business
    assert model.weight.isfinite().all()


def test_what_was_kept_about_a_tensor_that_a_replay_changes_is_noticed_to_be_old():
    model = Model(TapeRecorder())
    for batch in batches(*[4] * (WARM + 1)):
        model.step(*batch)
    before = model.weight._version
    model.step(*batch)
    assert model.weight._version > before


def test_forgetting_records_anew_without_warming_up():
    recorder = TapeRecorder()
    model = Model(recorder)
    for number, batch in enumerate(batches(*[4] * 8)):
        if number == 6:
            model.rate = torch.tensor(0.0)  # other memory, which the recording does not know
            model.step.forget()
            still = model.weight.clone()
        model.step(*batch)
    assert torch.equal(model.weight, still)
    assert (recorder.ran, recorder.recorded, recorder.replayed) == (WARM, 2, 5)


def test_a_step_that_waits_goes_on_as_it_is():
    total = torch.zeros(())
    recorder = TapeRecorder()

    def waiting(x: Tensor, y: Tensor) -> None:
        total.add_(x.sum() * y.sum().item())

    step, expected = GraphedStep(waiting, [total], recorder), 0.0
    given = batches(*[2] * 6)
    for x, y in given[:WARM]:
        step(x, y)
    with pytest.warns(UserWarning, match="cannot repeat a training step"):
        step(*given[WARM])
    for x, y in given[WARM + 1 :]:
        step(x, y)
    for x, y in given:
        expected += float(x.sum() * y.sum())
    assert float(total) == pytest.approx(expected, rel=1e-5) and recorder.recorded == 1 and recorder.replayed == 0


# -- optimisers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_an_optimisers_state_moves_between_devices_whose_settings_differ(here, there):
    """Learning rates as numbers or as tensors, whichever the checkpoint had; its other settings are not a state."""

    def made(tensor: bool) -> torch.optim.SGD:
        weight = nn.Parameter(torch.ones(2))
        weight.grad = torch.ones(2)
        rate = torch.tensor(0.5) if tensor else 0.5
        return torch.optim.SGD([weight], rate, momentum=0.9, fused=tensor)

    saved, loaded = made(there), made(here)
    set_learning_rate(saved, 0.25)
    saved.step()
    saved.param_groups[0]["weight_decay"] = 7.0
    load_optimiser(loaded, copy.deepcopy(saved.state_dict()))
    group = loaded.param_groups[0]
    assert float(group["lr"]) == 0.25 and isinstance(group["lr"], Tensor) is here and bool(group["fused"]) is here
    set_learning_rate(loaded, 0.125)
    loaded.step()
    assert torch.equal(loaded.param_groups[0]["params"][0], torch.full((2,), 1 - 0.125 * 1.9))


# -- training ----------------------------------------------------------------------------------------------------------

SCHEDULE = Schedule(
    epochs=3, batch=20, lr=0.1, momentum=0.9, weight_decay=1e-3, clip=1.0, augmentation=Augmentation(1, True, 2),
    auxiliary_weight=0.4, drop_path=0.3,
)  # fmt: skip


@pytest.fixture
def training(monkeypatch):
    """A training of a small network in fp32, whose steps go onto a tape or not."""

    def make(recorder: TapeRecorder | None) -> Training:
        monkeypatch.setattr(loop, "recorder_of", lambda _: recorder)
        data = tiny.dataset().train
        images = DeviceImages(data, *channel_statistics(data), CPU)
        problem = tiny.problem()
        architecture = problem.space.sample(problem.rng)
        shape = dataclasses.replace(problem.shape, auxiliary=True)
        torch.manual_seed(0)
        network = problem.space.build(architecture, shape, "fp32")
        return Training(network, images, SCHEDULE, torch.Generator().manual_seed(3))

    return make


def test_a_training_replayed_equals_one_as_it_is_also_after_a_stop(training):
    """A learning rate for every step, paths dropped at random, and probabilities that change from epoch to epoch."""
    recorder = TapeRecorder()
    eager, graphed = training(None), training(recorder)
    set_learning_rate(eager.optimiser, 0.1)
    for epoch in range(SCHEDULE.epochs):
        assert graphed.run_epoch() == eager.run_epoch()
        if epoch == 1:
            state = copy.deepcopy(graphed.state_dict())
            graphed = training(recorder)
            graphed.load_state_dict(state)
    assert recorder.replayed > recorder.ran > 0 and recorder.recorded >= 3
    for name, value in eager.network.state_dict().items():
        assert torch.equal(graphed.network.state_dict()[name], value), name
    assert torch.equal(eager.generator.get_state(), graphed.generator.get_state())


# -- the search --------------------------------------------------------------------------------------------------------


class PlainSGD(torch.optim.Optimizer):
    """SGD with momentum whose learning rate may be a tensor; torch's is fused, and for real devices."""

    def __init__(self, params, lr, momentum, *, weight_decay, foreach, fused) -> None:  # noqa: ARG002
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state, direction = self.state[weight], weight.grad + group["weight_decay"] * weight
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = direction.clone()
                else:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
                weight.sub_(group["lr"] * state["momentum_buffer"])


@pytest.fixture
def graphs_anywhere(monkeypatch):
    """Optimisers that a graph can hold, on the pretended device too; steps are warm after one."""
    monkeypatch.setattr(torch.optim, "SGD", PlainSGD)
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_capturable_supported_devices", lambda **_: ["meta"])
    rate = lambda value, _, device: torch.full((), value, device=device)  # noqa: E731
    monkeypatch.setattr(supernet, "learning_rate", rate)
    monkeypatch.setattr(graphed_step, "WARM", 1)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    precision.forbid_tf32()  # a tape does not hold what precision was set
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Searched(nn.Module):
    """Three layers that mix three multipliers, and the loss of a batch under logits."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = MultiplierChoice(LIBRARY[:3])
        mixed = [(2, 4, 3, 1, 1), (4, 4, 3, 1, 1, 1, 4), (4, 3, 1)]
        layers = [MultiplierMixture(*sizes, choice=self.choice) for sizes in mixed]
        self.layers = nn.Sequential(layers[0], nn.BatchNorm2d(4), nn.ReLU(), *layers[1:])

    def bilevel(self, order: int, recorder: TapeRecorder | None, rate: Tensor) -> Bilevel:
        logits = nn.Parameter(torch.linspace(-1, 1, 3, device=DEVICE))

        def loss(batch: tuple[Tensor, Tensor], tally: Tally | None) -> Tensor:
            self.choice.set(logits.softmax(-1))
            answers = self.layers(batch[0]).mean(dim=(2, 3))
            found = nn.functional.cross_entropy(answers, batch[1])
            if tally is not None:
                tally.add(found.detach(), answers.detach().argmax(1) != batch[1])
            return found

        weights = PlainSGD(self.parameters(), rate, 0.9, weight_decay=1e-3, foreach=False, fused=False)
        choices = torch.optim.Adam([logits], 0.1, capturable=True)
        penalty = lambda: 0.1 * logits.softmax(-1)[0]  # noqa: E731
        return Bilevel(
            loss, penalty, weights, choices, 1.0, order, recorder=recorder, buffers=list(self.layers.buffers())
        )


@pytest.mark.usefixtures("graphs_anywhere")
@pytest.mark.parametrize("order", [1, 2])
def test_both_levels_replayed_equal_both_levels_as_they_are(order, monkeypatch):
    """With a rate that changes and a smaller batch in between; nobody waits."""
    results = []
    with pretending(monkeypatch) as waits:
        for recorder in (None, TapeRecorder()):
            torch.manual_seed(0)
            net = Searched().to(DEVICE)
            rate = torch.full((), 0.1, device=DEVICE)
            bilevel = net.bilevel(order, recorder, rate)
            given = [
                (torch.randn(size, 2, 4, 4).to(DEVICE), torch.arange(size).remainder(3).to(DEVICE))
                for size in (6, 6, 6, 4, 6)
            ]
            for number, batch in enumerate(given):
                if number == 1:
                    waits.clear()  # of what is copied to the device once
                rate.fill_(0.1 / (number + 1))
                bilevel.choice_step(batch, (batch[0] * 0.5, batch[1]))
                bilevel.weight_step(batch)
            assert waits == []
            results.append((bilevel, [*net.state_dict().values(), *bilevel.choices]))
    assert (recorder.ran, recorder.recorded, recorder.replayed) == (4, 2, 6)
    (eager, expected), (graphed, found) = results
    for value, other in zip(expected, found):
        assert torch.equal(on_host(value), on_host(other))
    for tally in ("train", "held_out"):
        assert torch.equal(*(on_host(getattr(bilevel, tally)._sums) for bilevel in (eager, graphed)))


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_anywhere")
@pytest.mark.parametrize("relaxation", ["softmax", "sigmoid"])
def test_a_search_replayed_equals_one_as_it_is(relaxation, monkeypatch):
    """The method, over two epochs with a stop between them."""
    config, states = tiny.run_config("approxdarts", space_config={"nodes": 1}), []
    with pretending(monkeypatch):
        for warm in (99, 1):  # the first one records nothing, with the optimisers of one that does
            recorder = TapeRecorder()
            monkeypatch.setattr(graphed_step, "WARM", warm)
            monkeypatch.setattr(supernet, "recorder_of", lambda _, recorder=recorder: recorder)
            problem = SearchProblem(config, tiny.dataset(), DEVICE, tiny.library(config))
            cls = METHODS["approxdarts"]
            settings = cls.Config(**{**config.method_config, "relaxation": relaxation, "warmup": 0})
            method = cls(problem, settings)
            reports = [method.step()]
            kept, method = method.state_dict(), cls(problem, settings)
            method.load_state_dict(kept)
            reports.append(method.step())
            states.append((reports, method.state_dict()))
    assert recorder.recorded == 4 and recorder.replayed == 8
    (reports, eager), (others, graphed) = states
    assert reports == others
    for part in ("net", "logits"):
        for name, value in eager[part].items():
            assert torch.equal(on_host(graphed[part][name]), on_host(value)), name


def test_sampled_operations_are_launched_as_they_are(monkeypatch):
    """Which ones run is decided on the host, for every pass anew."""
    monkeypatch.setattr(supernet, "recorder_of", lambda _: pytest.fail("nothing can be recorded"))
    problem = tiny.problem("approxdarts")
    METHODS["approxdarts"](problem, METHODS["approxdarts"].Config(relaxation="gumbel", epochs=1)).step()
