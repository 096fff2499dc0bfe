"""The page on the methods: every constant stands there as it is in the code, and beside its source."""

import dataclasses
import re

import pytest

from methods import METHODS
from tests.guides import ROOT

PAGE = ROOT / "docs" / "methods.md"


def sections() -> dict[str, list[list[str]]]:
    """The rows (parameter, paper, ours, why) of every method's table."""
    found: dict[str, list[list[str]]] = {}
    constants = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(\w+)`", line):
            rows = found.setdefault(heading[1], [])
        constants = line.startswith("| parameter |") or (constants and line.startswith("|"))
        if constants and line.startswith("| `"):
            rows.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return found


def parents() -> dict[type, str]:
    return {METHODS[name].Config: name for name in METHODS.built_in}


def is_published(paper: str, value: str) -> bool:
    """Whether a value is the paper's, one of several there, or within its range; true where there is none in it."""
    if " to " in paper:
        low, high = map(float, paper.split(" to "))
        return low <= float(value) <= high
    return paper in ("–", "R", "all") or value in paper.split(" or ")


def test_every_method_has_a_table():
    assert sections().keys() == METHODS.built_in.keys()


@pytest.mark.parametrize("name", METHODS.built_in)
def test_constants_are_as_in_the_code_and_differences_are_explained(name):
    settings, rows = METHODS[name].Config(), sections()[name]
    for parameter, paper, ours, why in rows:
        assert str(getattr(settings, parameter)) == ours, parameter
        assert bool(why) != (paper.removesuffix("†") == ours), f"{parameter}: {paper} and {ours}, because '{why}'"
        published = str(getattr(METHODS[name].presets["published"], parameter))
        assert is_published(paper.removesuffix("†"), published), f"{parameter}: {published}, not {paper}"
    known = {row[0] for row in rows}
    assert len(known) == len(rows)
    # What a method takes over from another one stands there.
    other = next((cls for cls in type(settings).__mro__[1:] if cls in parents()), None)
    own = {
        field.name
        for field in dataclasses.fields(settings)
        if other is None or getattr(settings, field.name) != getattr(other(), field.name)
    }
    assert own <= known, f"not on the page: {sorted(own - known)}"
    if other is not None:
        published, others = METHODS[name].presets["published"], METHODS[parents()[other]].presets["published"]
        differ = {f.name for f in dataclasses.fields(others) if getattr(published, f.name) != getattr(others, f.name)}
        assert differ <= known, f"published otherwise, but not on the page: {sorted(differ - known)}"
