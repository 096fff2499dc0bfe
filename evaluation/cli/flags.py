"""What flags of runs mean beyond their values: --resume and its company, and a protocol that was changed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import tyro

from evaluation.settings.config import PLACE, RunOptions
from evaluation.settings.protocols import Protocol, named_protocol
from spaces.cli.flags import given_flags
from spaces.errors import InputError


def flag_groups(
    options: RunOptions, protocol: Protocol, others: Mapping[str, tuple[type, Any]] = MappingProxyType({})
) -> type:
    """A dataclass from which tyro makes all flags: ``common``, without a prefix, with the ``options`` as defaults; then
    ``protocol`` and the ``others``, name → (dataclass, default), with their names before each flag."""
    unprefixed: Any = tyro.conf.OmitArgPrefixes
    groups: list[tuple[str, Any, Any]] = [
        ("common", unprefixed[type(options)], dataclasses.field(default=options)),
        ("protocol", Annotated[type(protocol), tyro.conf.arg(name="protocol")], dataclasses.field(default=protocol)),
    ]
    groups += [(name, cls, dataclasses.field(default=default)) for name, (cls, default) in others.items()]
    return dataclasses.make_dataclass("Everything", groups, frozen=True)


def require_folders(arguments: Sequence[str], folders: Sequence[Path]) -> None:
    """Raises InputError for --resume without a folder, as from an empty variable: it must not start something new."""
    if "--resume" in given_flags(arguments) and not folders:
        raise InputError("--resume needs at least one run folder")


def require_alone(arguments: Sequence[str], *allowed: str) -> None:
    """Raises InputError where another flag than those ``allowed`` comes with --resume."""
    others = [flag for flag in given_flags(arguments) if flag not in ("--resume", *allowed)]
    if others:
        but = f" but {', '.join(allowed)}" if allowed else ""
        raise InputError(f"--resume goes on with the run's own settings; no other flag{but} may be given ({others[0]})")


def place_of(arguments: Sequence[str], options: RunOptions) -> dict[str, Any]:
    """The settings among the flags that say where a run computes: those that --resume may change."""
    given = given_flags(arguments)
    return {name: getattr(options, name) for name in ("device", *PLACE) if f"--{name.replace('_', '-')}" in given}


PLACE_FLAGS = tuple(f"--{name.replace('_', '-')}" for name in ("device", *PLACE))


def settled_protocol(parsed: Protocol, named: str) -> Protocol:
    """The protocol as the flags changed it, under a name that says so; the precision of gradients, which may depend on the
    device, is told apart by the hash alone."""
    protocol = named_protocol(named)
    if dataclasses.replace(parsed, gradient_precision=protocol.gradient_precision) == protocol:
        return parsed
    return dataclasses.replace(parsed, name=f"{protocol.name}-custom")
