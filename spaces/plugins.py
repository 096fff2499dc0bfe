"""Registries: what can be chosen by name, ours and other packages'.

One more of a kind is one file and one line in the registry's table, or an entry point of another package. Entries are
imported when they are asked for, so that listing the names costs nothing.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from spaces.errors import InputError, suggest

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Name → entry, ours in the order of the table, then others by name. An unknown name raises InputError with the nearest.

    ``kind`` is the word for an entry in messages ("method"), ``group`` the entry-point group that other packages name
    ("approxnas.methods"), ``built_in`` our own entries as "module:attribute". Ours take precedence over entry points.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self.kind, self.group, self.built_in = kind, group, dict(built_in)

    @functools.cached_property
    def _paths(self) -> dict[str, str | Entry]:
        external = {entry.name: entry.value for entry in entry_points(group=self.group)}
        paths: dict[str, str | Entry] = dict(self.built_in)
        return paths | {name: external[name] for name in sorted(external.keys() - self.built_in.keys())}

    def __getitem__(self, name: str) -> Entry:
        if name not in self._paths:
            raise suggest(name, self._paths, self.kind)
        if not name.isidentifier():  # it begins the names of flags, and stands in names of files and of columns
            raise InputError(
                f"{self.kind} '{name}' needs another name in its entry point: letters, digits and underscores"
            )
        path = self._paths[name]
        if not isinstance(path, str):
            return path
        try:
            module, _, attribute = path.partition(":")
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if name in self.built_in:
                raise
            raise InputError(
                f"the {self.kind} '{name}' of another package cannot be loaded ({error}); repair or remove that package"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._paths))

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    @contextlib.contextmanager
    def temporarily(self, name: str, entry: Entry | str) -> Iterator[None]:
        """``entry``, or the one at the path "module:attribute", goes by ``name`` until the block ends; for tests."""
        before = dict(self._paths)
        self._paths[name] = entry
        try:
            yield
        finally:
            self._paths.clear()
            self._paths.update(before)
