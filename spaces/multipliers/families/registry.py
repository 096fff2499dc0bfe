"""Circuits by the name of their family and its parameters: ``drum8u_6`` is DRUM with k = 6."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from spaces.errors import InputError
from spaces.multipliers.families import adders as cells
from spaces.multipliers.families import arrays, logarithmic, segments
from spaces.multipliers.families.parameters import Ranges, bounds
from spaces.multipliers.multiplier import Multiplier


@dataclass(frozen=True)
class Family:
    """Circuits called ``<prefix>_<parameter>_…``; ``build`` makes one from parameters in the order of ``ranges``."""

    prefix: str
    build: Callable[..., Multiplier]
    description: str
    source: str
    ranges: Ranges = field(default_factory=dict)

    @property
    def form(self) -> str:
        """How the names of the family are written: ``drum8u_<k> with 3 ≤ k ≤ 8``."""
        form = "_".join([self.prefix, *(f"<{parameter}>" for parameter in self.ranges)])
        return f"{form} with {bounds(self.ranges)}" if self.ranges else form


def _both(build: Callable[..., Multiplier], prefix: str, description: str, source: str, ranges: Ranges) -> list[Family]:
    """The unsigned and the signed family of a multiplier that has both."""
    return [
        Family(
            prefix + ("8s" if signed else "8u"),
            functools.partial(build, signed=signed),
            f"{description}, {'signed' if signed else 'unsigned'}",
            source,
            ranges,
        )
        for signed in (False, True)
    ]


FAMILIES: dict[str, Family] = {
    family.prefix: family
    for family in [
        *_both(arrays.truncation, "trunc", "without the low bits of the operands", arrays.JIANG, arrays.TRUNCATION),
        Family("bam8u", arrays.broken_array_unsigned, "broken array, unsigned", arrays.MAHDIANI, arrays.BROKEN_ARRAY),
        Family("bam8s", arrays.broken_array, "broken array, signed", arrays.MAHDIANI, arrays.BROKEN_ARRAY),
        Family("perf8u", arrays.perforation, "without k rows from row j", arrays.ZERVAKIS, arrays.PERFORATION),
        Family("kulkarni8u", cells.kulkarni, "built from 2×2-bit blocks with 3·3 = 7", cells.KULKARNI),
        Family("loa8u", cells.lower_part_or, "rows summed by lower-part-OR adders", cells.MAHDIANI, cells.LOA),
        Family("comp42_8u", cells.compressor_tree, "4-2 compressors, Design 2", cells.MOMENI, cells.COMPRESSORS),
        Family("etm8u", segments.etm, "error-tolerant, split above k low bits", segments.KYAW, segments.ETM),
        Family("ssm8u", segments.ssm, "static segments of m bits", segments.NARAYANAMOORTHY, segments.SSM),
        *_both(segments.drum, "drum", "unbiased segments of k bits", segments.HASHEMI, segments.DRUM),
        Family("mitchell8u", logarithmic.mitchell, "sum of piecewise linear logarithms", logarithmic.MITCHELL),
        *_both(logarithmic.roba, "roba", "operands rounded to powers of two", logarithmic.ZENDEGANI, {}),
    ]
}


def from_name(name: str) -> Multiplier | None:
    """The circuit called ``name``, or None if it begins with no family's prefix.

    Raises InputError with the form and the permitted ranges where the parameters are wrong.
    """
    family = next((one for one in FAMILIES.values() if f"{name}_".startswith(f"{one.prefix}_")), None)
    if family is None:
        return None
    values = name.removeprefix(family.prefix).split("_")[1:]
    if len(values) != len(family.ranges) or not all(re.fullmatch("[0-9]{1,3}", value) for value in values):
        raise InputError(f"{name}: circuits of this family are called {family.form}")
    return family.build(*map(int, values))
