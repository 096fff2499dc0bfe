"""Search spaces by name.

A new space is one package here and one line in ``SPACES``, or an entry point in the group ``approxnas.spaces`` of
another package. See ``spaces.space`` for what its class offers.
"""

import difflib
import re
from pathlib import Path

from spaces.errors import InputError
from spaces.plugins import Registry
from spaces.space import Architecture, DifferentiableSpace, Space

SPACES: Registry[type[Space]] = Registry(
    "space",
    "approxnas.spaces",
    {
        "cells": "spaces.cells.space:CellSpace",
        "grid": "spaces.grid.space:GridSpace",
        "bench": "spaces.bench.space:BenchSpace",
    },
)
DEFAULT = "cells"  # in which methods are compared where no space is asked for


def architecture_from_json(data: object) -> Architecture:
    """An architecture of any space, whatever that space's settings. Raises InputError for anything else."""
    name = data.get("space") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in SPACES:
        raise InputError(f"not an architecture: its 'space' is none of {', '.join(SPACES)}")
    return SPACES[name].architecture_type.from_json(data)


def find_published(text: str) -> tuple[str, Architecture]:
    """A published architecture, on exact multipliers, and its name here; case, hyphens and underscores do not count.

    Raises InputError for an unknown one and suggests the nearest.
    """
    known = {name: architecture for cls in SPACES.values() for name, architecture in cls.published.items()}
    by_letters = {_letters(name): name for name in known}
    name = by_letters.get(_letters(text).removesuffix("cifar"))
    if name is None:
        near = difflib.get_close_matches(_letters(text), by_letters, n=1, cutoff=0.5)
        hint = f"did you mean {by_letters[near[0]]}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"unknown architecture '{text}'; {hint}")
    return name, known[name]


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def from_literature(data: object) -> Architecture | None:
    """An architecture in the form in which papers print it, on exact multipliers; None where ``data`` is in none.

    Raises InputError where it is in such a form, but damaged.
    """
    found = (cls.from_literature(data) for cls in SPACES.values())
    return next((architecture for architecture in found if architecture is not None), None)


def save_drawing(architecture: Architecture, path: Path) -> None:
    """Draw an architecture to a file, the same bytes every time. Raises InputError for a suffix but .svg, .pdf or .png."""
    from spaces import drawing  # matplotlib takes a second to import

    drawing.write(SPACES[architecture.space].draw(architecture), path, architecture.key)


def differentiable() -> list[str]:
    """The names of the spaces that can be searched by gradient."""
    return [name for name, cls in SPACES.items() if hasattr(cls, "supernet")]


def cell_by_cell() -> list[str]:
    """The names of those whose cells need not be alike."""
    return [name for name in differentiable() if getattr(SPACES[name], "cell_by_cell", False)]


def deciding() -> list[str]:
    """The names of the spaces that list their decisions."""
    return [name for name, cls in SPACES.items() if getattr(cls, "decisions", None) not in (None, Space.decisions)]


def sharing() -> list[str]:
    """The names of those in which the inputs of nodes can be weighed against each other."""
    return [
        name for name in differentiable() if getattr(SPACES[name], "shares", None) is not DifferentiableSpace.shares
    ]
