"""The multipliers that the networks compute on, and where each of them errs."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator

from evaluation.runs.record import Record
from reports.figures import style
from reports.figures.architectures import architecture_of
from reports.figures.picture import Picture
from reports.load import Loaded
from spaces.drawing import multiplier_label
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import SIZE, Multiplier, error_metrics, exact_products, operand_range

MOST_MAPS = 16
MAPS_IN_A_ROW = 4
POOL = 4  # operand pairs that one point of a map stands for, in each direction
MAP, GAP, BAR = 1.13, 0.27, 0.75  # inches of a map, between maps, and for the bar of colours
SIDE, TITLE = 0.62, 0.22


def builtin(record: Record, name: str) -> Multiplier | None:
    """The built-in circuit called ``name``, if the run's truth table of that name is the same (older records have none)."""
    multiplier = catalogue.find(name)
    recorded = (record.tables or {}).get(name)
    return multiplier if multiplier is None or recorded in (None, multiplier.key) else None


def in_use(loaded: Loaded) -> tuple[list[Multiplier], list[str]]:
    """The built-in circuits that finalists compute on, the most exact first, and the names of all others."""
    known: dict[str, Multiplier] = {}
    others: set[str] = set()
    for run in loaded.runs:
        found = [architecture_of(finalist.architecture) for finalist in run.record.finalists]
        for name in {name for architecture in found if architecture for name in architecture.multipliers}:
            multiplier = builtin(run.record, name)
            if multiplier is None:
                others.add(name)
            else:
                known[name] = multiplier
    return sorted(known.values(), key=lambda c: (mae_percent(c), c.name)), sorted(others)


@cache
def mae_percent(multiplier: Multiplier) -> float:
    """The mean absolute error over all operand pairs in % of 2^16, recomputed from the truth table."""
    return error_metrics(multiplier).mae_pct


# -- where they err ----------------------------------------------------------------------------------------------------


@style.styled
def error_maps(multipliers: Sequence[Multiplier], others: Sequence[str]) -> Picture | None:
    """|error| of ``circuits`` over both operands, small multiples on one scale; None where there are none.

    ``others`` names the circuits in use whose tables are unknown.
    """
    shown = multipliers[:MOST_MAPS]
    if not shown:
        return None
    columns = min(MAPS_IN_A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    width = SIDE + columns * (MAP + GAP) + BAR
    row = MAP + TITLE + 0.08
    height = style.BOTTOM + rows * row
    figure = Figure((width, height), facecolor="white")
    maps = [pooled_error(multiplier) for multiplier in shown]
    scale = LogNorm(1, max(2.0, *(map_.max() for map_ in maps)))
    for at, (multiplier, errors) in enumerate(zip(shown, maps)):
        down, across = divmod(at, columns)
        place = (SIDE + across * (MAP + GAP), style.BOTTOM + (rows - 1 - down) * row)
        axes = style.panel(figure, *place, MAP, MAP, _map_title(multiplier))
        image = _draw_map(axes, multiplier, errors, scale)
        last = at + columns >= len(shown)
        style.label(axes, "weight" if last else "", "" if across else "activation")
        axes.tick_params(labelbottom=last, labelleft=not across)
    bar = style.panel(figure, width - BAR, style.BOTTOM, 0.1, rows * row - TITLE - 0.08)
    figure.colorbar(image, cax=bar, extend="min", extendfrac=0.03, format=lambda value, _: f"{value:,.0f}")
    bar.yaxis.set_minor_locator(NullLocator())
    bar.set_ylabel("mean |error|, units of the product")
    caption = (
        f"Where the {style.count(len(shown), 'circuit')} that finalists compute on err: |T(a, b) − a·b| over both operands, "
        f"each point the mean of {POOL}×{POOL} pairs, white below 1; one logarithmic scale for all. MAE in % of 2¹⁶, "
        "recomputed from the truth tables."
    )
    if len(multipliers) > len(shown):
        caption += f" The {MOST_MAPS} most exact of {len(multipliers)} are shown."
    if others:
        names = ", ".join(style.labels(others[:6]).values()) + (" and others" if len(others) > 6 else "")
        caption += f" Records do not hold the tables of {names}, which are not built in."
    return Picture("circuits-errors", "Errors of the multipliers in use", caption, figure)


def pooled_error(multiplier: Multiplier) -> np.ndarray:
    """|T(a, b) − a·b|, the mean over squares of ``POOL`` × ``POOL`` operand pairs; rows are activations."""
    error = np.abs(multiplier.table.astype(np.int64) - exact_products(multiplier.signed))
    return error.reshape(SIZE // POOL, POOL, SIZE // POOL, POOL).mean(axis=(1, 3))


def _draw_map(axes: Axes, multiplier: Multiplier, errors: np.ndarray, scale: LogNorm) -> AxesImage:
    values = operand_range(multiplier.signed)
    edges = (values[0] - 0.5, values[-1] + 0.5)
    colours = colormaps["cividis_r"].with_extremes(under="white", bad="white")
    image = axes.imshow(
        np.where(errors < 1, np.nan, errors), cmap=colours, norm=scale, origin="lower", extent=(*edges, *edges),
        interpolation="nearest",
    )  # fmt: skip
    axes.set(
        xticks=[int(values[0]), int(values[SIZE // 2]), int(values[-1])],
        yticks=[int(values[0]), int(values[SIZE // 2]), int(values[-1])],
    )
    axes.spines[:].set_visible(True)
    return image


def _map_title(multiplier: Multiplier) -> str:
    return f"{style.plain(multiplier_label(multiplier.name), 10)}, {mae_percent(multiplier):.2g} %"
