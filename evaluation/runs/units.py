"""How amounts of a cost are written: its word, and the unit that suits their size."""

from spaces.cli.numbers import three

PREFIXES = ("p", "n", "µ", "m", "", "k", "M", "G", "T")  # each a thousand times the one before


def suited(unit: str, largest: float) -> tuple[str, float]:
    """The unit that suits amounts of up to ``largest`` in ``unit``, and how many of ``unit`` it has.

    7,000 pJ are best told in nJ, each of 1,000 pJ; 7,000,000 MAC in MMAC.
    """
    small = len(unit) == 2 and unit[0] in PREFIXES and unit[1] in "Js"
    start, base = (PREFIXES.index(unit[0]), unit[1]) if small else (PREFIXES.index(""), unit)
    steps = 0
    while start + steps + 1 < len(PREFIXES) and largest >= 1000.0 ** (steps + 1):
        steps += 1
    return PREFIXES[start + steps] + base, 1000.0**steps


def of_tables(unit: str) -> tuple[str, float]:
    """The unit in which a table writes all amounts of ``unit``, and how many of ``unit`` it has: nJ for energies in pJ."""
    return ("nJ", 1000.0) if unit == "pJ" else (unit, 1.0)


def noun(unit: str) -> str:
    """What amounts in this unit are called."""
    return "energy" if unit.endswith("J") else "cost"


def with_prefix(value: float, unit: str = "") -> str:
    """Three digits, with the prefix that suits them: 47,100 pJ are 47.1 nJ, and 210,304 are 210 k."""
    prefixed, size = suited(unit, abs(value))
    return f"{three(value / size)} {prefixed}".rstrip()
