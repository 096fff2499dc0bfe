"""How good the proposals are after how much search: hypervolume against device time."""

import numpy as np
from matplotlib.figure import Figure

from reports.figures import style
from reports.figures.picture import Picture
from reports.load import Section
from reports.statistics import judged, median_anytime, reference

PANEL = 2.2  # inches, height of the axes


@style.styled
def anytime(section: Section) -> Picture | None:
    """Median hypervolume over runs as steps, the band from the lowest to the highest; None where no run has fronts."""
    scale = reference(section)
    variants = {variant: searched for variant, runs in section.variants.items() if (searched := judged(runs))}
    if scale is None:
        return None
    curves = {variant: median_anytime(runs, scale) for variant, runs in variants.items()}
    looks = style.looks(section.variants)
    names = style.labels(section.variants)
    legend = style.Legend([style.line_key(names[v], looks[v]) for v in variants], style.COLUMN - 0.1)
    frame = style.BOTTOM + PANEL + 0.1
    figure = Figure((style.COLUMN, frame + legend.height), facecolor="white")
    legend.draw(figure, 0.1, frame + legend.height)
    axes = style.panel(figure, style.LEFT, style.BOTTOM, style.COLUMN - style.LEFT - style.RIGHT, PANEL)
    longest = max(steps.hours[-1] for steps in curves.values()) or 1 / 3600
    unit, size = section.time_unit
    for variant, (hours, low, median, high) in curves.items():
        look = looks[variant]
        # A search that has ended keeps what it found, so that curves can be read at any time.
        at = np.append(hours, 1.05 * longest) / size
        low, median, high = (np.append(part, part[-1]) for part in (low, median, high))
        axes.fill_between(at, low, high, step="post", color=look.colour, alpha=0.16, linewidth=0, gid="band")
        marked = style.every(len(hours))
        axes.plot(at, median, **look.line, drawstyle="steps-post", markersize=4, markevery=marked, gid="median")
    axes.set_xlim(0, 1.05 * longest / size)
    style.label(axes, f"time of the search, {unit}", "hypervolume")
    style.grid(axes)
    counts = ", ".join(f"{names[variant]}: {style.count(len(runs), 'run')}" for variant, runs in variants.items())
    caption = (
        f"{section.title}. Hypervolume of the judged validation fronts against the device time of the search; "
        f"what judging them took is not counted. Median and range over runs ({counts}), known at no more moments than the "
        f"steps show. {scale.sentence}"
    )
    if any(len(runs) == 1 for runs in variants.values()):
        caption += " One run shows no spread over seeds."
    return Picture(f"{section.name}-anytime", "Hypervolume against device time", caption, figure)
