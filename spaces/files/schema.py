"""The types of JSON values, checked: what a file says becomes a dataclass, or a dict of a known shape, or an error."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin

from spaces.errors import InputError

LONGEST = 60  # characters of a value in a message


def typed(value: Any, kind: Any, at: str = "") -> Any:
    """``value`` as the type ``kind``: plain types, Literal, unions, lists, tuples, dicts, TypedDicts and dataclasses.

    Lists become tuples, and objects dataclasses, where ``kind`` says so; what a TypedDict describes stays as it is. An
    integer is a float, too, but a bool is neither. Objects may hold more than a TypedDict names, but not than a dataclass.
    Raises InputError that says where (``at``) something is missing or of another type.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, get_args(kind), at)
    if origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise _wrong(value, " or ".join(map(repr, get_args(kind))), at)
        return value
    if origin in (list, tuple):
        return _sequence(value, origin, get_args(kind), at)
    if origin is dict:
        _require(value, dict, at)
        return {name: typed(part, get_args(kind)[1], _inside(at, name)) for name, part in value.items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass(value, kind, at)
    if typing.is_typeddict(kind):
        return _typed_dict(value, kind, at)
    _require(value, kind, at)
    return value


def _require(value: Any, kind: type, at: str) -> None:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(value, _NAMES.get(kind, kind.__name__), at)


def _one_of(value: Any, kinds: tuple[Any, ...], at: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [other for other in kinds if other is not type(None)]
    for other in others[:-1]:
        try:
            return typed(value, other, at)
        except InputError:
            continue
    return typed(value, others[-1], at)


def _sequence(value: Any, origin: type, kinds: tuple[Any, ...], at: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, "a list", at)
    if origin is tuple and Ellipsis not in kinds:
        if len(value) != len(kinds):
            raise InputError(f"{at or 'it'} has {len(value)} entries, not {len(kinds)}")
        return tuple(typed(part, kind, _inside(at, place)) for place, (part, kind) in enumerate(zip(value, kinds)))
    return origin(typed(part, kinds[0], _inside(at, place)) for place, part in enumerate(value))


def _dataclass(value: Any, kind: Any, at: str) -> Any:
    _require(value, dict, at)
    known, hints = {field.name: field for field in dataclasses.fields(kind) if field.init}, _hints(kind)
    if unknown := value.keys() - known.keys():
        raise InputError(f"{_inside(at, min(unknown))[:LONGEST]} is unknown")
    for name, field in known.items():
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{_inside(at, name)} is missing")
    return kind(**{name: typed(part, hints[name], _inside(at, name)) for name, part in value.items()})


def _typed_dict(value: Any, kind: Any, at: str) -> dict[str, Any]:
    _require(value, dict, at)
    for name, hint in _hints(kind).items():
        if name in value:
            typed(value[name], hint, _inside(at, name))
        elif name in kind.__required_keys__:
            raise InputError(f"{_inside(at, name)} is missing")
    return value


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """The types of the fields, without what else their annotations say."""
    hints = typing.get_type_hints(kind)
    return {name: get_args(h)[0] if get_origin(h) in (NotRequired, Required) else h for name, h in hints.items()}


def _inside(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)


def _wrong(value: Any, wanted: str, at: str) -> InputError:
    return InputError(f"{at or 'it'} is {repr(value)[:LONGEST]}, not {wanted}")


_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
