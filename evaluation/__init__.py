"""ApproxNAS-Bench: runs and measures search methods: data, training, stages, the ledger, run folders, command lines.

    import evaluation as ev

    result = ev.search("approxdarts", dataset="fashion14", budget="60s", seeds=3)

``search``, ``load``, ``SearchResult`` and ``InputError`` are for users; they are imported when they are asked for.
"""

import importlib
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.interface import load, search
    from evaluation.result import SearchResult
    from spaces.errors import InputError

__all__ = ["InputError", "SearchResult", "load", "search"]

runpy.run_path(str(Path(__file__).parents[1] / "spaces" / "own_floors.py"))["require_own"]()

_HOMES = {
    "search": "evaluation.interface",
    "load": "evaluation.interface",
    "SearchResult": "evaluation.result",
    "InputError": "spaces.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
