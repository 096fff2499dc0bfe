"""Circuits by name."""

import csv
import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from spaces.errors import InputError, suggest
from spaces.multipliers.families import broken_array_table, from_name
from spaces.multipliers.files.tables import SUFFIXES, read_multipliers
from spaces.multipliers.multiplier import EXACT_POWER_MW, Multiplier, exact_products

EVOAPPROX = "EvoApproxLib v1 (Mrazek et al., DATE 2017), MIT licence"
EXACT_SIGNED = "mul8s_1KV8"


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
    """The circuit called ``name``: a built-in one, or one of a family, as ``bam8s_<hA>_<hB>_<v>``.

    Raises InputError for an unknown name and suggests the nearest.
    """
    if (multiplier := from_name(name)) is not None:
        return multiplier
    if name not in _published_rows():
        raise suggest(name, names(), "multiplier")
    figures = published_figures(name)
    a_from_bit, b_from_bit, column = (
        int(figures[f"keep_{what}"]) for what in ("a_from_bit", "b_from_bit", "from_column")
    )
    return Multiplier(
        name=name,
        signed=True,
        table=broken_array_table(a_from_bit, b_from_bit, column),
        power_mw=figures["pdk45_power_mw"],
        area_um2=figures["pdk45_area_um2"],
        delay_ns=figures["pdk45_delay_ns"],
        technology="FreePDK45",
        source=EVOAPPROX,
    )


@functools.cache
def exact(signed: bool) -> Multiplier:
    """The exact multiplier of EvoApproxLib v1, against whose power every circuit's is measured."""
    if signed:
        return get(EXACT_SIGNED)
    return Multiplier(
        name="mul8u_1JFF",
        signed=False,
        table=exact_products(signed=False),
        power_mw=EXACT_POWER_MW[False],
        area_um2=709.6,
        delay_ns=1.43,
        technology="FreePDK45",
        source=EVOAPPROX,
    )


def find(name: str) -> Multiplier | None:
    """The circuit called ``name``, or None where ``get`` knows none."""
    try:
        return get(name)
    except InputError:
        return None


def is_path(item: str) -> bool:
    """Whether an item of a library is a table file or a folder of tables rather than the name of a circuit.

    It is a path if it contains a path separator or ends in the suffix of a table, and also if it is an existing folder,
    unless a circuit has that name.
    """
    separated = any(separator in item for separator in (os.sep, os.altsep) if separator)
    return separated or item.lower().endswith(SUFFIXES) or (Path(item).is_dir() and find(item) is None)


def library(multipliers: Iterable[str]) -> tuple[Multiplier, ...]:
    """The circuits of a search: by name, from a table file, or all from a folder of tables (see ``is_path``).

    Raises InputError for an empty, repeated or mixed list, for two circuits of one name, and for one without a power
    figure.
    """
    chosen = tuple(
        multiplier
        for item in multipliers
        for multiplier in (read_multipliers(Path(item), known=find) if is_path(item) else [get(item)])
    )
    return check_library(chosen)


def check_library(chosen: Sequence[Multiplier]) -> tuple[Multiplier, ...]:
    """The circuits, if they can be searched together; raises InputError as ``library`` does."""
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
    name, uses = Counter(multiplier.name for multiplier in chosen).most_common(1)[0]
    if uses > 1:
        raise InputError(f"{uses} different circuits are called {name}; rename all but one")
    return tuple(chosen)


def power_ratio(multiplier: Multiplier) -> float:
    """P(circuit) / P(exact circuit of the same signedness). Raises InputError where the power is unknown."""
    if multiplier.power_mw is None:
        raise InputError(f"multiplier {multiplier.name} has no power figure, so its energy cannot be compared")
    return multiplier.power_mw / EXACT_POWER_MW[multiplier.signed]
