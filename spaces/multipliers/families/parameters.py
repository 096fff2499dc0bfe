"""What the parameters of a family may be, checked in one place."""

from spaces.errors import InputError

Ranges = dict[str, tuple[int, int]]  # the smallest and the largest value of each parameter, both included


def bounds(ranges: Ranges) -> str:
    """The permitted values in words: ``3 ≤ k ≤ 8``."""
    return ", ".join(f"{low} ≤ {name} ≤ {high}" for name, (low, high) in ranges.items())


def checked_name(prefix: str, family: str, ranges: Ranges, *values: int) -> str:
    """The name ``<prefix>_<value>_…`` of a circuit. Raises InputError, which names the ranges, for a value outside."""
    name = "_".join([prefix, *map(str, values)])
    if not all(low <= value <= high for value, (low, high) in zip(values, ranges.values(), strict=True)):
        raise InputError(f"{name}: {family} needs {bounds(ranges)}")
    return name
