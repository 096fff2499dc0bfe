"""Tables, geometries and operands for the Triton engines, and whether their kernels are interpreted."""

import os

import numpy as np
import torch
from torch import Tensor

from spaces.arithmetic.engines.geometry import Geometry
from spaces.multipliers import catalogue
from spaces.multipliers.products import ProductTable, operand_table

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

UNSIGNED, SIGNED = np.arange(256), np.arange(256) - 128
FILL = 77  # the index of padded positions; no table here has zero features for it


def product(name: str, a_lo: int, b_lo: int, error: np.ndarray | int = 0) -> ProductTable:
    return ProductTable(name, np.multiply.outer(UNSIGNED + a_lo, UNSIGNED + b_lo) + error, a_lo, b_lo)


def multiplier(name: str) -> ProductTable:
    return operand_table(catalogue.get(name))


def rough(a_lo: int, b_lo: int) -> ProductTable:
    """Factors that are no bits of the index, in three chunks of different weights; errors for zero operands, too."""
    error = np.multiply.outer(UNSIGNED % 7 * 37, SIGNED % 5) + np.multiply.outer(UNSIGNED**2 // 100, UNSIGNED // 2)
    return product(f"rough{a_lo}{b_lo}", a_lo, b_lo, error + np.multiply.outer(SIGNED // 3, SIGNED) + 5)


def noise(bits: int) -> ProductTable:
    entries = np.random.default_rng(0).integers(-(1 << bits - 1), 1 << bits - 1, (256, 256))
    return ProductTable(f"noise{bits}", entries + (1 << bits - 2), -128, 0)


FACTORED = {
    "exact": multiplier("mul8s_1KV8"),
    "four factors": multiplier("mul8s_1KVL"),
    "five factors": multiplier("mul8s_1KX2"),
    "unsigned": product("unsigned", 0, 0),  # in two weights
    "mixed": product("mixed", 0, -128),  # with a constant
    "rough": rough(0, -128),
    "rough signed": rough(-128, -128),
    "rough unsigned": rough(0, 0),
    "zero": ProductTable("zero", np.zeros((256, 256)), -128, -128),
    "constant": ProductTable("constant", np.zeros((256, 256)) - SIGNED * 3, -128, -128),
}
GATHERED = {**FACTORED, "16 bits": noise(16), "24 bits": noise(24)}

# Images, channels, height, width; outputs, kernel; geometry.
GEOMETRIES = {
    "one pixel": ((1, 1, 1, 1), 1, (1, 1), Geometry()),
    "pointwise": ((2, 36, 5, 3), 70, (1, 1), Geometry()),
    "pointwise strided": ((1, 64, 5, 4), 17, (1, 1), Geometry(stride=(2, 3))),
    "dense": ((1, 40, 3, 4), 33, (3, 3), Geometry(padding=(1, 1))),
    "three channels": ((2, 3, 9, 7), 16, (3, 3), Geometry((2, 1), (1, 1))),
    "five taps": ((1, 16, 6, 5), 9, (5, 5), Geometry(padding=(2, 2))),
    "dilated": ((1, 40, 6, 7), 4, (3, 2), Geometry((1, 2), (2, 1), (2, 3))),
    "wide padding": ((1, 5, 2, 2), 6, (2, 3), Geometry(padding=(4, 5))),
    "grouped": ((1, 72, 3, 4), 40, (3, 1), Geometry(padding=(1, 0), groups=2)),
    "small groups": ((1, 12, 4, 4), 15, (3, 3), Geometry((2, 2), (1, 1), groups=3)),
    "tiny groups": ((1, 10, 4, 3), 15, (3, 3), Geometry(padding=(1, 1), groups=5)),
    "depthwise": ((2, 19, 5, 6), 19, (3, 3), Geometry((1, 2), (1, 1), groups=19)),
    "depthwise dilated": ((1, 80, 5, 5), 80, (3, 3), Geometry(padding=(2, 2), dilation=(2, 2), groups=80)),
    "many pixels": ((3, 4, 13, 11), 5, (1, 3), Geometry(padding=(0, 1))),
}


def operands(shape: tuple, outputs: int, kernel: tuple, geometry: Geometry, device="cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    w = torch.randint(0, 256, (outputs, shape[1] // geometry.groups, *kernel), generator=generator, dtype=torch.uint8)
    return x.contiguous(memory_format=torch.channels_last).to(device), w.to(device)
