"""The loops that run on GPUs. Triton must be installed to import this package, and nothing else: it is compiled alone, too."""

import triton

from .convolutions import direct_kernel, gather_kernel, matrix_kernel
from .gradients import (
    add_up_kernel,
    blend_depthwise_gradient_kernel,
    blend_matrix_table_kernel,
    depthwise_weight_gradient_kernel,
)
from .mixture import (
    all_weight_features_kernel,
    blend_depthwise_kernel,
    blend_matrix_kernel,
    depthwise_tables_kernel,
    weight_features_kernel,
)
from .normalised import (
    finish_gradients_kernel,
    finish_statistics_kernel,
    gradient_sums_kernel,
    map_gradients_kernel,
    map_statistics_kernel,
    weighted_sum_kernel,
)
from .quantisation import (
    all_weight_codes_kernel,
    decode_kernel,
    look_up_kernel,
    quantise_kernel,
    running_maximum_kernel,
    running_range_kernel,
    weight_codes_kernel,
)

INTERPRETED = not isinstance(gather_kernel, triton.JITFunction)  # by Triton's interpreter, on the CPU: for tests

__all__ = [
    "INTERPRETED",
    "add_up_kernel",
    "all_weight_codes_kernel",
    "all_weight_features_kernel",
    "blend_depthwise_gradient_kernel",
    "blend_depthwise_kernel",
    "blend_matrix_kernel",
    "blend_matrix_table_kernel",
    "decode_kernel",
    "depthwise_tables_kernel",
    "depthwise_weight_gradient_kernel",
    "direct_kernel",
    "finish_gradients_kernel",
    "finish_statistics_kernel",
    "gather_kernel",
    "gradient_sums_kernel",
    "look_up_kernel",
    "map_gradients_kernel",
    "map_statistics_kernel",
    "matrix_kernel",
    "quantise_kernel",
    "running_maximum_kernel",
    "running_range_kernel",
    "weight_codes_kernel",
    "weight_features_kernel",
    "weighted_sum_kernel",
]
