"""Genotypes of the literature, found on CIFAR-10 over the operations of DARTS, and the form in which they are published.

A genotype lists, for the normal and the reduction cell, two (operation, source) pairs for every node; all nodes are
concatenated. It knows no multipliers: one circuit is put everywhere.
"""

import re
from dataclasses import dataclass
from typing import Any

from spaces.cells import genotype_text
from spaces.cells.architecture import Cell, CellArchitecture, Edge
from spaces.errors import InputError
from spaces.multipliers.catalogue import EXACT_SIGNED

_RANGE = re.compile(r"\s*range\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)\s*", re.ASCII)
Genes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Genotype:
    """The (operation, source) pairs of the two cells, node by node."""

    normal: Genes
    reduce: Genes
    source: str

    def architecture(self, multiplier: str = EXACT_SIGNED, scope: str = "all") -> CellArchitecture:
        """The architecture with ``multiplier`` wherever ``scope`` lets it. Raises InputError for cells that cannot be."""
        cells = []
        for genes, reduction in ((self.normal, False), (self.reduce, True)):
            edges = [Edge(source, operation, multiplier) for operation, source in genes]
            cells.append(Cell(tuple(zip(edges[::2], edges[1::2])), reduction, multiplier))
        return CellArchitecture(tuple(cells), multiplier, scope)


PUBLISHED = {
    # At 36 channels and 20 cells, for which the paper gives 3.3 M parameters, this one has 3.17 M and DARTS_V2 3.35 M.
    "DARTS_V1": Genotype(
        normal=(
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
            ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2),
        ),
        reduce=(
            ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0),
        ),
        source="Liu, Simonyan, Yang: DARTS, ICLR 2019 (arXiv 1806.09055); genotypes.py of its code, first order",
    ),
    "DARTS_V2": Genotype(
        normal=(
            ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
        ),
        reduce=(
            ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
        ),
        source="Liu, Simonyan, Yang: DARTS, ICLR 2019 (arXiv 1806.09055); genotypes.py of its code, second order",
    ),
    # 3.6 M parameters.
    "PC_DARTS": Genotype(
        normal=(
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
            ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1),
        ),
        reduce=(
            ("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2),
            ("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2),
        ),
        source="Xu et al.: PC-DARTS, ICLR 2020 (arXiv 1907.05737); PC_DARTS_cifar in genotypes.py of its code",
    ),
    # 3.4 M parameters.
    "P_DARTS": Genotype(
        normal=(
            ("skip_connect", 0), ("dil_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("dil_conv_5x5", 4),
        ),
        reduce=(
            ("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 2),
            ("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_3x3", 1), ("dil_conv_5x5", 3),
        ),
        source="Chen et al.: Progressive DARTS, ICCV 2019 (arXiv 1904.12760); PDARTS in genotypes.py of its code",
    ),
}  # fmt: skip


ARCHITECTURES = {name: genotype.architecture() for name, genotype in PUBLISHED.items()}


def is_genotype(data: object) -> bool:
    """Whether decoded JSON, or a text, means to be a genotype."""
    if isinstance(data, str):
        return genotype_text.is_genotype(data)
    return isinstance(data, dict) and {"normal", "reduce"} <= data.keys()


def from_literature(data: Any) -> Genotype:
    """A genotype in the form of DARTS: decoded from JSON, or as its code prints it. Raises InputError for anything else.

    ``{"normal": [["sep_conv_3x3", 0], …], "normal_concat": [2, 3, 4, 5], "reduce": […], "reduce_concat": […]}``. The pairs
    of a node may be nested in a list of their own, and what is concatenated may be "range(2, 6)".
    """
    if isinstance(data, str):
        data = genotype_text.parse(data)
    genes = {}
    for cell in ("normal", "reduce"):
        pairs = _flat(data[cell])
        if not isinstance(pairs, list) or not pairs or len(pairs) % 2:
            raise InputError(f"the genotype's '{cell}' must list two [operation, source] pairs for every node")
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int):
                raise InputError(f"the genotype's '{cell}' holds {pair!r}; write pairs as [\"sep_conv_3x3\", 0]")
        nodes = list(range(2, 2 + len(pairs) // 2))
        concatenated = _numbers(data.get(f"{cell}_concat", nodes))
        if not isinstance(concatenated, list) or sorted(map(str, concatenated)) != sorted(map(str, nodes)):
            raise InputError(
                f"the genotype's '{cell}_concat' is {concatenated!r}; only cells whose nodes ({nodes}) are all "
                "concatenated can be built"
            )
        genes[cell] = tuple((operation, source) for operation, source in pairs)
    unknown = data.keys() - {"normal", "normal_concat", "reduce", "reduce_concat"}
    if unknown:
        raise InputError(f"a genotype has no '{min(unknown)}'")
    return Genotype(genes["normal"], genes["reduce"], "a file")


def _flat(pairs: Any) -> Any:
    """Without the lists around the pairs of each node, where there are any."""
    if isinstance(pairs, list) and all(isinstance(node, list) and node and isinstance(node[0], list) for node in pairs):
        if any(len(node) != 2 for node in pairs):
            raise InputError("a node of a genotype has two [operation, source] pairs")
        return [pair for node in pairs for pair in node]
    return pairs


def _numbers(concatenated: Any) -> Any:
    """A list, of "range(2, 6)" too."""
    found = _RANGE.fullmatch(concatenated) if isinstance(concatenated, str) else None
    return list(range(int(found[1]), int(found[2]))) if found else concatenated
