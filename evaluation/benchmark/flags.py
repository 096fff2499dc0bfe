"""What ``--evaluator table`` means for the other flags: those that are not given take the values of the table."""

from collections.abc import Sequence
from typing import Any

from evaluation.settings.config import Options
from spaces.cli.flags import given_flags
from spaces.errors import InputError, suggest


def with_table(arguments: Sequence[str]) -> list[str]:
    """The flags, and before them those that a search on the table needs, where candidates come from one."""
    if not any(a == "--evaluator=table" or pair == ("--evaluator", "table") for a, pair in _pairs(arguments)):
        return list(arguments)
    from evaluation.benchmark.header import embedded  # others need not wait for it
    from evaluation.benchmark.table import BenchTable

    name = _value(arguments, "--table") or Options.table
    if name not in embedded():
        raise suggest(name, embedded(), "table inside the package")
    plan, given = BenchTable.load(name).header.plan, given_flags(arguments)
    space = _value(arguments, "--space")
    if space and space != plan.space:
        raise InputError(f"the table {name} has networks of the space {plan.space}: leave out --space {space}")
    usual = {
        "--space": [plan.space],
        "--dataset": [plan.dataset],
        "--protocol": [plan.protocol],
        "--multipliers": list(plan.multipliers),
        **{f"--{plan.space}.{name.replace('_', '-')}": [value] for name, value in plan.space_config.items()},
    }
    added = [part for flag, values in usual.items() if flag not in given for part in _written(flag, values)]
    return [*added, *arguments]


def _written(flag: str, values: Sequence[Any]) -> list[str]:
    """As parts of a command line."""
    if values[0] is False:
        group, _, name = flag.rpartition(".")
        return [f"{group}.no-{name}"]
    return [flag] if values[0] is True else [flag, *map(str, values)]


def _value(arguments: Sequence[str], flag: str) -> str:
    """Of a flag, the last time that it is given; "" where it is not."""
    found = ""
    for argument, (_, after) in _pairs(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            found = value if equals else after
    return found


def _pairs(arguments: Sequence[str]) -> list[tuple[str, tuple[str, str]]]:
    return list(zip(arguments, zip(arguments, [*arguments[1:], ""])))
