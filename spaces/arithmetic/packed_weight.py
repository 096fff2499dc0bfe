"""A layer's weight as engines take it, packed once for as long as it does not change."""

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spaces.arithmetic import emulate
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.quantise import WeightQuantiser, weight_codes
from spaces.multipliers.products import ProductTable


@dataclass(frozen=True)
class PackedWeight:
    """A weight's codes, scales and the form in which an engine wants it."""

    index: Tensor  # (O, C/groups, kH, kW) uint8
    scale: Tensor  # (O,)
    engine: str
    packed: object


class WeightCache:
    """The packed weight of one layer, reused while neither the weight nor what it is packed for has changed.

    A change is noticed by the tensor's identity, memory and version counter; every in-place operation moves the latter,
    except one through ``weight.data`` and the step of a fused optimiser. So a weight that is being trained is packed in
    every pass, and what was packed before is forgotten.
    """

    def __init__(self, quantiser: WeightQuantiser = weight_codes) -> None:
        self.quantiser = quantiser
        self._known: tuple[Hashable, ...] | None = None
        self._weight: Callable[[], Tensor | None] = lambda: None
        self._packed: PackedWeight | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeightCache":
        return WeightCache(self.quantiser)  # a copy of a layer packs its own weight

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightCache, (self.quantiser,)

    def get(self, weight: Tensor, table: ProductTable, geometry: Geometry) -> PackedWeight:
        shape = (*weight.shape, 1, 1)[:4]
        engine = emulate.choose_engine(table, shape, geometry, weight.device)
        if torch.is_grad_enabled() and weight.requires_grad:
            self._packed = None
            return self._pack(weight, table, geometry, engine)
        known = (weight.data_ptr(), weight._version, table.key, geometry, engine)
        if self._packed is None or known != self._known or self._weight() is not weight:
            self._packed = self._pack(weight, table, geometry, engine)
            self._known, self._weight = known, weakref.ref(weight)
        return self._packed

    def _pack(self, weight: Tensor, table: ProductTable, geometry: Geometry, engine: str) -> PackedWeight:
        with torch.no_grad():
            index, scale = self.quantiser(weight)
        # As loops read their memory, from any quantiser
        index, scale = index.to(torch.uint8).contiguous(), scale.float().contiguous()
        if index.dim() < 4:  # a linear layer is a 1×1 convolution
            index = index.view(*index.shape, *[1] * (4 - index.dim()))
        return PackedWeight(index, scale, engine, emulate.ENGINES[engine].pack(index, table, geometry))
