"""Registries: what can be chosen by name, ours and other packages'.

One more of a kind is one file and one line in the registry's table, or an entry point of another package. Entries are
imported when they are asked for, so that listing the names costs nothing.
"""

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
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

    def require(self, name: str) -> None:
        """Raises InputError for an unknown name; nothing is imported."""
        if name not in self._paths:
            raise suggest(name, self._paths, self.kind)

    def __getitem__(self, name: str) -> Entry:
        self.require(name)
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

    def first_line(self, name: str) -> str:
        """Of the docstring of an entry's module, which is not imported; of the entry, or its class, where that is at hand."""
        path = self._paths[name]
        if isinstance(path, str):
            return first_line(path.partition(":")[0])
        if isinstance(path, functools.partial):
            return first_sentence(path.func.__doc__ or "")
        return first_sentence((path if isinstance(path, type) else type(path)).__doc__ or "")

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


def first_line(module: str) -> str:
    """What a module's docstring begins with. Read from its source: only the packages around it are imported."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:  # another package that cannot be loaded
        return ""
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return ""
    with Path(spec.origin).open(encoding="utf-8", errors="replace") as file:
        lines = (line.strip() for line in file)
        return first_sentence(next((line for line in lines if line and not line.startswith("#")), "").strip('"'))


def first_sentence(text: str) -> str:
    """Of the first line of a docstring, without its full stop."""
    return text.partition("\n")[0].partition(". ")[0].rstrip(".").replace("``", "")
