"""Where the savings that ApproxDARTS reports come from, computed without any training. This imports torch.

DARTS_V2 at 36 channels and 20 cells, without its auxiliary head, under the accounting ``approxdarts``.
"""

import functools
from dataclasses import dataclass, replace

from spaces.costs.approxdarts import APPROXDARTS as MODEL
from spaces.costs.trace import LayerCost, total_macs, total_params
from spaces.multipliers import catalogue
from spaces.registry import SPACES, find_published
from spaces.shape import NetworkShape

CIFAR = NetworkShape(channels=36, cells=20, classes=10, input_shape=(3, 32, 32))
EXPLAINS = 0.515  # of the exact circuit's power: near to what either reported saving asks for


@dataclass(frozen=True)
class Derivation:
    """Counts for one inference, and energies in picojoules."""

    params: int
    macs: int
    separable_macs: int  # in the depthwise and pointwise convolutions of sep_conv and dil_conv
    fp32_pj: float
    int8_pj: float

    @property
    def separable_share(self) -> float:
        return self.separable_macs / self.macs

    @property
    def separable_pj(self) -> float:
        """What the separable convolutions take of the energy in exact int8: the part on which circuits act."""
        return self.separable_macs * MODEL.int8_mult

    def energy(self, ratio: float) -> float:
        """In pJ, with a circuit of ``ratio`` times the exact one's power in the separable convolutions."""
        return self.int8_pj - (1 - ratio) * self.separable_pj

    def savings(self, ratio: float) -> tuple[float, float]:
        """What that circuit saves, as shares of the energy in fp32 and of that in exact int8."""
        return 1 - self.energy(ratio) / self.fp32_pj, 1 - self.energy(ratio) / self.int8_pj

    def ratio_for(self, saving: float, of_pj: float) -> float:
        """The power ratio at which ``saving``, a share of the energy ``of_pj``, is saved: the inverse of ``savings``."""
        return 1 - (self.int8_pj - of_pj * (1 - saving)) / self.separable_pj


def derive() -> Derivation:
    """Traced from the network itself, layer by layer."""
    rows = _rows("DARTS_V2")
    separable = [row for row in rows if row.kind == "separable"]
    fp32, int8 = (MODEL.network(rows, arithmetic).total for arithmetic in ("fp32", "int8"))
    return Derivation(total_params(rows), total_macs(rows), total_macs(separable), fp32, int8)


def multipliers() -> list[tuple[str, float, float, float]]:
    """Of each built-in circuit: its name, its power ÷ that of the exact one, and the savings vs fp32 and vs exact int8."""
    rows, found, exact = _rows("DARTS_V2"), [], derive()
    for name in catalogue.names():
        multiplier = catalogue.get(name)
        governed = [replace(row, multiplier=row.multiplier and multiplier) for row in rows]
        energy = MODEL.network(governed, "approximate").total
        savings = (1 - energy / exact.fp32_pj, 1 - energy / exact.int8_pj)
        found.append((name, catalogue.power_ratio(multiplier), *savings))
    return found


def parameters() -> dict[str, int]:
    """Of every published genotype at that size, without the auxiliary head."""
    return {name: total_params(_rows(name)) for cls in SPACES.values() for name in cls.published}


@functools.cache
def _rows(genotype: str) -> tuple[LayerCost, ...]:
    exact = catalogue.exact(signed=True)
    _, published = find_published(genotype)
    architecture, cls = published.with_multiplier(exact.name, "separable"), SPACES[published.space]
    return tuple(cls([exact], cls.config_of(architecture), scope="separable").costs(architecture, CIFAR))
