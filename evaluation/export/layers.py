"""What ``network.json`` must hold, layer by layer, for a network to be rebuilt from it."""

from typing import Literal, NotRequired, TypedDict

Pair = tuple[int, int]


class Layer(TypedDict):
    """What all layers have."""

    name: str
    op: str
    inputs: list[str]


class ExportedMultiplier(TypedDict):
    key: str


class Exported(TypedDict):
    layers: list[Layer]
    multipliers: dict[str, ExportedMultiplier]


class Multiplying(Layer):
    arithmetic: Literal["circuit", "fp32"]
    multiplier: NotRequired[str | None]
    activation_zero_point: NotRequired[int | None]


class Convolution(Multiplying):
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


class Normalisation(Layer):
    epsilon: float


class Pool(Layer):
    kernel_size: Pair
    stride: Pair
    padding: Pair


class Pad(Layer):
    left: int
    right: int
    top: int
    bottom: int


class Slice(Layer):
    start: list[int]
    stop: list[int]


OPERATIONS = {
    "conv": Convolution,
    "linear": Multiplying,
    "batch_norm": Normalisation,
    "max_pool": Pool,
    "average_pool": Pool,
    "pad": Pad,
    "slice": Slice,
}
