"""A space in one file: a chain of convolutions, each of which has a kernel size and a multiplier."""

import hashlib
import json
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import nn

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.arithmetic.factory import FixedLayers
from spaces.costs.trace import LayerCost, trace
from spaces.errors import InputError, suggest
from spaces.space import Edge, Space

KERNELS = ("conv_1x1", "conv_3x3")


@dataclass(frozen=True)
class ChainConfig:
    """Settings of the chain space."""

    length: int = 3
    """Convolutions one after the other."""

    def __post_init__(self) -> None:
        if not 1 <= self.length <= 20:
            raise InputError(f"a chain has 1 to 20 convolutions, not {self.length}")


@dataclass(frozen=True)
class Chain:
    """(operation, multiplier) of every convolution; the classifier computes on the last one's multiplier."""

    links: tuple[tuple[str, str], ...]

    space = "chain"
    scope = "all"

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()

    @property
    def multipliers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(multiplier for _, multiplier in self.links))

    def with_multiplier(self, name: str, scope: str) -> "Chain":
        return Chain(tuple((operation, name) for operation, _ in self.links)).with_scope(scope)

    def with_scope(self, scope: str) -> "Chain":
        if scope != "all":
            raise InputError(f"the multipliers of a chain govern all, not {scope}")
        return self

    def to_json(self) -> dict:
        return {"space": "chain", "links": [list(link) for link in self.links]}

    @classmethod
    def from_json(cls, data: object) -> "Chain":
        try:
            links = tuple((operation, multiplier) for operation, multiplier in data["links"])
            if data["space"] != "chain" or not links or not all(o in KERNELS and isinstance(m, str) for o, m in links):
                raise ValueError("its links")
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"not a chain: {error}") from None
        return cls(links)

    def short(self) -> str:
        return f"{self.key[:8]}  {' '.join(f'{operation}·{multiplier}' for operation, multiplier in self.links)}"


class ChainSpace(Space):
    """Chains of ``length`` convolutions on multipliers from ``library``."""

    name = "chain"
    Config = ChainConfig
    small = ChainConfig(length=2)
    architecture_type = Chain
    scopes = ("all",)
    operation_names = KERNELS

    def __init__(self, library, config=ChainConfig(), scope="all", choice="edge"):
        if scope != "all" or choice != "edge":
            raise InputError("the multipliers of a chain govern all, and are chosen per edge")
        self.library, self.config, self.scope, self.choice = tuple(library), config, scope, choice
        self._multipliers = {multiplier.name: multiplier for multiplier in library}

    @classmethod
    def config_of(cls, architecture):
        return ChainConfig(len(architecture.links))

    @classmethod
    def edges(cls, architecture):
        links = enumerate(architecture.links, 1)
        return [Edge(f"link {at}", f"link {at - 1}" if at > 1 else "image", *link) for at, link in links]

    @classmethod
    def draw(cls, architecture):
        figure = Figure((3, len(architecture.links)))
        for edge in cls.edges(architecture):
            figure.text(0.1, 0.9 - 0.8 * int(edge.where[5:]) / len(architecture.links), " ".join(edge[2:]))
        return figure

    @property
    def sites(self):
        return tuple(f"link {number + 1}" for number in range(self.config.length))

    def sample(self, rng):
        return Chain(tuple(self._link(rng) for _ in range(self.config.length)))

    def mutate(self, architecture, rng):
        if len(self.library) == len(KERNELS) == 1:
            raise InputError("this chain has no neighbour")
        links, at = list(architecture.links), int(rng.integers(len(architecture.links)))
        while links[at] == architecture.links[at]:
            links[at] = self._link(rng)
        return replace(architecture, links=tuple(links))

    def _link(self, rng):
        return KERNELS[int(rng.integers(len(KERNELS)))], self.library[int(rng.integers(len(self.library)))].name

    def reference(self):
        return Chain((("conv_3x3", self.library[0].name),) * self.config.length)

    def from_json(self, data):
        architecture = Chain.from_json(data)
        if len(architecture.links) != self.config.length:
            raise InputError(f"this chain has {len(architecture.links)} links, not {self.config.length}")
        return architecture

    def build(self, architecture, shape, arithmetic="approximate"):
        ARITHMETICS[arithmetic]  # an unknown one is refused
        layers, width = [], shape.input_shape[0]
        for operation, name in architecture.links:
            if name not in self._multipliers:
                raise suggest(name, self._multipliers, "multiplier in this library")
            factory, kernel = FixedLayers(arithmetic, self._multipliers[name]), int(operation[5])
            convolution = factory.conv(width, shape.channels, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(shape.channels), nn.ReLU()]
            width = shape.channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), factory.linear(width, shape.classes))

    def costs(self, architecture, shape) -> list[LayerCost]:
        with torch.device("meta"):
            return trace(self.build(architecture, shape, "fp32"), shape.input_shape, integer=True)

    def inherited(self, child, parent, shape):  # noqa: ARG002
        same = [at for at, (mine, its) in enumerate(zip(child.links, parent.links)) if mine[0] == its[0]]
        last = str(3 * len(child.links) + 2)
        return {str(3 * at + part): str(3 * at + part) for at in same for part in (0, 1)} | {last: last}
