"""Tables of the real form and the real networks, with errors from a formula: no network is trained."""

import dataclasses

import numpy as np

from evaluation import datasets
from evaluation.benchmark.header import Header, exact
from evaluation.benchmark.plan import TablePlan
from evaluation.benchmark.surrogate import SurrogateTable
from evaluation.benchmark.table import BenchTable
from spaces.bench.architecture import BenchArchitecture

PLAN = TablePlan("fashion14", "bench", "bench", ("mul8s_1KV8", "mul8s_1L1G", "bam8s_4_4_0"), seeds=3)
VALIDATION, TEST = 5000, 10_000


def error(architecture: BenchArchitecture) -> float:
    """Falls with every convolution, more with larger ones, less with coarser multipliers."""
    gain = {"conv_1x1": 0.02, "conv_3x3": 0.05}
    left = {"mul8s_1KV8": 1.0, "mul8s_1L1G": 0.9, "bam8s_4_4_0": 0.4}
    return 0.4 - sum(gain[e.operation] * left[e.multiplier] for e in architecture.edges if e.multiplier)


def made_table(plan: TablePlan = PLAN, seed: int = 0) -> BenchTable:
    """Errors fall from epoch to epoch and differ between trainings; an epoch takes a second."""
    rng, networks, epochs = np.random.default_rng(seed), plan.networks(), plan.settings.selection_epochs
    topologies = list({exact(each, plan).key: exact(each, plan) for each in networks}.values())
    numbers = {each.key: at for at, each in enumerate(topologies)}

    def wrong(errors: list[float], images: int) -> np.ndarray:
        curves = (
            np.array(errors)[:, None, None]
            + 0.2 / np.arange(1, epochs + 1)
            + rng.normal(0, 0.005, (len(errors), plan.seeds, 1))
        )
        return np.round(np.clip(curves, 0, 1) * images).astype(np.uint16)

    arrays = {"fp32_of": np.array([numbers[exact(each, plan).key] for each in networks], np.uint16)}
    for prefix, found in (("", networks), ("fp32_", topologies)):
        errors = [error(each) for each in found]
        arrays |= {f"{prefix}validation": wrong(errors, VALIDATION), f"{prefix}test": wrong(errors, TEST)}
        seconds = np.tile(np.arange(1, epochs + 1), (len(found), plan.seeds, 1))
        arrays[f"{prefix}seconds"] = seconds.astype(np.float32)
    return BenchTable(made_header(plan), networks, arrays)


def made_header(plan: TablePlan) -> Header:
    dataset = datasets.load(plan.dataset)
    return Header(
        plan=plan,
        protocol=plan.settings,
        plan_key=plan.key,
        tables={multiplier.name: multiplier.key for multiplier in plan.library},
        dataset_origin="made",
        train_fingerprint=dataset.train.fingerprint,
        test_fingerprint=dataset.test().fingerprint,
        validation_images=VALIDATION,
        test_images=TEST,
        train_images=5000,
        input_shape=(1, 14, 14),
        classes=10,
        device="none",
        versions={},
        command="made",
        failures={},
    )


LARGE = dataclasses.replace(
    PLAN,
    surrogate=True,
    sample=60,
    repeated=12,
    seeds=2,
    space_config={"nodes": 3, "pooling": True, "sites": "nodes"},
)


def made_trainings(plan: TablePlan = LARGE, spread: float = 0.005, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of the trainings of a surrogate's sample: errors of the formula, and a normal deviation of each training."""
    rng, networks, epochs = np.random.default_rng(seed), plan.networks(), plan.settings.selection_epochs
    pairs = [(number, seed) for number in range(len(networks)) for seed in plan.seeds_of(number)]
    errors = np.array([error(networks[number]) for number, _ in pairs]) + rng.normal(0, spread, len(pairs))
    curves = errors[:, None] + 0.2 / np.arange(1, epochs + 1)
    return {
        "network": np.array([number for number, _ in pairs], np.uint16),
        "seed": np.array([seed for _, seed in pairs], np.uint8),
        "validation": np.round(np.clip(curves, 0, 1) * VALIDATION).astype(np.uint16),
        "test": np.round(np.clip(curves, 0, 1) * TEST).astype(np.uint16),
        "seconds": np.tile(np.arange(1, epochs + 1), (len(pairs), 1)).astype(np.float32),
    }


def made_surrogate(plan: TablePlan = LARGE, spread: float = 0.005) -> SurrogateTable:
    return SurrogateTable.fitted(made_header(plan), plan.networks(), made_trainings(plan, spread))
