"""How the figures of a report look: one palette, one size of type, legends that cover nothing, and untrusted text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from reports.load import Section
from spaces.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW, multiplier_label, text_width
from spaces.multipliers import catalogue

COLUMN, PAGE = 3.4, 7.0  # inches: one column and both columns of a paper
TEXT, SMALL = 8.0, 7.0  # points
# Inches around axes for their ticks and labels; fixed, because layout engines are slow and move what is compared.
LEFT, BOTTOM, TOP, RIGHT = 0.54, 0.4, 0.26, 0.1
LINE_HEIGHT, KEY = 0.135, 0.3  # inches of a line of small type, and of a mark in a legend
NAME, MULTIPLIER = 40, 24  # characters that are shown of a name from outside, and of a circuit

RC = {
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 0.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # names may hold $, _ and ^
}
styled = matplotlib.rc_context(RC)  # a decorator; nothing stays behind it

PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">", "p", "*", "d")
DASHES = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (8, 2, 3, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 3)),
)
EDGE = "#333333"  # of markers
# Names 8 apart share a colour, so their hatches differ most.
HATCHES = ("", "////", "xxxx", "\\\\\\\\", "----", "||||", "", "++++", "..", "xx", "++", "//", "||")


@dataclass(frozen=True)
class Look:
    """How one variant, operation or circuit is drawn: by colour, and without colour by marker, dashes or hatching."""

    colour: str
    marker: str
    dashes: object
    hatch: str

    @property
    def line(self) -> dict:
        """Properties of a curve. Dark edges keep the markers of light colours visible."""
        return {"color": self.colour, "linestyle": self.dashes, "marker": self.marker, "markeredgecolor": EDGE}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for every name, in their order. Colours repeat after 8 names, markers and hatches after 13."""
    return {
        name: Look(
            PALETTE[at % len(PALETTE)],
            MARKERS[at % len(MARKERS)],
            DASHES[at % len(DASHES)],
            HATCHES[at % len(HATCHES)],
        )
        for at, name in enumerate(dict.fromkeys(names))
    }


def colours(section: Section) -> dict[str, str]:
    """Variant → colour as #rrggbb, the same in all figures of the section."""
    return {variant: look.colour for variant, look in looks(section.variants).items()}


def multiplier_looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for every circuit: the built-in ones always have the same, those of a user's own take those behind."""
    names = set(names)
    own = sorted(names.difference(catalogue.names()))
    return {name: look for name, look in looks([*catalogue.names(), *own]).items() if name in names}


# -- untrusted text -----------------------------------------------------------------------------------------------


@cache
def _font() -> FT2Font:
    return get_font(findfont(FontProperties(family="DejaVu Sans")))


def plain(text: str, limit: int = NAME) -> str:
    """One line of at most ``limit`` characters, all of which the font of the figures has."""
    line = " ".join(text.split())
    if len(line) > limit:  # names differ at their ends as often as at their beginnings
        line = f"{line[: (limit + 1) // 2 - 1]}…{line[-(limit // 2) :]}"
    return "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "?" for c in line)


def labels(names: Iterable[str], limit: int = NAME, short: Callable[[str], str] = str) -> dict[str, str]:
    """What to call each name in a figure; those that read the same when shortened get a number."""
    shown: dict[str, str] = {}
    for name in dict.fromkeys(names):
        label = plain(short(name), limit) or "(no name)"
        twins = sum(1 for other in shown.values() if other.partition(" #")[0] == label)
        shown[name] = f"{label} #{twins + 1}" if twins else label
    return shown


def multiplier_labels(names: Iterable[str]) -> dict[str, str]:
    """What to call each circuit in a figure."""
    return labels(names, MULTIPLIER, multiplier_label)


def count(number: int, what: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# -- axes and legends, placed in inches from the figure's lower left corner --------------------------------------------


def panel(figure: Figure, left: float, bottom: float, width: float, height: float, title: str = "") -> Axes:
    """Axes whose frame lies at these inches, with a title above its left corner."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.tick_params(length=2.5, pad=2)
    if title:
        figure.text(left, bottom + height + 0.07, title, size=TEXT, transform=figure.dpi_scale_trans)
    return axes


def label(axes: Axes, across: str = "", up: str = "") -> None:
    """Name the axes, at fixed places: to search for free ones is slow, and moves them from figure to figure."""
    axes.set(xlabel=across, ylabel=up)
    frame = axes.get_position().transformed(axes.figure.transFigure - axes.figure.dpi_scale_trans)
    axes.xaxis.set_label_coords((frame.x0 + frame.x1) / 2, frame.y0 - 0.22, axes.figure.dpi_scale_trans)
    axes.yaxis.set_label_coords(frame.x0 - 0.38, (frame.y0 + frame.y1) / 2, axes.figure.dpi_scale_trans)


def grid(axes: Axes, axis: str = "both") -> None:
    """Light lines below everything."""
    axes.grid(True, axis=axis, color="#E4E4E4", linewidth=0.5)


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a line, or where it has a ``facecolor`` a box, with these properties."""

    text: str
    properties: dict


def line_key(text: str, look: Look, **properties: object) -> Key:
    return Key(text, look.line | properties)


class Legend:
    """Entries in columns, at most ``width`` inches wide, which never lies over axes: it tells its height beforehand."""

    def __init__(self, keys: Sequence[Key], width: float) -> None:
        self.columns: list[list[Key]] = []
        self.widths: list[float] = []  # of the columns, with the space to the next
        for rows in range(1, len(keys) + 1):
            self.columns = [list(keys[start : start + rows]) for start in range(0, len(keys), rows)]
            self.widths = [max(text_width(key.text, SMALL) for key in part) + KEY + 0.2 for part in self.columns]
            if sum(self.widths) <= width:
                break
        self.height = max(map(len, self.columns), default=0) * LINE_HEIGHT + (0.04 if keys else 0)

    def draw(self, figure: Figure, left: float, top: float) -> None:
        """Down from ``top`` and right of ``left``, column by column."""
        for part, width in zip(self.columns, self.widths):
            for at, key in enumerate(part):
                _draw_key(figure, key, left, top - (at + 0.5) * LINE_HEIGHT)
            left += width


def _draw_key(figure: Figure, key: Key, x: float, y: float) -> None:
    inches = {"transform": figure.dpi_scale_trans}
    if "facecolor" in key.properties:
        figure.add_artist(Rectangle((x, y - 0.04), KEY, 0.08, **key.properties, **inches))
    else:
        figure.add_artist(Line2D([x, x + KEY / 2, x + KEY], [y] * 3, markevery=[1], **key.properties, **inches))
    figure.text(x + KEY + 0.06, y, key.text, size=SMALL, va="center_baseline", gid="legend", **inches)


def draw_line(figure: Figure, x: Sequence[float], y: Sequence[float], width: float, gid: str = "") -> None:
    """A black line through these inches."""
    options = {"color": EDGE, "linewidth": width, "solid_capstyle": "butt", "gid": gid or None}
    figure.add_artist(Line2D(x, y, transform=figure.dpi_scale_trans, **options))


def every(number: int, most: int = 8) -> list[int]:
    """At most ``most`` + 1 places among so many points, evenly spread, the last among them."""
    step = max(1, -(-number // most))
    return sorted({*range(0, number, step), number - 1} - {-1})
