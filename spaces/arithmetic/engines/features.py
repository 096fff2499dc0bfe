"""Features of activations: for every channel the R values u_r(x̂) side by side, as so many more input channels."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines import feature_loops as loops
from spaces.arithmetic.engines.geometry import pixels_of
from spaces.multipliers.byte_factors import as_bits
from spaces.multipliers.multiplier import SIZE

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, eq=False)
class Features:
    """How to expand channels: ``values`` (256, R), uint8 or float32, by index.

    The features of a group's C channels lie in chunks: ``chunks`` lists (first feature, features), and a chunk holds for
    each channel its features side by side. Wide chunks are looked up at once.
    """

    values: np.ndarray
    chunks: tuple[tuple[int, int], ...]
    words: tuple[np.ndarray, ...]  # for each chunk of bytes what is looked up, (256,)
    bits: tuple[np.ndarray, np.ndarray] | None  # masks and flips, where u_r = (index & mask_r) ^ flip_r for all r

    @property
    def count(self) -> int:
        return self.values.shape[1]

    @functools.cached_property
    def transposed(self) -> np.ndarray:
        """The values by feature (R, 256)."""
        return np.ascontiguousarray(self.values.T)

    @property
    def is_index(self) -> bool:
        """Whether the only feature is the index itself, so that nothing has to be expanded."""
        return self.bits is not None and self.count == 1 and self.bits[0][0] == SIZE - 1 and self.bits[1][0] == 0

    def moves(self, fill: int | Tensor, rest: float) -> bool:
        """Whether the features of the index ``fill`` differ from what the convolution pads with, or may, on a GPU."""
        values = self.values if isinstance(fill, Tensor) else self.values[fill]
        return bool((values != rest).any())

    def order_weights(self, features: Tensor) -> Tensor:
        """Weight features (O, C, R, kH, kW) → (O, C·R, kH, kW) in the order of ``expand``."""
        parts = [features[:, :, first : first + width].flatten(1, 2) for first, width in self.chunks]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def describe(values: np.ndarray, channels: int) -> Features:
    """The fastest description of features ``values`` (256, R) for groups of ``channels`` channels."""
    values = np.ascontiguousarray(values)
    bits = as_bits(values) if values.dtype == np.uint8 else None
    chunks: list[tuple[int, int]] = []
    first, count = 0, values.shape[1]
    while first < count:
        width = 1
        if bits is None and values.dtype == np.uint8:
            # Words need alignment: a pixel's and the chunk's first byte must be multiples of the word.
            fitting = (
                w for w in (8, 4, 2) if first + w <= count and not (count * channels % w or first * channels % w)
            )
            width = next(fitting, 1)
        chunks.append((first, width))
        first += width
    looked_up = values.dtype == np.uint8 and bits is None
    words = tuple(_words(values[:, first : first + width], width) for first, width in chunks if looked_up)
    return Features(values, tuple(chunks), words, bits)


def _words(values: np.ndarray, width: int) -> np.ndarray:
    return np.ascontiguousarray(values).view(_WORDS[width]).ravel()


def expand(x: Tensor, features: Features, groups: int) -> Tensor:
    """Indices (N, C, H, W) → features (N, C·R, H, W), channels-last, groups kept together."""
    batch, channels, height, width = x.shape
    if features.is_index:
        return x.contiguous(memory_format=torch.channels_last)
    if features.count == 1:
        groups = 1  # which makes no difference, but long loops
    dtype = torch.uint8 if features.values.dtype == np.uint8 else torch.float32
    if x.device.type != "cpu":
        return _expand_on_device(x, features, groups)
    flat = pixels_of(x).view(-1, channels // groups).numpy()
    out = torch.empty((batch, height, width, channels * features.count), dtype=dtype)
    target = out.view(-1, channels // groups * features.count).numpy()
    if features.bits is not None:
        loops.expand_bits(flat, *features.bits, target)
    elif dtype == torch.float32 and flat.shape[1] == 1:
        loops.expand_rows(flat.ravel(), features.values, target)
    elif dtype == torch.float32:
        loops.expand_floats(flat, features.transposed, target)
    else:
        start = 0
        for words, (_, span) in zip(features.words, features.chunks):
            loops.expand_words(flat, words, start // span, target.view(words.dtype))
            start += span * flat.shape[1]
    return out.permute(0, 3, 1, 2)


def expand_once(x: Tensor, features: Features, groups: int) -> Tensor:
    """``expand``, remembered with ``x``, for layers that read the same codes."""
    known = getattr(x, "_known_features", None)
    if known is None or known[0] is not features or known[1] != groups:
        known = (features, groups, expand(x, features, groups))
        x._known_features = known
    return known[2]


@functools.lru_cache(maxsize=1024)
def _values_on(features: Features, device: torch.device) -> Tensor:
    return torch.tensor(features.values, device=device)


def _expand_on_device(x: Tensor, features: Features, groups: int) -> Tensor:
    values = _values_on(features, x.device)
    looked_up = values[x.permute(0, 2, 3, 1).int()].unflatten(3, (groups, -1))  # (N, H, W, groups, C/groups, R)
    parts = [looked_up[..., first : first + span].flatten(4, 5) for first, span in features.chunks]
    return torch.cat(parts, dim=4).flatten(3, 4).permute(0, 3, 1, 2)
