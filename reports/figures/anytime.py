"""How good the proposals are after how much search: hypervolume against device time."""

import numpy as np
from matplotlib.figure import Figure

from reports.figures import style
from reports.figures.picture import Picture
from reports.load import Section
from reports.statistics import median_anytime, reference

PANEL = 2.2  # inches, height of the axes


@style.styled
def anytime(section: Section) -> Picture | None:
    """Median hypervolume over runs as steps, the band from the lowest to the highest; None where no run has fronts."""
    scale = reference(section)
    variants = {variant: runs for variant, all_ in section.variants.items() if (runs := [r for r in all_ if r.moments])}
    if scale is None or not variants:
        return None
    curves = {
        variant: [np.asarray(part, dtype=float) for part in median_anytime(runs, scale)]
        for variant, runs in variants.items()
    }
    looks = style.looks(section.variants)
    names = {variant: label for variant, label in style.labels(section.variants).items() if variant in curves}
    columns, legend = style.legend_lines(list(names.values()), style.COLUMN - 0.2)
    height = legend + 0.08 + PANEL + style.BOTTOM
    figure = Figure((style.COLUMN, height), facecolor="white")
    axes = style.inches(figure, style.LEFT, style.BOTTOM, style.COLUMN - style.LEFT - style.RIGHT, PANEL)
    longest = max(hours[-1] for hours, *_ in curves.values())
    unit, size = style.time_unit(longest)
    for variant, (hours, low, median, high) in curves.items():
        look = looks[variant]
        # A search that has ended keeps what it found, so that curves can be read at any time.
        at = np.append(hours, 1.05 * longest) / size
        low, median, high = (np.append(part, part[-1]) for part in (low, median, high))
        axes.fill_between(at, low, high, step="post", color=look.colour, alpha=0.16, linewidth=0, gid="band")
        line = {"color": look.colour, "linestyle": look.dashes, "drawstyle": "steps-post"}
        axes.plot(at, median, **line, marker=look.marker, markersize=4, markevery=style.every(len(hours)), gid="median")
    axes.set(xlabel=f"time of the search, {unit}", ylabel="hypervolume", xlim=(0, 1.05 * longest / size))
    style.finish(axes)
    handles = [style.line_handle(looks[variant], marker=looks[variant].marker) for variant in names]
    style.legend(figure, handles, list(names.values()), 0.2, 0.04, columns)
    counts = ", ".join(f"{names[variant]}: {style.count(len(runs), 'run')}" for variant, runs in variants.items())
    caption = (
        f"{section.title}. Hypervolume of the judged validation fronts ({scale.words}) over the device time of the search; "
        f"what judging them took is not counted. Median and range over runs ({counts}), known at the marks only."
    )
    if any(len(runs) == 1 for runs in variants.values()):
        caption += " One run shows no spread over seeds."
    return Picture(f"{section.name}-anytime", "Hypervolume against device time", caption, figure)
