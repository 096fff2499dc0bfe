"""Search methods by name.

A new method is one file here and one line in ``BUILT_IN``, or an entry point in the group ``approxnas.methods`` of
another package. Classes are imported when they are asked for, so that listing the names costs nothing.
"""

import functools
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from spaces.errors import InputError, suggest

BUILT_IN = {
    "approxdarts": "methods.approxdarts:ApproxDarts",
    "evoapproxnas": "methods.evoapproxnas:EvoApproxNas",
    "random": "methods.random_search:RandomSearch",
}


class _Methods(Mapping[str, type]):
    """Name → class. An unknown name raises InputError and suggests the nearest."""

    @functools.cached_property
    def _paths(self) -> dict[str, str]:
        external = {entry.name: entry.value for entry in entry_points(group="approxnas.methods")}
        return external | BUILT_IN

    def __getitem__(self, name: str) -> type:
        if name not in self._paths:
            raise suggest(name, self._paths, "method")
        if not name.isidentifier():  # it begins the names of the method's flags
            raise InputError(f"method '{name}' needs another name in its entry point: letters, digits and underscores")
        module, _, attribute = self._paths[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._paths))

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, name: object) -> bool:
        return name in self._paths


METHODS: Mapping[str, type] = _Methods()
