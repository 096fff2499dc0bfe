"""Where in a network the cost goes: a bar per layer, or per group of layers where there are many."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.runs import units
from evaluation.runs.record import Layer, Record
from reports.figures import style
from reports.figures.best import best_run, layers_of, only_first
from reports.figures.multipliers import builtin
from reports.figures.picture import Picture
from reports.load import Section
from spaces.drawing import BLACK, text_width
from spaces.multipliers.catalogue import power_ratio

BARS = 40  # more do not get readable labels on a page
PANEL = 1.5  # inches, height of the axes
ADDITIONS = "#B8B8B8"
OUTLINE = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.7}
NO_MULTIPLIER = ""  # stands for what no multiplier governs
LABEL = 24  # characters below a bar


@dataclass(frozen=True)
class Bar:
    """One layer or several. ``parts`` is cost by circuit in approximate arithmetic, ``int8`` that of exact int8."""

    block: str  # the cell or node that it belongs to; "" for none
    label: str
    parts: dict[str, float]
    int8: float


def layers(section: Section, most: int) -> Iterator[Picture]:
    """A chart for the best finalist of each of the first ``most`` variants whose records list layers."""
    names = style.labels(section.variants)
    drawn = 0
    for variant, runs in section.variants.items():
        run = best_run(runs)
        found = layers_of(run.best_finalist)
        if drawn == most or not found:
            continue
        drawn += 1
        bars = group(found)
        powers = {name: _power(run.record, name) for bar in bars for name in bar.parts if name}
        figure = _draw(bars, powers, section.unit)
        total, exact = sum(sum(bar.parts.values()) for bar in bars), sum(bar.int8 for bar in bars)
        noun, (unit, size) = units.noun(section.unit), units.suited(section.unit, exact)
        aside = f", {section.apart} left out" if section.apart else ""
        caption = (
            f"{names[variant]} on {section.title}: {noun} of every layer of finalist {run.best['finalist']} of run "
            f"{style.plain(run.name)}, {total / size:,.4g} {unit} per inference in approximate arithmetic (filled) and "
            f"{exact / size:,.4g} {unit} in exact int8 (outline){aside}. Grey: normalisation, pooling "
            "and sums, which no multiplier governs. In parentheses: the power of a circuit relative to the exact one."
        )
        if len(bars) < len(found):
            caption += f" {len(found)} layers are shown as {len(bars)} groups."
        caption += only_first(section, most)
        yield Picture(
            f"{section.name}-layers-{drawn}", f"{noun.capitalize()} by layer: {names[variant]}", caption, figure
        )


def group(found: Sequence[Layer]) -> list[Bar]:
    """At most ``BARS`` bars in the order of the layers.

    Where there are more layers, those whose names begin alike are put together, as ``cells.0.body``, with as little
    in common as it takes; if that does not suffice, neighbours are.
    """
    groups = [(layer.name, [layer]) for layer in found]
    depth = max(layer.name.count(".") for layer in found)  # components of a name that are kept
    while len(groups) > BARS and depth >= 2:
        merged: dict[str, list[Layer]] = {}
        for layer in found:
            merged.setdefault(".".join(layer.name.split(".")[:depth]), []).append(layer)
        groups = list(merged.items())
        depth -= 1
    per_bar = -(-len(groups) // BARS)
    return [_bar(groups[start : start + per_bar]) for start in range(0, len(groups), per_bar)]


def _bar(groups: Sequence[tuple[str, list[Layer]]]) -> Bar:
    first, last = groups[0][0], groups[-1][0]
    words = first.split(".")
    block = ".".join(words[:2]) if len(words) > 2 and words[1].isdecimal() else ""
    members = [layer for _, part in groups for layer in part]
    parts: dict[str, float] = {}
    for layer in members:
        multiplier = layer.multiplier or NO_MULTIPLIER
        parts[multiplier] = parts.get(multiplier, 0.0) + layer.costs["approximate"]
    name = first if len(groups) == 1 else f"{first} – {last}"
    return Bar(block, name, parts, math.fsum(layer.costs["int8"] for layer in members))


def _power(record: Record, name: str) -> float | None:
    multiplier = builtin(record, name)
    return None if multiplier is None or multiplier.power_mw is None else power_ratio(multiplier)


# -- drawing -----------------------------------------------------------------------------------------------------------


@style.styled
def _draw(bars: Sequence[Bar], powers: dict[str, float | None], cost_unit: str) -> Figure:
    multipliers = sorted(powers, key=lambda name: (-(powers[name] or 0.0), name))
    looks, names = style.multiplier_looks(multipliers), style.multiplier_labels(multipliers)
    keys = [style.Key(f"{names[name]}{_share(powers[name])}", _fill(looks[name])) for name in multipliers]
    keys += [style.Key("no multiplier", _fill(None)), style.Key("exact int8", OUTLINE)]
    legend = style.Legend(keys, style.PAGE - style.LEFT)
    ticks = _tick_labels(bars)
    below = max(text_width(tick, style.SMALL) for tick in ticks) + 0.1
    frame = below + PANEL + style.TOP
    figure = Figure((style.PAGE, frame + legend.height), facecolor="white")
    legend.draw(figure, style.LEFT, frame + legend.height)
    width = style.PAGE - style.LEFT - style.RIGHT
    axes = style.panel(figure, style.LEFT, below, width, PANEL)
    unit, size = units.suited(cost_unit, max(bar.int8 for bar in bars))
    _draw_bars(axes, bars, multipliers, looks, size)
    axes.set(xlim=(-0.7, len(bars) - 0.3), xticks=[])
    style.label(axes, up=f"{units.noun(cost_unit)}, {unit}")
    style.grid(axes, "y")
    _name_blocks(axes, bars)
    for at, tick in enumerate(ticks):  # 40 turned tick labels of matplotlib's take half of the time
        x = style.LEFT + width * (at + 0.7) / (len(bars) + 0.4)
        figure.text(
            x,
            below - 0.05,
            tick,
            size=style.SMALL,
            rotation=90,
            ha="center",
            va="top",
            transform=figure.dpi_scale_trans,
        )
    return figure


def _share(power: float | None) -> str:
    return "" if power is None else f" ({100 * power:.0f} %)"


def _fill(look: style.Look | None) -> dict:
    """How the cost of a circuit is drawn; None: what no multiplier governs."""
    fill = {"facecolor": look.colour, "hatch": look.hatch} if look else {"facecolor": ADDITIONS}
    edge = "white" if look and look.colour == BLACK else "black"  # it draws the hatches, too
    return {**fill, "edgecolor": edge, "linewidth": 0.4}


def _draw_bars(
    axes: Axes, bars: Sequence[Bar], multipliers: Sequence[str], looks: dict[str, style.Look], size: float
) -> None:
    """A stack per bar, the most expensive circuit at the bottom, in front of the outline of exact int8."""
    places = range(len(bars))
    axes.bar(places, [bar.int8 / size for bar in bars], 0.86, **OUTLINE, gid="int8")
    bottoms = [0.0] * len(bars)
    for name in [*multipliers, NO_MULTIPLIER]:
        at = [place for place in places if name in bars[place].parts]
        heights = [bars[place].parts[name] / size for place in at]
        fill = _fill(looks[name] if name else None)
        axes.bar(at, heights, 0.66, [bottoms[place] for place in at], **fill, gid=style.plain(name) or "no multiplier")
        for place, height in zip(at, heights):
            bottoms[place] += height


def _blocks(bars: Sequence[Bar]) -> list[tuple[str, int, int]]:
    """Name, first and last bar of every block that has at least three bars, so that its name fits above them."""
    runs = [
        (block, [at for at, _ in members])
        for block, members in groupby(enumerate(bars), key=lambda item: item[1].block)
    ]
    return [(block, places[0], places[-1]) for block, places in runs if block and len(places) >= 3]


def _tick_labels(bars: Sequence[Bar]) -> list[str]:
    """Without the name of the block where that stands above."""
    texts = [bar.label for bar in bars]
    for block, first, last in _blocks(bars):
        for at in range(first, last + 1):
            texts[at] = texts[at].removeprefix(f"{block}.")
    return [style.plain(text, LABEL) for text in texts]


def _name_blocks(axes: Axes, bars: Sequence[Bar]) -> None:
    for at, (block, first, last) in enumerate(_blocks(bars)):
        if at % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, facecolor="#F0F0F0", linewidth=0, zorder=0)
        text = style.plain(block, 3 * (last - first + 1))
        axes.text((first + last) / 2, 1.02, text, transform=axes.get_xaxis_transform(), size=style.SMALL, ha="center")
