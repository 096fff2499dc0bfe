"""Settings of a run as TOML: a file that stands for flags, and the file that stands for a command line.

A key is a flag without its dashes, in either spelling; settings of a protocol, a method or a space are tables:

    method = ["random"]
    budget = "60s"
    protocol = {name = "quick", selection_epochs = 2}
    random.samples = 50

Nothing here imports torch.
"""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spaces.cli.flags import flags_of, given_flags
from spaces.errors import InputError, suggest
from spaces.files.reading import parsing, read_bytes

CONFIG_FLAG, PRINT_FLAG = "--config", "--print-config"
LARGEST = 1 << 20  # bytes of a file of settings
NO_PART = {"resume", "config", "print_config"}  # options that are no settings


def expanded(arguments: Sequence[str], known: Callable[[], set[str]]) -> list[str]:
    """The arguments, with what the file of --config says in its place; flags that come later take precedence.

    ``known`` gives all flags that there can be. Raises InputError for a file that is none, or that has an unknown key.
    """
    if CONFIG_FLAG not in given_flags(arguments):
        return list(arguments)
    result: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name != CONFIG_FLAG:
            result.append(argument)
            continue
        path = Path(value if equals else next(left, ""))
        if not path.name:
            raise InputError(f"{CONFIG_FLAG} needs a TOML file")
        result += as_flags(read_toml(path), known(), str(path))
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises InputError where it is none."""
    content = read_bytes(path, LARGEST)
    with parsing(path, "is no TOML"):
        return tomllib.loads(content.decode("utf-8"))


def as_flags(settings: Mapping[str, Any], known: set[str], where: str) -> list[str]:
    """The settings of a file as flags. Raises InputError for a key that is no flag, with the nearest one that is."""
    result: list[str] = []
    keys = sorted(flag[2:].replace("-", "_") for flag in known)
    for key, value in _leaves(settings):
        flag = f"--{key.replace('_', '-')}"
        if key == "protocol.name":
            flag = "--protocol"
        elif flag not in known:
            raise InputError(f"{where}: {suggest(key.replace('-', '_'), keys, 'key')}")
        if isinstance(value, bool):
            prefix, _, name = flag[2:].rpartition(".")
            result.append(flag if value else f"--{prefix}{'.' if prefix else ''}no-{name}")
        elif isinstance(value, list):
            result += [flag, *map(_text, value)]
        else:
            result += [flag, _text(value)]
    return result


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise InputError(f"{json.dumps(value)[:60]} is no value of a setting")
    return str(value)


def as_toml(options: Any, protocol: Any, name: str, groups: Mapping[str, Any], left_out: Sequence[str] = ()) -> str:
    """All settings as a file for --config: options, the protocol that was made of the one called ``name``, and tables."""
    none = {*NO_PART, "protocol", *left_out}
    own = flags_of(type(protocol), "protocol.")
    tabled = {key: f"--protocol.{key.replace('_', '-')}" in own for key, _ in _settings(protocol) if key != "name"}
    lines = [f"{key} = {_value(value)}" for key, value in _settings(options) if key not in none]
    lines += [f"{key} = {_value(getattr(protocol, key))}" for key in tabled if not tabled[key]]
    lines += ["", "[protocol]", f"name = {_value(name)}"]
    lines += [f"{key} = {_value(getattr(protocol, key))}" for key in tabled if tabled[key]]
    for group, settings in groups.items():
        lines += ["", f"[{group}]", *(f"{key} = {_value(value)}" for key, value in _settings(settings))]
    return "\n".join(lines) + "\n"


def _settings(settings: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None and value != () and value != []:  # an empty list is no value of a flag
            yield field.name, value


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else json.dumps(str(value), ensure_ascii=False)
