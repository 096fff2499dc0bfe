"""Trains entries of a table again, to see that it holds what it says."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evaluation.benchmark.curves import CurveJob, CurveTraining
from evaluation.benchmark.header import Table
from evaluation.training.device import choose_device, use_threads
from spaces.errors import InputError

SPREADS = (
    4.0  # standard deviations between trainings, by which a repeated one may differ: other processors round otherwise
)
USUAL_NOISE = 0.01  # where a table cannot tell


@dataclass(frozen=True)
class Checked:
    """An entry that was trained again."""

    line: str  # for people
    same: bool  # to the last answer
    within: bool


def verify(table: Table, entries: int, seed: int, device: str) -> Iterator[Checked]:
    """Train so many random entries of the table again. Raises InputError where its data or truth tables are others now."""
    _require_same_inputs(table)
    use_threads(1, 1)
    training = CurveTraining(table.header.plan, choose_device(device))
    rng = np.random.default_rng(seed)
    spread = table.noise if table.seeds > 1 else USUAL_NOISE
    for _ in range(entries):
        kept = table.kept(rng)
        curve = training(CurveJob(kept.architecture, "approximate", kept.seed, table.epochs))
        now = np.array(curve.test)
        difference = abs(float(now[-1]) - float(kept.test[-1])) / table.header.test_images
        same = bool((kept.test == now).all() and (kept.validation == curve.validation).all())
        found = "the same" if same else f"differs by {difference:.2%}"
        error = kept.test[-1] / table.header.test_images
        yield Checked(
            f"{kept.architecture.short()}, training {kept.seed}: test error {error:.2%}, {found}",
            same,
            same or difference <= SPREADS * spread,
        )


def _require_same_inputs(table: Table) -> None:
    from evaluation import datasets

    plan = table.header.plan
    dataset = datasets.load(plan.dataset)
    found = dataset.train.fingerprint, dataset.test().fingerprint
    if found != (table.header.train_fingerprint, table.header.test_fingerprint):
        raise InputError(f"the images of '{plan.dataset}' are not those that the table was made with")
    changed = [multiplier.name for multiplier in plan.library if table.header.tables[multiplier.name] != multiplier.key]
    if changed:
        raise InputError(f"{', '.join(changed)}: not the truth table that the table was made with")
    if plan.settings.hash != table.header.protocol.hash:
        raise InputError(f"the protocol '{plan.protocol}' has changed since the table was made")
