"""Where in a network the energy goes: a bar per layer, or per group of layers where there are many."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.figures import style
from reports.figures.architectures import best_run, finalist_of
from reports.figures.circuits import builtin
from reports.figures.picture import Picture
from reports.load import Section
from spaces.drawing import circuit_label, text_width
from spaces.multipliers.catalogue import power_ratio

BARS = 40  # more do not get readable labels on a page
PANEL = 1.5  # inches, height of the axes
ADDITIONS = "#B8B8B8"
NO_CIRCUIT = ""  # stands for what no multiplier governs
LABEL = 24  # characters below a bar


@dataclass(frozen=True)
class Bar:
    """One layer or several. ``parts`` is pJ by circuit in approximate arithmetic, ``int8`` that of exact int8."""

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
        found = layers_of(finalist_of(run))
        if drawn == most or found is None:
            continue
        drawn += 1
        bars = group(found)
        powers = {name: _power(run.record, name) for bar in bars for name in bar.parts if name}
        figure = _draw(bars, powers)
        total, exact = sum(sum(bar.parts.values()) for bar in bars), sum(bar.int8 for bar in bars)
        unit, size = style.energy_unit(exact)
        caption = (
            f"{names[variant]} on {section.title}: energy of every layer of finalist {run.best['finalist']} of run "
            f"{style.plain(run.name)}, {total / size:,.4g} {unit} per inference in approximate arithmetic (filled) and "
            f"{exact / size:,.4g} {unit} in exact int8 (outline), memory traffic left out. Grey: normalisation, pooling "
            "and sums, which no multiplier governs. In parentheses: the power of a circuit relative to the exact one."
        )
        if len(bars) < len(found):
            caption += f" {len(found)} layers are shown as {len(bars)} groups."
        yield Picture(f"{section.name}-layers-{drawn}", f"Energy by layer: {names[variant]}", caption, figure)


def layers_of(finalist: dict) -> list[dict] | None:
    """The layers as recorded; None where they are not, or are damaged (part of them would be a wrong picture)."""
    found = finalist.get("layers")
    return found if isinstance(found, list) and found and all(map(_is_layer, found)) else None


def _is_layer(layer: object) -> bool:
    if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
        return False
    circuit = layer.get("multiplier")
    energies = [layer.get("int8_pj"), layer.get("approximate_pj")]
    numbers = all(isinstance(e, int | float) and not isinstance(e, bool) and 0 <= e < 1e100 for e in energies)
    return numbers and (circuit is None or (isinstance(circuit, str) and circuit != NO_CIRCUIT))


def group(found: Sequence[dict]) -> list[Bar]:
    """At most ``BARS`` bars in the order of the layers.

    Where there are more layers, those whose names begin alike are put together, as ``cells.0.body``, with as little
    in common as it takes; if that does not suffice, neighbours are.
    """
    groups = [(layer["name"], [layer]) for layer in found]
    depth = max(layer["name"].count(".") for layer in found)  # components of a name that are kept
    while len(groups) > BARS and depth >= 2:
        merged: dict[str, list[dict]] = {}
        for layer in found:
            merged.setdefault(".".join(layer["name"].split(".")[:depth]), []).append(layer)
        groups = list(merged.items())
        depth -= 1
    per_bar = -(-len(groups) // BARS)
    return [_bar(groups[start : start + per_bar]) for start in range(0, len(groups), per_bar)]


def _bar(groups: Sequence[tuple[str, list[dict]]]) -> Bar:
    first, last = groups[0][0], groups[-1][0]
    words = first.split(".")
    block = ".".join(words[:2]) if len(words) > 2 and words[1].isdecimal() else ""
    members = [layer for _, part in groups for layer in part]
    parts: dict[str, float] = {}
    for layer in members:
        circuit = layer["multiplier"] or NO_CIRCUIT
        parts[circuit] = parts.get(circuit, 0.0) + layer["approximate_pj"]
    name = first if len(groups) == 1 else f"{first} – {last}"
    return Bar(block, name, parts, math.fsum(layer["int8_pj"] for layer in members))


def _power(record: dict, name: str) -> float | None:
    circuit = builtin(record, name)
    return None if circuit is None or circuit.power_mw is None else power_ratio(circuit)


# -- drawing -----------------------------------------------------------------------------------------------------------


@style.styled
def _draw(bars: Sequence[Bar], powers: dict[str, float | None]) -> Figure:
    circuits = sorted(powers, key=lambda name: (-(powers[name] or 0.0), name))
    looks = style.circuit_looks(circuits)
    shown = style.labels([circuit_label(name) for name in circuits])
    texts = [
        shown[circuit_label(name)] + (f" ({100 * powers[name]:.0f} %)" if powers[name] is not None else "")
        for name in circuits
    ]
    texts += ["no multiplier", "exact int8"]
    ticks = _tick_labels(bars)
    below = max(text_width(tick, style.SMALL) for tick in ticks) + 0.12
    columns, legend = style.legend_lines(texts, style.PAGE - style.LEFT)
    height = legend + style.TOP + PANEL + below
    figure = Figure((style.PAGE, height), facecolor="white")
    axes = style.inches(figure, style.LEFT, below, style.PAGE - style.LEFT - style.RIGHT, PANEL)
    unit, size = style.energy_unit(max(bar.int8 for bar in bars))
    _draw_bars(axes, bars, circuits, looks, size)
    axes.set_xticks(range(len(bars)), ticks, rotation=90)
    axes.set(xlim=(-0.7, len(bars) - 0.3), ylabel=f"energy, {unit}")
    style.finish(axes, "y")
    axes.tick_params(axis="x", length=0)
    _name_blocks(axes, bars)
    handles = [
        Patch(facecolor=looks[name].colour, hatch=looks[name].hatch, edgecolor="black", linewidth=0.4)
        for name in circuits
    ]
    handles += [Patch(facecolor=ADDITIONS, edgecolor="black", linewidth=0.4)]
    handles += [Patch(facecolor="white", edgecolor="black", linewidth=0.7)]
    style.legend(figure, handles, texts, style.LEFT, 0.04, columns)
    return figure


def _draw_bars(
    axes: Axes, bars: Sequence[Bar], circuits: Sequence[str], looks: dict[str, style.Look], size: float
) -> None:
    """A stack per bar, the dearest circuit at the bottom, in front of the outline of exact int8."""
    places = range(len(bars))
    axes.bar(
        places, [bar.int8 / size for bar in bars], 0.86, facecolor="white", edgecolor="black", linewidth=0.7, gid="int8"
    )
    bottoms = [0.0] * len(bars)
    for name in [*circuits, NO_CIRCUIT]:
        at = [place for place in places if name in bars[place].parts]
        heights = [bars[place].parts[name] / size for place in at]
        fill = {"facecolor": looks[name].colour, "hatch": looks[name].hatch} if name else {"facecolor": ADDITIONS}
        axes.bar(
            at,
            heights,
            0.66,
            bottom=[bottoms[place] for place in at],
            edgecolor="black",
            linewidth=0.4,
            gid="approximate",
            **fill,
        )
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
