"""Truth tables from formulas: families of approximate multipliers, each with its published source."""

from spaces.multipliers.families.adders import compressor_tree, kulkarni, lower_part_or
from spaces.multipliers.families.arrays import (
    adder_cells,
    broken_array,
    broken_array_table,
    broken_array_unsigned,
    estimated_power_mw,
    perforation,
    truncation,
)
from spaces.multipliers.families.logarithmic import mitchell, roba
from spaces.multipliers.families.registry import FAMILIES, Family, from_name
from spaces.multipliers.families.segments import drum, etm, ssm

__all__ = [
    "FAMILIES",
    "Family",
    "adder_cells",
    "broken_array",
    "broken_array_table",
    "broken_array_unsigned",
    "compressor_tree",
    "drum",
    "estimated_power_mw",
    "etm",
    "from_name",
    "kulkarni",
    "lower_part_or",
    "mitchell",
    "perforation",
    "roba",
    "ssm",
    "truncation",
]
