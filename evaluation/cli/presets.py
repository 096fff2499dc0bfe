"""What --preset means: settings of methods by a name, and what the literature's say about the rest of a run."""

from collections.abc import Collection, Mapping
from typing import Any

from spaces.errors import InputError, suggest
from spaces.registry import SPACES

PUBLISHED = "published"
SIMILAR = {"gpu": "fast"}  # a protocol → another one, whose settings suit it where a method has none of its own


def method_settings(methods: Mapping[str, Any], preset: str, protocol: str) -> dict[str, Any]:
    """Method → Config of that name, or, where none is asked for, the one that suits the protocol, else the defaults.

    Raises InputError for a name that a method does not have.
    """
    if not preset:
        similar = SIMILAR.get(protocol, protocol)
        return {
            name: cls.presets.get(protocol) or cls.presets.get(similar) or cls.Config() for name, cls in methods.items()
        }
    for name, cls in methods.items():
        if preset not in cls.presets:
            raise suggest(preset, cls.presets, f"preset of {name}")
    return {name: cls.presets[preset] for name, cls in methods.items()}


def run_options(methods: Mapping[str, Any], preset: str, space: str, given: Collection[str]) -> dict[str, Any]:
    """Options of the run that go with published settings, for those that are not ``given`` as flags.

    Methods whose literature has one multiplier and says what that governs are published with it. Where all that are
    compared agree, and the space knows that scope, it is the run's. Raises InputError where the multiplier is not named.
    """
    scopes = {name: getattr(cls, "published_scope", "") for name, cls in methods.items()}
    if preset != PUBLISHED or not all(scopes.values()):
        return {}
    if "--multipliers" not in given:
        raise InputError(
            f"as published, {' and '.join(methods)} searched with one multiplier: name it with --multipliers (several are "
            "searched, too, and then chosen among)"
        )
    scope = next(iter(scopes.values()), "")
    agreed = len(set(scopes.values())) == 1 and scope in SPACES[space].scopes
    return {"scope": scope} if agreed else {}
