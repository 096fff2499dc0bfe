"""Small problems on which whole runs take seconds."""

import dataclasses

import numpy as np
import torch

from evaluation.datasets import Dataset, ImageSet
from evaluation.searching.problem import SearchProblem
from evaluation.settings.config import RunConfig
from evaluation.settings.protocols import Protocol
from methods import METHODS
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.registry import SPACES

PROTOCOL = Protocol(
    name="tiny",
    search_channels=2,
    search_cells=3,
    search_batch=20,
    selection_epochs=1,
    selection_lr=0.05,
    finalists=2,
    finalist_margin=1.0,
    final_channels=2,
    final_cells=3,
    final_epochs=2,
    final_lr=0.05,
    batch=20,
    crop_padding=1,
    flip=True,
    cutout=2,
    auxiliary_weight=0.4,
    drop_path=0.2,
)

# What makes a method small; a method that is not named here runs with its preset for "quick".
SMALL = {
    "approxdarts": {"epochs": 3, "warmup": 1, "proposals": 3, "relaxation": "gumbel", "choice_lr": 0.1},
    "asha": {"samples": 4, "eta": 2, "resource": 2},
    "dartspt": {"epochs": 1, "proposals": 2, "judged": 1},
    "ddarts": {"epochs": 2, "proposals": 2},
    "evoapproxnas": {"population": 3, "offspring": 2, "generations": 2, "epochs": 1, "proposals": 3},
    "gdas": {"epochs": 2, "proposals": 2, "trained": 3},
    "local_search": {"samples": 4, "starts": 2},
    "optuna": {"samples": 4, "starts": 2},
    "pcdarts": {"epochs": 2, "warmup": 1, "partial": 1, "proposals": 2, "choice_lr": 0.1},
    "pipelined": {"weight_epochs": 1, "choice_epochs": 1, "proposals": 2, "choice_lr": 0.1},
    "predictor": {"samples": 5, "starts": 3, "batch": 1, "pool": 6, "models": 2, "trees": 5},
    "random": {"samples": 5, "batch": 2},
    "regularised_evolution": {"samples": 4, "population": 2},
    "zero": {"samples": 12, "batch": 4, "proposals": 2},
}


def method_config(name: str) -> dict:
    cls = METHODS[name]
    config = cls.presets.get("quick", cls.Config())
    return dataclasses.asdict(dataclasses.replace(config, **SMALL.get(name, {})))


def run_config(method: str = "random", **changes) -> RunConfig:
    settings = {
        "method": method,
        "method_config": method_config(method),
        "seed": 0,
        "protocol": PROTOCOL,
        "dataset": "blobs",
        "multipliers": ("mul8s_1KV8", "mul8s_1L2H", "mul8s_1KX2"),
        "space": "cells",
        "space_config": {"nodes": 2},
        "scope": "all",
        "multiplier_choice": "edge",
        "cost": "horowitz45",
        "budget": "",
        "baselines": "first",
        "device": "cpu",
        "threads": 0,
        "image_size": 0,
        "command": "test",
    }
    if "space" in changes:
        settings["space_config"] = dataclasses.asdict(SPACES[changes["space"]].small)
    settings |= changes
    if isinstance(settings["baselines"], str):
        settings["baselines"] = (settings["baselines"],)
    return RunConfig(**settings)


def _blobs(count: int, seed: int) -> ImageSet:
    """Three classes that differ in which third of the image is bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 100, (count, 1, 6, 6))
    for index, label in enumerate(labels):
        images[index, :, 2 * label : 2 * label + 2] += 120
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64))


def dataset(test=lambda: _blobs(30, seed=1)) -> Dataset:
    return Dataset("blobs", "made by the tests", ("top", "middle", "bottom"), _blobs(120, seed=0), test)


def problem(method: str = "random", **changes) -> SearchProblem:
    config = run_config(method, **changes)
    return SearchProblem(config, dataset(), torch.device("cpu"), library(config))


def library(config: RunConfig) -> tuple[Multiplier, ...]:
    return catalogue.library(config.multipliers)
