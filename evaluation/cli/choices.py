"""What can be chosen by name, with a line on each, for --help. Nothing here imports torch."""

from collections.abc import Mapping
from typing import Any

from evaluation import datasets
from evaluation.datasets.official import OFFICIAL
from evaluation.settings.protocols import PROTOCOLS
from methods import METHODS
from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.cli.programs import listed
from spaces.costs import COSTS
from spaces.multipliers import catalogue
from spaces.multipliers.families import FAMILIES
from spaces.plugins import Registry, first_line, first_sentence
from spaces.registry import SPACES


def listing() -> str:
    """Everything, flag by flag, as wide as the terminal."""
    return "\n\n".join(f"{flag}\n{listed(lines)}" for flag, lines in choices().items())


def choices() -> Mapping[str, dict[str, str]]:
    """A heading with its flag → name → line."""
    built_in = f"{len(catalogue.names())} of EvoApproxLib v1, by name: see the command multipliers list"
    families = {family.form.partition(" with ")[0]: family.description for family in FAMILIES.values()}
    return {
        "methods (--method)": described(METHODS),
        "spaces (--space)": described(SPACES),
        "protocols (--protocol)": {
            name: first_sentence(type(protocol).__doc__ or "") for name, protocol in PROTOCOLS.items()
        },
        "data sets (--dataset)": {
            **{name: first_line(load.__module__) for name, load in datasets.EMBEDDED.items()},
            **{name: f"{spec.title}, downloaded once" for name, spec in OFFICIAL.items()},
            "a path": "folder or archive with train/<class>/* and test/<class>/*",
        },
        "cost models (--cost)": described(COSTS),
        "arithmetics (--baselines)": {
            name: first_sentence(type(arithmetic).__doc__ or "") for name, arithmetic in ARITHMETICS.items()
        },
        "multipliers (--multipliers)": {
            "mul8s_1KV8, …": built_in,
            **families,
            "a path": "a truth table, or a folder of them",
        },
    }


def described(registry: Registry[Any]) -> dict[str, str]:
    """The names in a registry, each with the first line of its module; those of other packages, too."""
    return {name: registry.first_line(name) for name in registry}
