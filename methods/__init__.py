"""ApproxNAS-Bench: search methods by name.

A new method is one file here and one line in ``METHODS``, or an entry point in the group ``approxnas.methods`` of
another package.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from spaces.plugins import Registry

if TYPE_CHECKING:  # it imports moocore, which --help can do without
    from methods.method import Method

METHODS: "Registry[type[Method]]" = Registry(
    "method",
    "approxnas.methods",
    {
        "approxdarts": "methods.approxdarts:ApproxDarts",
        "asha": "methods.asha:Asha",
        "dartspt": "methods.dartspt:DartsPt",
        "ddarts": "methods.ddarts:DDarts",
        "evoapproxnas": "methods.evoapproxnas:EvoApproxNas",
        "gdas": "methods.gdas:Gdas",
        "local_search": "methods.local_search:LocalSearch",
        "optuna": "methods.optuna_search:OptunaSearch",
        "pcdarts": "methods.pcdarts:PcDarts",
        "pipelined": "methods.pipelined:Pipelined",
        "predictor": "methods.predictor:Predictor",
        "regularised_evolution": "methods.regularised_evolution:RegularisedEvolution",
        "random": "methods.random_search:RandomSearch",
        "zero": "methods.zero:Zero",
    },
)


def installed() -> list[str]:
    """The names of those that can run here: the package that one ``needs`` beyond ours may not be installed."""
    needed = {name: getattr(cls, "needs", "") for name, cls in METHODS.items()}
    return [name for name, package in needed.items() if not package or find_spec(package)]
