"""What ``--evaluator table`` means for the other flags: those that are not given take the values of the table."""

from collections.abc import Sequence

from spaces.cli.flags import given_flags

TABLE = "fashion14"


def with_table(arguments: Sequence[str]) -> list[str]:
    """The flags, and before them those that a search on the table needs, where candidates come from one."""
    if not any(a == "--evaluator=table" or pair == ("--evaluator", "table") for a, pair in _pairs(arguments)):
        return list(arguments)
    from evaluation.benchmark.table import BenchTable  # others need not wait for it

    plan, given = BenchTable.load(TABLE).header.plan, given_flags(arguments)
    usual = {
        "--space": [plan.space],
        "--dataset": [plan.dataset],
        "--protocol": [plan.protocol],
        "--multipliers": list(plan.multipliers),
        **{f"--{plan.space}.{name.replace('_', '-')}": [str(value)] for name, value in plan.space_config.items()},
    }
    added = [part for flag, values in usual.items() if flag not in given for part in (flag, *values)]
    return [*added, *arguments]


def _pairs(arguments: Sequence[str]) -> list[tuple[str, tuple[str, str]]]:
    return list(zip(arguments, zip(arguments, [*arguments[1:], ""])))
