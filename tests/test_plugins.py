"""Registries: names without imports, entry points, and what an unknown or a bad name ends with."""

import collections
import functools
from importlib.metadata import EntryPoint

import pytest

from spaces import plugins
from spaces.errors import InputError
from spaces.plugins import Registry


@pytest.fixture
def registry(monkeypatch) -> Registry:
    installed = [
        EntryPoint("ordered", "collections:OrderedDict", "things"),
        EntryPoint("counter", "somebody.else:Counter", "things"),
        EntryPoint("gone", "no_such_package:Thing", "things"),
        EntryPoint("renamed", "collections:NoSuchThing", "things"),
        EntryPoint("two-words", "collections:deque", "things"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: installed if group == "things" else [])
    return Registry("thing", "things", {"missing": "no_such_module:Thing", "counter": "collections:Counter"})


def test_names_are_known_in_order_without_importing_anything(registry):
    assert list(registry) == ["missing", "counter", "gone", "ordered", "renamed", "two-words"]
    assert len(registry) == 6
    assert "missing" in registry and "none" not in registry
    with pytest.raises(ModuleNotFoundError):
        registry["missing"]


def test_entry_points_add_to_our_entries_and_do_not_replace_them(registry):
    assert registry["ordered"] is collections.OrderedDict
    assert registry["counter"] is collections.Counter


def test_unknown_and_bad_names_are_refused(registry):
    with pytest.raises(InputError, match="unknown thing 'conter'; did you mean counter"):
        registry["conter"]
    with pytest.raises(InputError, match="thing 'two-words' needs another name in its entry point"):
        registry["two-words"]


@pytest.mark.parametrize("name", ["gone", "renamed"])
def test_what_another_package_promised_and_does_not_have_is_told(registry, name):
    with pytest.raises(InputError, match=f"the thing '{name}' of another package cannot be loaded \\(.*no_such|NoSuch"):
        registry[name]


def test_an_entry_for_a_while(registry):
    with registry.temporarily("mine", "collections:ChainMap"), registry.temporarily("counter", collections.UserDict):
        assert registry["mine"] is collections.ChainMap
        assert registry["counter"] is collections.UserDict
    assert "mine" not in registry
    assert registry["counter"] is collections.Counter


def test_what_a_list_says_of_an_entry(tmp_path, monkeypatch):
    """A function's docstring where some of its arguments are given; a module's, whatever comments come before it."""

    def load(number: int) -> int:
        """One of several parts. And more."""
        return number

    (tmp_path / "commented_entry.py").write_text('# commented_entry.py\n\n"""An entry of a file. And more."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(
        "part", "approxnas_bench.parts", {"one": functools.partial(load, 1), "file": "commented_entry:ENTRY"}
    )
    assert [registry.first_line(name) for name in ("one", "file")] == ["One of several parts", "An entry of a file"]
