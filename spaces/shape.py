"""The size in which an architecture is built; the architecture itself says nothing about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkShape:
    """Widths and sizes of a network. A space uses the fields that it knows."""

    channels: int  # initial width C; every reduction doubles it
    cells: int  # depth
    classes: int
    input_shape: tuple[int, ...]  # of one input, without the batch: (C, H, W) of an image
    auxiliary: bool = False  # a second classifier at 2/3 of the depth, in training only
