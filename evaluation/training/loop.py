"""Training of one network: a loop that reads top to bottom, one epoch at a time, resumable between epochs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evaluation.settings.protocols import Protocol
from evaluation.training import memory
from evaluation.training.data import EVALUATION_BATCH, SMALLEST_EVALUATION_BATCH, DeviceImages
from evaluation.training.distributed import ALONE, Team
from evaluation.training.tasks.task import Augmentation, Task
from spaces.graphed_step import GraphedStep, recorder_of
from spaces.optimisers import learning_rate, load_optimiser, set_learning_rate
from spaces.warmup import first_step_watched

NOT_VARIED = Augmentation()


@dataclass(frozen=True)
class Schedule:
    """One training: SGD with momentum, learning rate falling from ``lr`` to zero along a cosine, step by step.

    DARTS lowers it epoch by epoch, which is the same over hundreds of them, but leaves the last of few too high. In the
    first share ``warmup`` of the training it rises linearly to ``lr`` instead.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float
    weight_decay: float
    clip: float
    augmentation: Augmentation = NOT_VARIED
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0
    warmup: float = 0.0
    label_smoothing: float = 0.0

    def lr_at(self, done: float) -> float:
        """The learning rate where the share ``done`` of all steps, 0..1, is over."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        falling = (done - self.warmup) / (1 - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * falling))

    @classmethod
    def selection(cls, protocol: Protocol, epochs: int) -> "Schedule":
        """The brief training of candidates."""
        p = protocol
        augmentation = Augmentation(p.crop_padding, p.flip)
        return cls(epochs, p.batch, p.selection_lr, p.momentum, p.weight_decay, p.clip, augmentation, warmup=p.warmup)

    @classmethod
    def final(cls, protocol: Protocol) -> "Schedule":
        """The training of finalists."""
        p = protocol
        augmentation = Augmentation(p.crop_padding, p.flip, p.cutout)
        common = (p.final_epochs, p.batch, p.final_lr, p.momentum, p.weight_decay, p.clip)
        return cls(*common, augmentation, p.auxiliary_weight, p.drop_path, p.warmup, p.label_smoothing)


class TrainingLoss(nn.Module):
    """The loss of a network in training, with that of its auxiliary head: all that a backward pass starts from."""

    def __init__(self, network: nn.Module, task: Task, schedule: Schedule) -> None:
        super().__init__()
        self.network, self.task, self.schedule = network, task, schedule

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over a batch of (N, *input shape) with targets (N, …)."""
        smoothing = self.schedule.label_smoothing
        loss = self.task.loss(self.network(inputs), targets, smoothing)
        auxiliary = getattr(self.network, "auxiliary_logits", None)
        if auxiliary is not None:
            loss = loss + self.schedule.auxiliary_weight * self.task.loss(auxiliary, targets, smoothing)
        return loss


class Training:
    """A network on its way through a schedule. ``run_epoch`` until ``finished``; the state is complete in between."""

    def __init__(
        self,
        network: nn.Module,
        data: DeviceImages,
        schedule: Schedule,
        generator: torch.Generator,
        team: Team = ALONE,
    ) -> None:
        self.network = network.to(device=data.device, memory_format=torch.channels_last)
        self.data, self.schedule, self.generator, self.team = data, schedule, generator, team
        self.loss = team.wrap(TrainingLoss(self.network, data.task, schedule), data.device)
        recorder = recorder_of(data.device) if team.size == 1 else None
        lr = learning_rate(schedule.lr, recorder is not None, data.device)
        self.optimiser = torch.optim.SGD(
            network.parameters(), lr, schedule.momentum, weight_decay=schedule.weight_decay, fused=True
        )
        self._total = torch.zeros((), device=data.device)  # of the losses of an epoch
        changed = [*network.parameters(), *network.buffers()]
        self.step = GraphedStep(self._step, changed, recorder, (generator,))
        self.epoch = 0
        self.warm = False  # in this process

    @property
    def finished(self) -> bool:
        return self.epoch >= self.schedule.epochs

    def run_epoch(self) -> float:
        """Train for one epoch and return its mean loss. Raises FloatingPointError when that is not finite."""
        plan = self.schedule
        self._set_drop_path(plan.drop_path * self.epoch / plan.epochs)
        self.network.train()
        self._total.zero_()
        batches = 0
        planned = plan.epochs * max(1, len(self.data) // plan.batch)
        epoch = self.data.shuffled(plan.batch, self.generator, plan.augmentation)
        if not self.warm:
            epoch, self.warm = first_step_watched(epoch, self.data.device), True
        for images, labels in epoch:
            set_learning_rate(self.optimiser, plan.lr_at(self.epoch / plan.epochs + batches / planned))
            self.step(images, labels)
            batches += 1
        self.epoch += 1
        mean = float(self.team.mean(self._total)) / batches
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is not finite after epoch {self.epoch}")
        return mean

    def _set_drop_path(self, probability: float) -> None:
        drop_path = getattr(self.network, "drop_path", None)
        if drop_path is not None:
            if probability != drop_path.probability:
                self.step.forget()  # a graph has the number in it
            drop_path.probability, drop_path.generator = probability, self.generator

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """w ← w − lr ∇_w L, on this process' share of the batch."""
        share = self.team.share(len(images))
        if self.team.size > 1 and hasattr(self.network, "drop_path"):
            self.network.drop_path.share = (share, len(images))
        # So weighted, the mean over the processes is that over the batch's images.
        loss = self.loss(images[share], labels[share]) * ((share.stop - share.start) * self.team.size / len(images))
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.optimiser.step()
        self._total += loss.detach()

    def state_dict(self) -> dict:
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        load_optimiser(self.optimiser, state["optimiser"])
        self.step.forget()
        self.generator.set_state(state["generator"])


def accuracy(network: nn.Module, data: DeviceImages) -> float:
    """1 − the task's mean error, in evaluation mode: of a classification the share of right answers.

    Raises FloatingPointError when an answer is not a number.

    Where memory is too small for ``EVALUATION_BATCH``, in smaller batches, down to ``SMALLEST_EVALUATION_BATCH``.
    """
    batch = EVALUATION_BATCH
    while True:
        try:
            return _accuracy(network, data, batch)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_full(error) or batch == SMALLEST_EVALUATION_BATCH:
                raise
        batch //= 2


_evaluated: set[torch.device] = set()  # devices that have evaluated in this process


@torch.no_grad()
def _accuracy(network: nn.Module, data: DeviceImages, batch: int) -> float:
    network.eval()
    wrong = torch.zeros((), device=data.device, dtype=torch.float64)  # counts are exact in it
    finite = torch.ones((), device=data.device, dtype=torch.bool)
    batches = data.in_order(batch)
    if data.device not in _evaluated and len(data) >= 2 * batch:  # two batches that take the same time otherwise
        _evaluated.add(data.device)
        batches = first_step_watched(batches, data.device)
    for inputs, targets in batches:
        outputs = network(inputs)
        finite &= torch.isfinite(outputs).all()
        wrong += data.task.errors(outputs, targets).double().sum()
    if not bool(finite):
        raise FloatingPointError("the network's answers are not finite")
    return (len(data) - float(wrong)) / len(data)
