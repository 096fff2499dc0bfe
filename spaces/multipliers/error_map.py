"""A picture of where a circuit errs."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spaces.multipliers.multiplier import Multiplier, error_metrics, exact_products, operand_range


def draw_error_map(multiplier: Multiplier) -> Figure:
    """The error T(a, b) − a·b over both operands in units of the product: red is too large, blue too small."""
    error = multiplier.table.astype(np.int64) - exact_products(multiplier.signed)
    metrics = error_metrics(multiplier)
    values = operand_range(multiplier.signed)
    edges = (values[0] - 0.5, values[-1] + 0.5)
    ticks = [*values[::32].tolist(), int(values[-1])]
    limit = max(metrics.wce, 1)  # symmetric about 0, and not empty for the exact circuit

    figure = Figure(figsize=(6.6, 5.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        error, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower", extent=(*edges, *edges), interpolation="nearest"
    )
    axes.set(xlabel="weight b", ylabel="activation a", xticks=ticks, yticks=ticks)
    axes.tick_params(labelsize="small")
    axes.set_title(
        f"{multiplier.name}: MAE {metrics.mae:,.4g} ({metrics.mae_pct:.3g} %), "
        f"WCE {metrics.wce:,} ({metrics.wce_pct:.3g} %)",
        fontsize="medium",
    )
    whole_numbers = MaxNLocator(integer=True)
    bar = figure.colorbar(image, ax=axes, ticks=whole_numbers, label="error T(a, b) − a·b, in units of the product")
    bar.ax.tick_params(labelsize="small")
    return figure
