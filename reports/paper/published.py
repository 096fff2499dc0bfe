"""The figures that others reported, and the commands that would measure them: the content of ``published.toml``."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Claim:
    """A claim of ApproxDARTS. ``measure`` says which figure of a record it is, ``rerun`` what would measure it."""

    what: str
    reported: str
    measure: str
    rerun: str


@dataclass(frozen=True)
class Member:
    """A row of the DARTS family's table: reported test error in %, millions of parameters, GPU-days of the search.

    ``cell`` and ``search`` name what would measure the published ``genotype`` and a search anew; ``searched`` is the method of
    this suite whose runs say something of it at reduced scale. Empty where nothing does.
    """

    method: str
    error: str
    params: str
    gpu_days: str
    source: str
    genotype: str = ""
    cell: str = ""
    search: str = ""
    searched: str = ""

    @property
    def reruns(self) -> list[str]:
        """The commands that there are."""
        return [name for name in (self.cell, self.search) if name]


@dataclass(frozen=True)
class Rerun:
    """A command that would measure something anew, and what to know of it."""

    command: str
    remark: str = ""


@dataclass(frozen=True)
class Published:
    """All of it; ``missing`` says of a method why nothing here would measure its search."""

    sources: Mapping[str, str]
    claims: tuple[Claim, ...]
    family: tuple[Member, ...]
    reruns: Mapping[str, Rerun]
    missing: Mapping[str, str]


@functools.cache
def published() -> Published:
    text = resources.files("reports.paper").joinpath("published.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return Published(
        sources=data["sources"],
        claims=tuple(Claim(**claim) for claim in data["claims"]),
        family=tuple(Member(**member) for member in data["family"]),
        reruns={name: Rerun(**rerun) for name, rerun in data["reruns"].items()},
        missing=data["missing"],
    )
