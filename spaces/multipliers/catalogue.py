"""Circuits by name."""

import csv
import functools
import re
from collections.abc import Iterable
from importlib import resources

from spaces.errors import InputError, suggest
from spaces.multipliers.families import broken_array, broken_array_table
from spaces.multipliers.multiplier import Multiplier

EVOAPPROX = "EvoApproxLib v1 (Mrazek et al., DATE 2017), MIT licence"
EXACT_SIGNED = "mul8s_1KV8"
# Power of the exact circuit, the yardstick of every energy figure; unsigned: mul8u_1JFF, from the same library.
EXACT_POWER_MW = {True: 0.425, False: 0.391}
_BROKEN_ARRAY = re.compile(r"bam8s_(\d+)_(\d+)_(\d+)")


@functools.cache
def _published_rows() -> dict[str, dict[str, str]]:
    text = resources.files("spaces.multipliers").joinpath("mul8s_figures.csv").read_text(encoding="utf-8")
    return {row["name"]: row for row in csv.DictReader(text.splitlines())}


def names() -> tuple[str, ...]:
    """The built-in circuits, from the exact one to the cheapest, in the order of the published figures."""
    return tuple(_published_rows())


def published_figures(name: str) -> dict[str, float]:
    """The published error and hardware figures of a built-in circuit, by column of ``mul8s_figures.csv``."""
    return {column: float(value) for column, value in _published_rows()[name].items() if column != "name"}


@functools.cache
def get(name: str) -> Multiplier:
    """The circuit called ``name``: a built-in one, or ``bam8s_<hA>_<hB>_<v>`` from the broken-array family.

    Raises InputError for an unknown name and suggests the nearest.
    """
    if family := _BROKEN_ARRAY.fullmatch(name):
        return broken_array(*(int(value) for value in family.groups()))
    if name not in _published_rows():
        raise suggest(name, names(), "multiplier")
    figures = published_figures(name)
    parameters = (int(figures[f"keep_{what}"]) for what in ("a_from_bit", "b_from_bit", "from_column"))
    return Multiplier(
        name=name,
        signed=True,
        table=broken_array_table(*parameters),
        power_mw=figures["pdk45_power_mw"],
        area_um2=figures["pdk45_area_um2"],
        delay_ns=figures["pdk45_delay_ns"],
        technology="FreePDK45",
        source=EVOAPPROX,
    )


def library(circuits: Iterable[str]) -> tuple[Multiplier, ...]:
    """The circuits of a search. Raises InputError for an empty, repeated or mixed list, or one without a power figure."""
    chosen = tuple(get(name) for name in circuits)
    if not chosen:
        raise InputError("the library of multipliers is empty; name at least one circuit")
    for multiplier in chosen:
        if multiplier.power_mw is None:
            raise InputError(f"multiplier {multiplier.name} has no power figure, so its energy cannot be compared")
        if multiplier.signed != chosen[0].signed:
            raise InputError("signed and unsigned multipliers cannot be searched together")
        twins = [other.name for other in chosen if other == multiplier]
        if len(twins) > 1:
            raise InputError(f"{' and '.join(twins)} are the same circuit (equal truth tables); name it once")
    return chosen


def power_ratio(multiplier: Multiplier) -> float:
    """P(circuit) / P(exact circuit of the same signedness). Raises InputError where the power is unknown."""
    if multiplier.power_mw is None:
        raise InputError(f"multiplier {multiplier.name} has no power figure, so its energy cannot be compared")
    return multiplier.power_mw / EXACT_POWER_MW[multiplier.signed]
